// Shows the state of the connection.

import { seconds } from "./format.js";

const element = document.getElementById("connection");
const label = document.getElementById("connection-state");
const retry = document.getElementById("connect-now");
let retryAt = 0;
let timer = null;

export function init(onRetry) {
  retry.addEventListener("click", onRetry);
}

/** Shows a state of Connection; `delay` is the time until its next attempt, in milliseconds. */
export function show(state, delay = 0) {
  clearInterval(timer);
  element.hidden = false;
  element.dataset.state = state;
  retry.hidden = state !== "waiting";
  if (state === "waiting") {
    retryAt = Date.now() + delay;
    timer = setInterval(showCountdown, 500);
    showCountdown();
  } else {
    label.textContent = state === "live" ? "Live" : "Connecting …";
  }
}

export function hide() {
  clearInterval(timer);
  element.hidden = true;
}

function showCountdown() {
  label.textContent = `Not connected. Retrying in ${seconds(retryAt - Date.now())}`;
}
