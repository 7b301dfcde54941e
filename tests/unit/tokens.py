"""Keys and tokens of an issuer of the tests."""

import base64
import hashlib
import hmac
import json
import time
from functools import cache

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature


def text(raw):
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def number(value, size=0):
    return text(value.to_bytes(size or (value.bit_length() + 7) // 8, "big"))


@cache
def rsa_key(name):
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@cache
def ec_key(name):
    return ec.generate_private_key(ec.SECP256R1())


def jwk(kid):
    n = rsa_key(kid).public_key().public_numbers()
    return {"kty": "RSA", "kid": kid, "alg": "RS256", "n": number(n.n), "e": number(n.e)}


def ec_jwk(kid):
    n = ec_key(kid).public_key().public_numbers()
    return {"kty": "EC", "kid": kid, "alg": "ES256", "crv": "P-256", "x": number(n.x, 32), "y": number(n.y, 32)}


def key_set(*kids):
    return json.dumps({"keys": [jwk(k) for k in kids]})


def token(kid, head=None, **claims):
    """Signed with RS256; ``head`` overrides the header, whatever it then says. A claim that is None is left out."""
    now = int(time.time())
    said = {"iss": "tests.example", "sub": "joe", "exp": now + 3600} | claims
    signed = _signed({"alg": "RS256", "kid": kid} | (head or {}), {k: v for k, v in said.items() if v is not None})
    return f"{signed}.{text(rsa_key(kid).sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256()))}"


def ec_token(kid, **claims):
    signed = _signed({"alg": "ES256", "kid": kid}, {"iss": "tests.example", "exp": int(time.time()) + 3600} | claims)
    r, s = decode_dss_signature(ec_key(kid).sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
    return f"{signed}.{text(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def unsigned(**claims):
    """As nobody should take it: without a signature."""
    return _signed({"alg": "none"}, {"iss": "tests.example", "sub": "joe"} | claims) + "."


def swapped(kid, **claims):
    """Signed with HS256, the public key as the secret, as it stands in PEM."""
    pem = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    secret = rsa_key(kid).public_key().public_bytes(*pem)
    signed = _signed({"alg": "HS256", "kid": kid}, {"iss": "tests.example", "sub": "joe"} | claims)
    return f"{signed}.{text(hmac.new(secret, signed.encode(), hashlib.sha256).digest())}"


def _signed(head, claims):
    return ".".join(text(json.dumps(part).encode()) for part in (head, claims))
