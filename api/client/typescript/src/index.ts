/** A client of Promptwire, for browsers and Node. */

export {
  Client,
  type CallOptions,
  type ClientOptions,
  type ListOptions,
  type RequestInitOptions,
  type SimilarOptions,
  type SubmitOptions,
} from "./client.js";
export {
  ClientError,
  type FieldError,
  NotLoggedInError,
  ProblemError,
  RefusedError,
  UnreachableError,
} from "./errors.js";
export type * from "./resources.js";
export type { ListenOptions } from "./room.js";
export type { WebSocketConstructor, WebSocketLike } from "./socket.js";
export { type Login, MemoryTokenStore, type TokenStore } from "./token-store.js";
