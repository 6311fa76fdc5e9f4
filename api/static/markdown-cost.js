// How long Markdown takes to parse. The parser is fast with what people and models write. But a paragraph of emphasis,
// exclamation marks or backticks takes the square of their number, as does a long row of spaces, and a model that fails
// may repeat one of them ten thousand times.

const MAX_CHARACTERS = 100_000;
const MAX_WORK = 8_000_000; // about a third of a second
const PARAGRAPHS = /\n\s*\n/;
const MARKS = /[_*~!`]/g;
const SPACES = / {64,}/g;
// Lists and quotations in each other: the parser calls itself for each.
const DEEP = /^(?:[ \t]*(?:[>*+-]|\d{1,9}[.)])){100}/m;

/** Whether a text is to be shown as it is, because it would keep the page from responding. */
export function isCostly(text) {
  return text.length > MAX_CHARACTERS || DEEP.test(text) || work(text) > MAX_WORK;
}

function work(text) {
  const lengths = [
    ...text.split(PARAGRAPHS).map((paragraph) => paragraph.match(MARKS)?.length ?? 0),
    ...(text.match(SPACES) ?? []).map((spaces) => spaces.length),
  ];
  return lengths.reduce((sum, length) => sum + length ** 2, 0);
}
