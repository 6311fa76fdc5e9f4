// Messages beside the page's content: to screen readers, in notices, and in the title of the tab.

import { answerText, cutOffNote, excerpt } from "./format.js";

// In milliseconds.
const NOTICE_TIME = 8_000;
const COLLECTING_TIME = 250;

const announcer = document.getElementById("announcer");
const notice = document.getElementById("notice");
const name = document.title;
let noticeTimer = null;
let ended = []; // prompts that have just finished
let unseen = 0; // prompts that have finished while the tab was hidden

/** Announces a text to screen readers, without interrupting them. */
export function say(text) {
  announcer.textContent = text;
}

export function notify(text) {
  notice.textContent = text;
  clearTimeout(noticeTimer);
  noticeTimer = setTimeout(() => (notice.textContent = ""), NOTICE_TIME);
}

/** Announces that a prompt has finished. Of a batch, many finish at once: then only their number is announced. */
export function sayEnded(prompt) {
  if (document.hidden) unseen += 1;
  if (ended.length === 0) setTimeout(sayAllEnded, COLLECTING_TIME);
  ended.push(prompt);
}

/** Removes all messages and pending announcements: the next user may be another one. */
export function forget() {
  ended = [];
  announcer.textContent = notice.textContent = "";
}

function sayAllEnded() {
  if (ended.length === 0) return;
  say(ended.length > 3 ? `${ended.length} prompts have finished.` : ended.map(endOf).join(" "));
  ended = [];
}

function endOf(prompt) {
  const { id, status, error } = prompt;
  if (status !== "completed") return `Prompt ${id} ${status === "failed" ? "failed" : "was cancelled"}. ${error ?? ""}`;
  return `Prompt ${id} was answered: ${excerpt(answerText(prompt))} ${cutOffNote(prompt)}`.trim();
}

/**
 * Shows in the title how many prompts are unfinished, and a mark if some have finished while the tab was hidden.
 * `page` is what the title begins with otherwise.
 */
export function showTitle(unfinished, page = "") {
  if (!document.hidden) unseen = 0;
  const title = (unseen ? "✓ " : "") + (unfinished ? `(${unfinished}) ` : "") + page + name;
  if (document.title !== title) document.title = title;
}
