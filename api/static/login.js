// The form for logging in and registering.

import { Problem, Unreachable, isReachable } from "./http.js";
import * as oidc from "./oidc.js";

const form = document.getElementById("login");
const message = document.getElementById("login-error");
const buttons = form.querySelectorAll("button");
const { username, password } = form.elements;
const PROBE_INTERVAL = 2_000; // milliseconds
const isRegistrationOpen = document.querySelector("meta[name=registration]").content === "open";

/** `onLogin` is called after a login, with a text if something else failed. */
export function init(session, onLogin) {
  const logIn = async (isNew) => {
    if (!form.reportValidity()) return;
    message.textContent = "";
    setBusy(true);
    try {
      if (isNew) await session.register(username.value, password.value);
      await session.logIn(username.value, password.value);
      const problem = await oidc.link(session, password.value).catch((error) => error.message);
      password.value = "";
      onLogin(problem);
    } catch (error) {
      message.textContent = explain(error, isNew);
      if (error instanceof Unreachable) clearOnceReachable();
      password.focus();
    } finally {
      setBusy(false);
    }
  };
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    logIn(false);
  });
  document.getElementById("register").addEventListener("click", () => logIn(true));
  document.getElementById("register").hidden = !isRegistrationOpen;
  document.getElementById("register-hint").hidden = !isRegistrationOpen;
  document.getElementById("closed-hint").hidden = isRegistrationOpen;
}

/** Shows a text above the buttons, and asks for the password if the username is known. */
export function show(text = "", name = "") {
  message.textContent = text;
  username.value = name || username.value;
  (name ? password : username).focus();
}

function explain(error, isNew) {
  if (!(error instanceof Problem)) return error.message;
  if (error.status === 401) return "Wrong username or password.";
  if (error.status === 409 && isNew) return "That username is taken. Choose another one or log in.";
  if (error.status === 429) return `Too many attempts. Try again in ${error.retryAfter ?? 60} s.`;
  return error.message;
}

/** Removes the message that the server is unavailable when that is no longer true. */
async function clearOnceReachable() {
  const shown = message.textContent;
  do await new Promise((resolve) => setTimeout(resolve, PROBE_INTERVAL));
  while (message.textContent === shown && !(await isReachable()));
  if (message.textContent === shown) message.textContent = "";
}

function setBusy(isBusy) {
  for (const button of buttons) button.disabled = isBusy;
}
