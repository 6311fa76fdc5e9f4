// A certified OpenID provider with pages for logging in and consenting, which take any name and password.
// ISSUER is its address. The account of a name has the claims below.

import { generateKeyPairSync } from "node:crypto";

import { Provider } from "oidc-provider";

const issuer = process.env.ISSUER;

function key(type, options, alg) {
  const { privateKey } = generateKeyPairSync(type, options);
  return { ...privateKey.export({ format: "jwk" }), alg, use: "sig", kid: alg };
}

function claims(sub) {
  const [name, domain] = sub.split("@");
  return {
    sub,
    preferred_username: name,
    email: `${name}@${domain ?? "example.com"}`,
    email_verified: !name.startsWith("unverified"),
    groups: name.startsWith("boss") ? ["staff", "admins"] : ["staff"],
  };
}

// Native clients may have any port of this machine in their redirect URI (RFC 8252).
const shared = {
  application_type: "native",
  redirect_uris: ["http://127.0.0.1/auth/oidc/callback/"],
  grant_types: ["authorization_code"],
};
const provider = new Provider(issuer, {
  clients: [
    { ...shared, client_id: "public", token_endpoint_auth_method: "none" },
    { ...shared, client_id: "with secret", client_secret: "a secret: of %10+", token_endpoint_auth_method: "client_secret_basic" },
    { ...shared, client_id: "ec", token_endpoint_auth_method: "none", id_token_signed_response_alg: "ES256" },
  ],
  claims: { profile: ["preferred_username"], email: ["email", "email_verified"], groups: ["groups"] },
  scopes: ["openid", "profile", "email", "groups"],
  findAccount: (_, sub) => ({ accountId: sub, claims: () => claims(sub) }),
  jwks: { keys: [key("rsa", { modulusLength: 2048 }, "RS256"), key("ec", { namedCurve: "P-256" }, "ES256")] },
  enabledJWA: { idTokenSigningAlgValues: ["RS256", "ES256"] },
  cookies: { keys: ["for tests only"] },
});
const { port } = new URL(issuer);
provider.listen(Number(port), "127.0.0.1");
