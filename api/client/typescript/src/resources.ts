/** The JSON objects of the API, under its own names. A newer server may add fields. Times are RFC 3339, in UTC. */

export type Status = "queued" | "processing" | "completed" | "failed" | "cancelled";
export type Priority = "default" | "low";
export type SearchMode = "vector" | "text" | "hybrid";
export type FinishReason = "stop" | "length" | "content_filter" | "tool_calls";

/** The tokens that an answer used. */
export interface Usage {
  prompt_tokens: number;
  completion_tokens: number;
  total_tokens: number;
}

/** A function that the model wants to be called. Its arguments are JSON. */
export interface ToolCall {
  id: string;
  type: string;
  function: { name: string; arguments: string };
}

/** An earlier turn of a conversation. */
export interface Message {
  role: "user" | "assistant" | "system";
  content: string;
}

export type ResponseFormat =
  | { type: "text" }
  | { type: "json_object" }
  | { type: "json_schema"; json_schema: { name: string; schema: object; strict?: boolean } };

/** The fields of a request other than its text. */
export interface RequestOptions {
  model?: string | undefined;
  instructions?: string | undefined;
  messages?: readonly Message[] | undefined;
  temperature?: number | undefined;
  top_p?: number | undefined;
  max_output_tokens?: number | undefined;
  stop?: string | readonly string[] | undefined;
  seed?: number | undefined;
  response_format?: ResponseFormat | undefined;
  /** Functions, and which of them to call, as OpenAI's chat completions have them. */
  tools?: readonly object[] | undefined;
  tool_choice?: string | object | undefined;
  metadata?: Readonly<Record<string, string>> | undefined;
}

/** How an answer came about. */
export interface AnswerDetails {
  response_text: string | null;
  model: string | null;
  provider_model?: string | null;
  usage: Usage | null;
  finish_reason?: FinishReason | null;
  tool_calls?: ToolCall[] | null;
  /** The earlier prompt whose answer this is. */
  cached_from: number | null;
}

/** A prompt. Only `show` and `wait` return its `request`. */
export interface Prompt extends AnswerDetails {
  id: number;
  user: string;
  prompt_text: string;
  status: Status;
  websocket: boolean;
  attempt: number;
  error: string | null;
  history: number;
  priority?: Priority;
  /** Where a queued prompt stands; 1 is next. */
  position?: number | null;
  /** Why a queued prompt waits, if not only for its turn. */
  waiting_for?: { reason: string; detail: string; next_attempt_at: string } | null;
  metadata?: Record<string, string>;
  request?: Record<string, unknown> | null;
  created_at: string;
  completed_at: string | null;
  emptied_at: string | null;
}

/**
 * A completed prompt and its distance from the text searched for: 0 is the same, 4 the opposite. The distance is null
 * if the prompt was found by its words alone.
 */
export interface SimilarPrompt {
  id: number;
  user: string;
  prompt_text: string;
  response_text: string;
  similarity_score: number | null;
  created_at: string;
}

/** Which prompts are meant. */
export interface PromptFilter {
  model?: string | undefined;
  /** All of these pairs are in its metadata. */
  metadata?: Readonly<Record<string, string>> | undefined;
  /** Submitted at this time or later. */
  since?: string | undefined;
  /** Submitted before this time. */
  until?: string | undefined;
}

export interface User {
  id: number;
  username: string;
  created_at: string;
}

/** The next part of an answer's text, which starts at `offset`, in bytes of UTF-8. A higher `attempt` starts again. */
export interface PromptDelta {
  type: "prompt.delta";
  id: number;
  attempt: number;
  offset: number;
  text: string;
}

/** A prompt has finished. In the room it has a `seq`. */
export interface PromptEnded extends AnswerDetails {
  type: "prompt.completed" | "prompt.failed" | "prompt.cancelled";
  seq?: number;
  id: number;
  user: string;
  prompt_text: string;
  status: Status;
  error?: string | null;
  metadata?: Record<string, string>;
  created_at: string;
  completed_at: string;
}

export interface PromptDeleted {
  type: "prompt.deleted";
  seq?: number;
  id: number;
}

export interface BatchEnded {
  type: "batch.completed" | "batch.failed" | "batch.expired" | "batch.cancelled";
  seq: number;
  id: string;
  status: string;
}

/** The server no longer has all events after `since`: read the list of prompts. */
export interface Reset {
  type: "reset";
  seq: number;
}

export type StreamEvent = PromptDelta | PromptEnded | PromptDeleted;
export type RoomEvent = (PromptEnded | PromptDeleted | BatchEnded | Reset) & { seq: number };
