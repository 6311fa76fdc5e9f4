// The form with which one logs in or registers.

import { Problem } from "./http.js";

const form = document.getElementById("login");
const trouble = document.getElementById("login-trouble");
const buttons = form.querySelectorAll("button");
const { username, password } = form.elements;

/** `onEntered` is called when somebody has logged in. */
export function init(session, onEntered) {
  const enter = async (isNew) => {
    if (!form.reportValidity()) return;
    trouble.textContent = "";
    setBusy(true);
    try {
      if (isNew) await session.register(username.value, password.value);
      await session.logIn(username.value, password.value);
      password.value = "";
      onEntered();
    } catch (error) {
      trouble.textContent = explain(error, isNew);
      password.focus();
    } finally {
      setBusy(false);
    }
  };
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    enter(false);
  });
  document.getElementById("register").addEventListener("click", () => enter(true));
}

/** Asks for the password, and says why. */
export function ask(message = "", name = "") {
  trouble.textContent = message;
  username.value = name || username.value;
  (name ? password : username).focus();
}

function explain(error, isNew) {
  if (!(error instanceof Problem)) return error.message;
  if (error.status === 401) return "That username and password do not fit.";
  if (error.status === 409 && isNew) return "That username is taken. Choose another one, or log in.";
  if (error.status === 429) return `Too many attempts. Try again in ${error.retryAfter ?? 60} s.`;
  return error.message;
}

function setBusy(isBusy) {
  for (const button of buttons) button.disabled = isBusy;
}
