"""Keys of an identity provider, and ID tokens that they sign."""

import time
from functools import cache
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

ISSUER, CLIENT, NONCE = "https://login.example.com", "promptwire", "the nonce of this sign-in"


@cache
def private_key(kind: str, size: int = 2048) -> Any:
    match kind:
        case "RSA":
            return rsa.generate_private_key(65_537, size)
        case "EC":
            return ec.generate_private_key(ec.SECP256R1())
    return ed25519.Ed25519PrivateKey.generate()


def public_jwk(key: Any, **members: str) -> dict[str, Any]:
    kinds = {rsa.RSAPrivateKey: "RSA", ec.EllipticCurvePrivateKey: "EC", ed25519.Ed25519PrivateKey: "OKP"}
    kind = next(name for type_, name in kinds.items() if isinstance(key, type_))
    algorithm = {"RSA": "RS256", "EC": "ES256", "OKP": "EdDSA"}[kind]
    jwk = jwt.get_algorithm_by_name(algorithm).to_jwk(key.public_key(), as_dict=True)
    return jwk | members


RSA_JWK = public_jwk(private_key("RSA"), kid="1")
KEYS = [RSA_JWK, public_jwk(private_key("EC"), kid="2"), public_jwk(private_key("Ed25519"), kid="3")]
KEY_IDS = {"RSA": "1", "EC": "2", "Ed25519": "3"}


def claims(**changes: Any) -> dict[str, Any]:
    now = time.time()
    default = {"iss": ISSUER, "sub": "248", "aud": CLIENT, "exp": now + 300, "iat": now, "nonce": NONCE}
    return {name: value for name, value in (default | changes).items() if value is not None}


def sign(payload: dict[str, Any], kind: str = "RSA", algorithm: str = "RS256", **headers: Any) -> str:
    return jwt.encode(payload, private_key(kind), algorithm, headers={"kid": KEY_IDS[kind]} | headers)
