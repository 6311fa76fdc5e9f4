// Times, distances and texts for display.

const relative = new Intl.RelativeTimeFormat("en", { numeric: "auto" });
const UNITS = [
  ["day", 86_400],
  ["hour", 3_600],
  ["minute", 60],
];

/** A time in RFC 3339, relative to now: "5 minutes ago". */
export function timeAgo(time) {
  const seconds = (Date.now() - Date.parse(time)) / 1000;
  const [unit, length] = UNITS.find(([, length]) => seconds >= length) ?? [];
  return unit ? relative.format(-Math.floor(seconds / length), unit) : "just now";
}

/** A squared distance of unit vectors (0 the same, 2 unrelated) as a value from 0 to 1 and a label. */
export function similarity(score) {
  const value = Math.max(0, 1 - score / 2);
  const label =
    value > 0.97 ? "same" : value > 0.6 ? "very similar" : value > 0.35 ? "similar" : value > 0.2 ? "related" : "distant";
  return { value, label };
}

/** The beginning of a text, short enough for a dialog or a screen reader. */
export function excerpt(text, length = 200) {
  return text.length > length ? `${text.slice(0, length)} …` : text;
}

// What is said of an answer that is not complete, by its finish_reason.
const CUT_OFF = {
  length: "Cut off at the length limit.",
  content_filter: "Stopped by the provider's content filter.",
};

/** A line for each function that the model wants to be called. */
export function toolCalls({ tool_calls: calls }) {
  return (calls ?? []).map(({ function: called }) => `${called.name}(${called.arguments})`).join("\n");
}

/** The text of an answer, and the functions that the model wants to be called. */
export function answerText(prompt) {
  return [prompt.response_text, toolCalls(prompt)].filter(Boolean).join("\n");
}

const ordinals = new Intl.PluralRules("en", { type: "ordinal" });
const ENDINGS = { one: "st", two: "nd", few: "rd", other: "th" };

/** Where a prompt stands in the queue: "3rd in line". */
export function place(position) {
  return position === 1 ? "next in line" : `${position}${ENDINGS[ordinals.select(position)]} in line`;
}

/** Why a prompt waits, and until when: "Waiting for the provider: connection refused, next try in 8 s". */
export function nextTry({ detail, at }) {
  if (!at) return detail; // an operator has paused the model
  const reason = detail.replace(/\.$/, "").replace(/^[A-Z](?=[a-z])/, (letter) => letter.toLowerCase());
  const left = Date.parse(at) - Date.now();
  return `Waiting for the provider: ${reason}, ${left > 0 ? `next try in ${seconds(left)}` : "trying again"}`;
}

/** Says that the answer of a prompt is not complete; empty if it is. */
export function cutOffNote({ status, finish_reason: reason, keptText }) {
  if (keptText) return "This is as far as the answer got.";
  return (status === "completed" && CUT_OFF[reason]) || "";
}

export function seconds(milliseconds) {
  return `${Math.max(1, Math.ceil(milliseconds / 1000))} s`;
}
