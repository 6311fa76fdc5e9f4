// How it stands with the connection, in words.

import { seconds } from "./format.js";

const place = document.getElementById("connection");
const words = document.getElementById("connection-state");
const retry = document.getElementById("connect-now");
let until = 0;
let timer = null;

export function init(onTryNow) {
  retry.addEventListener("click", onTryNow);
}

/** `name` is what Connection says. */
export function show(name, pause = 0) {
  clearInterval(timer);
  place.hidden = false;
  place.dataset.state = name;
  retry.hidden = name !== "waiting";
  if (name === "waiting") {
    until = Date.now() + pause;
    timer = setInterval(count, 500);
    count();
  } else {
    words.textContent = name === "live" ? "Live" : "Connecting …";
  }
}

export function hide() {
  clearInterval(timer);
  place.hidden = true;
}

function count() {
  words.textContent = `Not connected, again in ${seconds(until - Date.now())}`;
}
