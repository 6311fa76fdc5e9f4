"""Validates ID tokens: OpenID Connect Core 1.0, section 3.1.3.7, for the authorization code flow.

PyJWT verifies the signature and the registered claims. This module decides which algorithms and keys it may use: the
token's header may only choose among the provider's public keys for signatures.
"""

import base64
import hashlib
import hmac
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jwt
from jwt.exceptions import InvalidSignatureError, PyJWTError

from api.auth.oidc.errors import InvalidIdTokenError

#: Signatures with a key pair only. With HS256 or `none`, anyone who knows the public key, or nothing, could sign.
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
#: How much the clocks of the provider and this host may differ.
CLOCK_SKEW_SECONDS = 60
#: A token was issued for this sign-in, just now.
MAX_AGE_SECONDS = 600
MAX_SUBJECT_LENGTH = 255  # OpenID Connect Core, section 2

_REQUIRED = ["iss", "sub", "aud", "exp", "iat", "nonce"]

Jwk = Mapping[str, Any]


class UnknownKeyError(InvalidIdTokenError):
    """No key of the provider fits the ID token. It may have new ones."""


def validate(
    token: str, keys: Sequence[Jwk], *, issuer: str, client_id: str, nonce: str, access_token: str | None = None
) -> dict[str, Any]:
    """Return the claims of an ID token.

    Args:
        keys: The provider's keys, as JWKs.
        nonce: What the authorization request has sent.
        access_token: What came with the ID token, which may have its hash.

    Raises:
        UnknownKeyError: no key fits.
        InvalidIdTokenError: the token is not valid.
    """
    try:
        header = jwt.get_unverified_header(token)
        key = _find_key(header, keys)
        claims: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=[key.algorithm_name],
            audience=client_id,
            issuer=issuer,
            leeway=CLOCK_SKEW_SECONDS,
            options={"require": _REQUIRED, "enforce_minimum_key_length": True},
        )
        problem = _problem(claims, client_id, nonce) or _access_token_problem(claims, access_token, key.algorithm_name)
    except InvalidSignatureError as error:  # a key may be replaced by one of the same id, or without any
        raise UnknownKeyError("The signature of the ID token is not by a key of the identity provider.") from error
    except (PyJWTError, ValueError, TypeError) as error:  # of claims with other types, or texts that are not Unicode
        raise InvalidIdTokenError(f"The ID token is not valid: {error}.") from error
    if problem is not None:
        raise InvalidIdTokenError(f"The ID token is not valid: {problem}.")
    return claims


def is_usable(key: Jwk) -> bool:
    """Whether ID tokens may be signed with this key."""
    return any(_fits(key, algorithm) for algorithm in ALGORITHMS)


def _find_key(header: Mapping[str, Any], keys: Sequence[Jwk]) -> jwt.PyJWK:
    algorithm, key_id = header.get("alg"), header.get("kid")
    if algorithm not in ALGORITHMS:
        raise InvalidIdTokenError(f"The ID token is signed with {str(algorithm)[:20]!r}, which is not accepted.")
    fitting = [key for key in keys if _fits(key, algorithm) and key_id in (None, key.get("kid"))]
    if len(fitting) != 1:  # several: without a kid it is not clear which one
        raise UnknownKeyError("No key of the identity provider, or not only one, fits the ID token.")
    return jwt.PyJWK.from_dict(dict(fitting[0]), algorithm)


def _fits(key: Jwk, algorithm: str) -> bool:
    kind = {"R": "RSA", "P": "RSA", "E": "EC"}[algorithm[0]] if algorithm != "EdDSA" else "OKP"
    return key.get("kty") == kind and key.get("use", "sig") == "sig" and key.get("alg", algorithm) == algorithm


def _problem(claims: Mapping[str, Any], client_id: str, nonce: str) -> str | None:
    audience, subject = claims["aud"], claims["sub"]
    if isinstance(audience, list) and len(audience) > 1 and "azp" not in claims:
        return "it is for several clients, and does not say for which (azp)"
    if claims.get("azp", client_id) != client_id:
        return "it was issued for another client (azp)"
    if not isinstance(claims["nonce"], str) or not hmac.compare_digest(claims["nonce"].encode(), nonce.encode()):
        return "it is of another sign-in (nonce)"
    if claims["iat"] < time.time() - MAX_AGE_SECONDS - CLOCK_SKEW_SECONDS:
        return "it is too old (iat)"
    if not 0 < len(subject.encode()) <= MAX_SUBJECT_LENGTH or "\0" in subject:
        return "its subject is empty or too long (sub)"
    return None


def _access_token_problem(claims: Mapping[str, Any], access_token: str | None, algorithm: str) -> str | None:
    if "at_hash" not in claims or access_token is None:
        return None
    hashed = hashlib.new({"256": "sha256", "384": "sha384"}.get(algorithm[2:], "sha512"), access_token.encode())
    half = hashed.digest()[: hashed.digest_size // 2]
    expected = base64.urlsafe_b64encode(half).rstrip(b"=")
    if not hmac.compare_digest(expected, str(claims["at_hash"]).encode()):
        return "it came with another access token (at_hash)"
    return None
