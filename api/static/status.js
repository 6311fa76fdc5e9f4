// Shows the state of the connection.

import { seconds } from "./format.js";

const POLLING = "Polling for answers.";

const element = document.getElementById("connection");
const label = document.getElementById("connection-state");
const retry = document.getElementById("connect-now");
let retryAt = 0;
let isPolling = false;
let timer = null;

export function init(onRetry) {
  retry.addEventListener("click", onRetry);
}

/** Shows a state of Connection; `delay` is the time until its next attempt, in milliseconds. */
export function show(state, delay = 0) {
  clearInterval(timer);
  element.hidden = false;
  element.dataset.state = state;
  if (state === "live") setPolling(false);
  retry.hidden = state !== "waiting";
  if (state === "waiting") {
    retryAt = Date.now() + delay;
    timer = setInterval(showCountdown, 500);
    showCountdown();
  } else {
    label.textContent = state === "live" ? "Live" : isPolling ? `${POLLING} Connecting …` : "Connecting …";
  }
}

/** Shows, while it is not live, whether the page polls instead. */
export function setPolling(value) {
  isPolling = value;
  element.dataset.polling = value;
  if (element.dataset.state === "waiting") showCountdown();
}

export function hide() {
  clearInterval(timer);
  setPolling(false);
  element.hidden = true;
}

function showCountdown() {
  label.textContent = `${isPolling ? POLLING : "Not connected."} Retrying in ${seconds(retryAt - Date.now())}`;
}
