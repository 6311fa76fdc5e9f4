"""ID tokens: what is accepted, and each way to forge or misuse one."""

import base64
import hashlib
import json
import time
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from api.auth.oidc import id_token
from api.auth.oidc.errors import InvalidIdTokenError
from api.auth.oidc.id_token import UnknownKeyError
from tests.support.id_tokens import CLIENT, ISSUER, KEYS, NONCE, RSA_JWK, claims, private_key, public_jwk, sign

ACCESS_TOKEN = "an access token"


def validate(token: str, keys: list[dict[str, Any]] = KEYS, access_token: str | None = None) -> dict[str, Any]:
    return id_token.validate(token, keys, issuer=ISSUER, client_id=CLIENT, nonce=NONCE, access_token=access_token)


def segment(value: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def half_hash(text: str, algorithm: str = "sha256") -> str:
    digest = hashlib.new(algorithm, text.encode()).digest()
    return base64.urlsafe_b64encode(digest[: len(digest) // 2]).rstrip(b"=").decode()


class TestAccepted:
    @pytest.mark.parametrize(
        ("kind", "algorithm"),
        [("RSA", "RS256"), ("RSA", "RS512"), ("RSA", "PS256"), ("EC", "ES256"), ("Ed25519", "EdDSA")],
    )
    def test_a_token_signed_with_a_key_of_the_provider_is_valid(self, kind: str, algorithm: str) -> None:
        assert validate(sign(claims(), kind, algorithm))["sub"] == "248"

    @pytest.mark.parametrize(
        "changes", [{"aud": [CLIENT]}, {"aud": [CLIENT, "another"], "azp": CLIENT}, {"azp": CLIENT}], ids=str
    )
    def test_a_token_may_name_several_clients_if_it_is_for_this_one(self, changes: dict[str, Any]) -> None:
        assert validate(sign(claims(**changes)))["sub"] == "248"

    @pytest.mark.parametrize(("name", "seconds"), [("exp", -30), ("iat", 30), ("nbf", 30), ("iat", -600)])
    def test_the_clocks_may_differ_by_a_minute(self, name: str, seconds: float) -> None:
        assert validate(sign(claims(**{name: time.time() + seconds})))["sub"] == "248"

    def test_without_a_key_id_the_only_key_of_the_kind_is_used(self) -> None:
        assert validate(jwt.encode(claims(), private_key("RSA"), "RS256"))["sub"] == "248"

    @pytest.mark.parametrize(("kind", "algorithm", "hashed"), [("RSA", "RS256", "sha256"), ("RSA", "PS512", "sha512")])
    def test_the_hash_of_its_access_token_is_valid(self, kind: str, algorithm: str, hashed: str) -> None:
        token = sign(claims(at_hash=half_hash(ACCESS_TOKEN, hashed)), kind, algorithm)
        assert validate(token, access_token=ACCESS_TOKEN)


class TestClaims:
    @pytest.mark.parametrize(
        ("changes", "says"),
        [
            ({"iss": "https://evil.example.com"}, "issuer"),
            ({"iss": ISSUER + "/"}, "issuer"),
            ({"iss": None}, "iss"),
            ({"aud": "another"}, "audience|Audience"),
            ({"aud": ["another"]}, "audience|Audience"),
            ({"aud": None}, "aud"),
            ({"aud": [CLIENT, "another"]}, "azp"),
            ({"azp": "another"}, "azp"),
            ({"aud": [CLIENT, "another"], "azp": "another"}, "azp"),
            ({"exp": 1}, "expired"),
            ({"exp": None}, "exp"),
            ({"exp": "soon"}, "exp|Expiration"),
            ({"iat": 4_000_000_000}, "not yet valid"),
            ({"iat": 1}, "iat"),
            ({"iat": None}, "iat"),
            ({"nbf": 4_000_000_000}, "not yet valid"),
            ({"nonce": "of another sign-in"}, "nonce"),
            ({"nonce": None}, "nonce"),
            ({"nonce": 1}, "nonce"),
            ({"sub": None}, "sub"),
            ({"sub": ""}, "sub"),
            ({"sub": 248}, "[Ss]ub"),
            ({"sub": "x" * 256}, "sub"),
            ({"sub": "a\0b"}, "sub"),
            ({"sub": "\ud800"}, "not valid"),
            ({"nonce": "\ud800"}, "not valid"),
            ({"at_hash": "\ud800"}, "not valid"),
            ({"iat": str(int(time.time()))}, "not valid"),
            ({"exp": float("inf")}, "exp|Expiration"),
            ({"iat": float("inf")}, "iat|Issued At"),
            ({"at_hash": half_hash("another access token")}, "at_hash"),
        ],
    )
    def test_a_token_with_wrong_claims_is_refused(self, changes: dict[str, Any], says: str) -> None:
        payload = {name: value for name, value in (claims() | changes).items() if value is not None}
        # PyJWT does not encode all of these.
        token = jwt.api_jws.encode(json.dumps(payload).encode(), private_key("RSA"), "RS256", headers={"kid": "1"})
        with pytest.raises(InvalidIdTokenError, match=says):
            validate(token, access_token=ACCESS_TOKEN)


class TestSignature:
    def test_an_unsigned_token_is_refused(self) -> None:
        for algorithm in ("none", "None", "NONE", ""):
            token = f"{segment({'alg': algorithm, 'kid': '1'})}.{segment(claims())}."
            with pytest.raises(InvalidIdTokenError, match="not accepted"):
                validate(token)

    @pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
    def test_a_public_key_is_no_shared_secret(self, algorithm: str) -> None:
        """Otherwise anyone could sign: the key is published."""
        public = private_key("RSA").public_key()
        forms = serialization.Encoding, serialization.PublicFormat
        pem = public.public_bytes(forms[0].PEM, forms[1].SubjectPublicKeyInfo)
        for secret in (pem, json.dumps(RSA_JWK).encode(), RSA_JWK["n"].encode()):
            content = f"{segment({'alg': algorithm, 'kid': '1'})}.{segment(claims())}"
            signature = jwt.get_algorithm_by_name(algorithm).sign(content.encode(), secret.ljust(64, b"\0"))
            with pytest.raises(InvalidIdTokenError, match="not accepted"):
                validate(f"{content}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}")

    def test_a_symmetric_key_that_the_provider_publishes_is_not_used(self) -> None:
        key = {"kty": "oct", "k": base64.urlsafe_b64encode(b"s" * 32).decode(), "kid": "4"}
        with pytest.raises(InvalidIdTokenError, match="not accepted"):
            validate(jwt.encode(claims(), b"s" * 32, "HS256", headers={"kid": "4"}), [*KEYS, key])

    def test_a_token_of_another_key_with_the_same_id_is_refused(self) -> None:
        token = jwt.encode(claims(), rsa.generate_private_key(65_537, 2048), "RS256", headers={"kid": "1"})
        with pytest.raises(InvalidIdTokenError, match=r"[Ss]ignature"):
            validate(token)

    def test_a_key_in_the_tokens_own_header_is_not_used(self) -> None:
        own = rsa.generate_private_key(65_537, 2048)
        headers = {"jwk": public_jwk(own), "jku": "https://evil.example.com/keys", "kid": "1"}
        with pytest.raises(InvalidIdTokenError, match=r"[Ss]ignature"):
            validate(jwt.encode(claims(), own, "RS256", headers=headers))

    def test_changed_claims_are_refused(self) -> None:
        head, _, signature = sign(claims()).split(".")
        with pytest.raises(InvalidIdTokenError, match=r"[Ss]ignature"):
            validate(f"{head}.{segment(claims(sub='1'))}.{signature}")

    def test_an_unknown_key_id_is_reported_as_such(self) -> None:
        with pytest.raises(UnknownKeyError):
            validate(sign(claims(), kid="9"))

    def test_without_a_key_id_several_keys_are_ambiguous(self) -> None:
        other = public_jwk(rsa.generate_private_key(65_537, 2048), kid="8")
        with pytest.raises(UnknownKeyError):
            validate(jwt.encode(claims(), private_key("RSA"), "RS256"), [*KEYS, other])

    @pytest.mark.parametrize("members", [{"use": "enc"}, {"alg": "RS512"}, {"alg": "RSA-OAEP"}, {"kty": "EC"}], ids=str)
    def test_a_key_for_something_else_is_not_used(self, members: dict[str, str]) -> None:
        with pytest.raises(UnknownKeyError):
            validate(sign(claims()), [RSA_JWK | members])

    @pytest.mark.filterwarnings("ignore:The RSA key is 1024 bits long")
    def test_a_short_key_is_refused(self) -> None:
        weak = private_key("RSA", 1024)
        with pytest.raises(InvalidIdTokenError):
            validate(jwt.encode(claims(), weak, "RS256", headers={"kid": "5"}), [public_jwk(weak, kid="5")])

    def test_a_header_with_critical_extensions_is_refused(self) -> None:
        with pytest.raises(InvalidIdTokenError, match=r"critical|crit"):
            validate(sign(claims(), crit=["exp"]))

    @pytest.mark.parametrize("token", ["", ".", "..", "a.b.c", "e30.e30.e30", "\ud800", "x" * 100_000], ids=repr)
    def test_a_text_that_is_no_token_is_refused(self, token: str) -> None:
        with pytest.raises(InvalidIdTokenError):
            validate(token)

    @pytest.mark.parametrize(
        "key", [{}, {"kty": "RSA", "kid": "1"}, RSA_JWK | {"n": "AQAB"}, RSA_JWK | {"n": 7}], ids=str
    )
    def test_a_malformed_key_is_an_error_of_the_token(self, key: dict[str, Any]) -> None:
        with pytest.raises(InvalidIdTokenError):
            validate(sign(claims()), [key])
