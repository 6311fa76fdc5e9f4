// Signing in with the identity provider that the service has, if it has one.
//
// The browser goes to the provider and comes back with a single-use code behind the #. Only this tab can exchange it: it
// keeps a secret, the verifier, of which the service got the hash before.

import { Problem, address, send } from "./http.js";

const STORAGE_KEY = "promptwire.sign-in";

const REASONS = {
  "provider-unavailable": "The identity provider cannot be reached at the moment. Try again, or log in with a password.",
  "invalid-response": "The identity provider's answer was not valid, so you are not logged in. Ask the operator.",
  refused: "The identity provider did not sign you in.",
  expired: "The sign-in took too long, or was started in another tab. Try again.",
  "not-permitted": "Your account at the identity provider may not be used here. Ask the operator.",
};

const button = document.getElementById("sign-in");
const offer = document.getElementById("link");
let refused = null; // the sign-in whose name is another account's, as a request's body

/** Shows the button if the service has a provider. `show` gets errors, for the user. */
export async function init(show) {
  button.addEventListener("click", () => start().catch((error) => show(error.message)));
  try {
    const { name } = (await send("GET", "auth/oidc/")).body;
    button.textContent = `Continue with ${name}`;
    offer.lastElementChild.textContent = `Also let me log in with ${name} from now on`;
    button.parentElement.hidden = name === null;
  } catch {
    // The server is unavailable: the button stays hidden.
  }
}

/**
 * Finishes the sign-in with which the browser has come back, if any.
 * Resolves to whether the user is logged in. Throws an error whose message is for the user.
 */
export async function finish(session) {
  const result = new URLSearchParams(location.hash.slice(1));
  const code = result.get("sign-in");
  const reason = result.get("sign-in-error");
  if (!code && !reason) return false;
  const started = JSON.parse(sessionStorage.getItem(STORAGE_KEY) ?? "null");
  sessionStorage.removeItem(STORAGE_KEY);
  history.replaceState(null, "", started?.path ?? location.pathname);
  if (reason || !started) throw new Error(REASONS[reason ?? "expired"] ?? REASONS.refused);
  const body = { code, code_verifier: started.verifier };
  try {
    const { body: login } = await send("POST", "auth/oidc/token/", { body });
    await session.start(login.username, login);
    return true;
  } catch (error) {
    // The name is another account's. If that is the user's, its password can link the two.
    if (error instanceof Problem && error.status === 409) {
      refused = body;
      offer.hidden = false;
    }
    throw error;
  }
}

/** After a login with a password: links the identity that could not sign in, if the user wants that. */
export async function link(session, password) {
  const body = refused && offer.firstElementChild.checked ? { ...refused, password } : null;
  refused = null;
  offer.hidden = true;
  if (body) await session.send("POST", "account/identities/", { body });
}

async function start() {
  if (!window.crypto.subtle) throw new Error("Signing in needs HTTPS. Ask the operator of this service.");
  const verifier = toBase64Url(crypto.getRandomValues(new Uint8Array(32)));
  const hash = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(verifier));
  const path = location.pathname + location.search + location.hash;
  sessionStorage.setItem(STORAGE_KEY, JSON.stringify({ verifier, path }));
  location.assign(address(`auth/oidc/login/?code_challenge=${toBase64Url(new Uint8Array(hash))}`));
}

function toBase64Url(bytes) {
  return btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}
