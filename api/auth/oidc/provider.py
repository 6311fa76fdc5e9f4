"""The identity provider: its published configuration, and the exchange of an authorization code for claims."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode, urlsplit

import httpx

from api.auth.oidc import id_token
from api.auth.oidc.cached_fetch import RETRY_SECONDS, CachedFetch
from api.auth.oidc.errors import InvalidIdTokenError, ProviderUnavailableError, RefusedByProviderError
from api.auth.oidc.http import MAX_SECONDS, fetch_json
from shared.settings import Settings

CONFIGURATION_PATH = "/.well-known/openid-configuration"
CALLBACK_PATH = "/auth/oidc/callback/"
#: How many requests to the provider a process has at the same time, beside those for its configuration and keys.
MAX_EXCHANGES = 50


class Configuration(NamedTuple):
    """The used parts of the provider's configuration (OpenID Connect Discovery 1.0)."""

    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str | None
    posts_secret: bool  #: whether it wants the client secret in the body of the token request
    names_issuer: bool  #: whether authorization responses name the issuer (RFC 9207)


class Exchange(NamedTuple):
    """A code that the provider has sent, and what the sign-in was started with."""

    code: str
    verifier: str
    nonce: str


class IdentityProvider:
    """The provider that the settings name. Nothing is fetched before it is needed."""

    def __init__(
        self, settings: Settings, *, max_seconds: float = MAX_SECONDS, retry_seconds: float = RETRY_SECONDS
    ) -> None:
        self.issuer = settings.oidc_issuer
        self._client_id = settings.oidc_client_id
        self._secret = settings.oidc_client_secret.get_secret_value()
        self._scopes = settings.oidc_scopes
        self._redirect_uri = settings.public_url + CALLBACK_PATH
        self._max_seconds = max_seconds
        self._configuration = CachedFetch(self._fetch_configuration, retry_seconds=retry_seconds)
        self._keys = CachedFetch(self._fetch_keys, retry_seconds=retry_seconds)
        self._free = threading.BoundedSemaphore(MAX_EXCHANGES)

    @property
    def configuration(self) -> Configuration:
        """The provider's configuration.

        Raises:
            ProviderUnavailableError: it cannot be read.
        """
        return self._configuration.get()

    def check(self) -> int:
        """Read the configuration and the keys. Returns how many keys for signatures there are.

        Raises:
            ProviderUnavailableError: something cannot be read.
        """
        usable = [key for key in self._keys.get() if id_token.is_usable(key)]
        if not usable:
            raise ProviderUnavailableError("The identity provider publishes no key for signatures of ID tokens.")
        return len(usable)

    def authorization_url(self, *, state: str, nonce: str, challenge: str, reauthenticate: bool) -> str:
        """Where the user's browser signs in.

        Raises:
            ProviderUnavailableError: as `configuration`.
        """
        query = {
            "response_type": "code",
            "client_id": self._client_id,
            "redirect_uri": self._redirect_uri,
            "scope": self._scopes,
            "state": state,
            "nonce": nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
            **({"prompt": "login"} if reauthenticate else {}),
        }
        endpoint = self.configuration.authorization_endpoint
        return f"{endpoint}{'&' if urlsplit(endpoint).query else '?'}{urlencode(query)}"

    def redeem(self, exchange: Exchange, *, needed: tuple[str, ...]) -> Mapping[str, Any]:
        """Exchange a code. Returns the claims of the ID token, and, if it lacks one that is needed, those of userinfo.

        Raises:
            ProviderUnavailableError: the provider does not answer as it should.
            RefusedByProviderError: it does not accept the code.
            InvalidIdTokenError: its ID token is not valid.
        """
        with self._exchanging():
            tokens = self._fetch_tokens(exchange)
            claims = self._validate(tokens, exchange.nonce)
            endpoint = self.configuration.userinfo_endpoint
            if endpoint is None or all(name in claims for name in needed):
                return claims
            return self._fetch_user_info(endpoint, tokens, claims)

    @contextmanager
    def _exchanging(self) -> Iterator[None]:
        if not self._free.acquire(blocking=False):
            raise ProviderUnavailableError(f"{MAX_EXCHANGES} requests wait for the identity provider already.")
        try:
            yield
        finally:
            self._free.release()

    def _fetch_tokens(self, exchange: Exchange) -> dict[str, Any]:
        configuration = self.configuration
        body = {
            "grant_type": "authorization_code",
            "code": exchange.code,
            "redirect_uri": self._redirect_uri,
            "code_verifier": exchange.verifier,
        }
        options: dict[str, Any] = {"max_seconds": self._max_seconds}
        if self._secret and not configuration.posts_secret:
            # Both are encoded as in a form first (RFC 6749, section 2.3.1).
            options["auth"] = httpx.BasicAuth(quote(self._client_id, safe=""), quote(self._secret, safe=""))
        else:
            body["client_id"] = self._client_id
            if self._secret:
                body["client_secret"] = self._secret
        status, tokens = fetch_json("POST", configuration.token_endpoint, data=body, **options)
        if status != httpx.codes.OK:
            # The code is the provider's; its description is not logged, because it may quote what was sent.
            error = str(tokens.get("error", ""))[:40]
            if status < httpx.codes.INTERNAL_SERVER_ERROR and error == "invalid_grant":
                raise RefusedByProviderError("The identity provider does not accept the code: it expired or was used.")
            raise ProviderUnavailableError(f"The identity provider refuses the exchange of a code: {status} {error}.")
        return tokens

    def _validate(self, tokens: Mapping[str, Any], nonce: str) -> dict[str, Any]:
        token, access_token = tokens.get("id_token"), tokens.get("access_token")
        if not isinstance(token, str) or not isinstance(access_token, str):
            raise InvalidIdTokenError("The identity provider has sent no ID token or no access token.")
        expected: dict[str, Any] = {
            "issuer": self.issuer,
            "client_id": self._client_id,
            "nonce": nonce,
            "access_token": access_token,
        }
        try:
            return id_token.validate(token, self._keys.get(), **expected)
        except id_token.UnknownKeyError:
            return id_token.validate(token, self._keys.get(refresh=True), **expected)

    def _fetch_user_info(self, endpoint: str, tokens: Mapping[str, Any], claims: dict[str, Any]) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {tokens['access_token']}"}
        status, info = fetch_json("GET", endpoint, max_seconds=self._max_seconds, headers=headers)
        if status != httpx.codes.OK:
            raise ProviderUnavailableError(f"The identity provider refuses to say who the user is: {status}.")
        if info.get("sub") != claims["sub"]:  # OpenID Connect Core, section 5.3.2
            raise InvalidIdTokenError("The identity provider's userinfo is about another user.")
        return info | claims

    def _fetch_configuration(self) -> Configuration:
        url = self.issuer.rstrip("/") + CONFIGURATION_PATH
        status, found = fetch_json("GET", url, max_seconds=self._max_seconds)
        if status != httpx.codes.OK:
            raise ProviderUnavailableError(f"{url} answers {status}.")
        if found.get("issuer") != self.issuer:
            raise ProviderUnavailableError(
                f"{url} names the issuer {str(found.get('issuer'))[:200]!r}: OIDC_ISSUER must be exactly that."
            )
        methods = found.get("token_endpoint_auth_methods_supported")
        return Configuration(
            authorization_endpoint=self._endpoint(found, "authorization_endpoint"),
            token_endpoint=self._endpoint(found, "token_endpoint"),
            jwks_uri=self._endpoint(found, "jwks_uri"),
            userinfo_endpoint=self._endpoint(found, "userinfo_endpoint") if "userinfo_endpoint" in found else None,
            posts_secret=isinstance(methods, list) and "client_secret_basic" not in methods,
            names_issuer=found.get("authorization_response_iss_parameter_supported") is True,
        )

    def _endpoint(self, found: Mapping[str, Any], name: str) -> str:
        scheme = urlsplit(self.issuer).scheme
        try:
            url: str = found[name]
            if httpx.URL(url).host and urlsplit(url).scheme in ("https", scheme):  # each refuses what the other takes
                return url
        except (httpx.InvalidURL, KeyError, TypeError, ValueError):
            pass
        raise ProviderUnavailableError(f"The identity provider publishes no {name} that begins with {scheme}://.")

    def _fetch_keys(self) -> list[id_token.Jwk]:
        url = self.configuration.jwks_uri
        status, found = fetch_json("GET", url, max_seconds=self._max_seconds)
        keys = found.get("keys")
        if status != httpx.codes.OK or not isinstance(keys, list):
            raise ProviderUnavailableError(f"{url} answers {status} without keys.")
        return [key for key in keys if isinstance(key, dict)]
