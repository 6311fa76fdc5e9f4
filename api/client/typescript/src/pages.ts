/** Lists that come in pages. */

import { type Query, type Read, jsonList } from "./http.js";
import { type PromptFilter } from "./resources.js";
import { type Session } from "./session.js";

interface Page<T> {
  items: T[];
  /** The parameters of the next page, if there is one. */
  next: Query | undefined;
}

/** Yields the pages of a list. They are fetched on demand. */
export async function* pages<T>(
  session: Session,
  path: string,
  query: Query,
  signal: AbortSignal | undefined,
): AsyncGenerator<T[], void> {
  for (let wanted: Query | undefined = query; wanted !== undefined;) {
    const page: Page<T> = await session.request("GET", path, { query: wanted, signal }, readPage<T>);
    yield page.items;
    wanted = page.next;
  }
}

async function readPage<T>(response: Response): Promise<Page<T>> {
  const link = /<([^>]*)>\s*;\s*rel="?next"?/.exec(response.headers.get("Link") ?? "")?.[1];
  const items = await (jsonList("id") as Read<T[]>)(response);
  return { items, next: link === undefined ? undefined : Object.fromEntries(new URL(link, "http://any").searchParams) };
}

/** The parameters of a filter. */
export function filterQuery({ model, metadata, since, until }: PromptFilter): Query {
  const pairs = Object.entries(metadata ?? {}).map(([key, value]) => [`metadata[${key}]`, value]);
  return { model, since, until, ...Object.fromEntries(pairs) };
}
