// Figures in words.

const relative = new Intl.RelativeTimeFormat("en", { numeric: "auto" });
const UNITS = [
  ["day", 86_400],
  ["hour", 3_600],
  ["minute", 60],
];

/** How long ago a moment in RFC 3339 was. */
export function ago(moment) {
  const seconds = (Date.now() - Date.parse(moment)) / 1000;
  const [unit, length] = UNITS.find(([, length]) => seconds >= length) ?? [];
  return unit ? relative.format(-Math.floor(seconds / length), unit) : "just now";
}

/** A squared distance of unit vectors (0 the same, 2 unrelated) as a share of 1, and in words. */
export function nearness(score) {
  const share = Math.max(0, 1 - score / 2);
  const words =
    share > 0.97 ? "the same" : share > 0.6 ? "very near" : share > 0.35 ? "near" : share > 0.2 ? "related" : "far";
  return { share, words };
}

/** The beginning of a text, for those who listen. */
export function beginning(text, length = 200) {
  return text.length > length ? `${text.slice(0, length)} …` : text;
}

export function seconds(milliseconds) {
  return `${Math.max(1, Math.ceil(milliseconds / 1000))} s`;
}
