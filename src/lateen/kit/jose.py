"""Signed JSON (RFC 7515, flattened) with ES256 and HS256, and the thumbprints of keys (RFC 7638): the parts that ACME
needs.

certbot's ``acme`` is not used: it depends on requests and pyOpenSSL, it blocks, and it resolves names itself, so their
addresses could not be checked.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from lateen.kit.jsons import Json

_SIZE = 32
"""The size of a P-256 coordinate in bytes"""


def encode(raw: bytes) -> str:
    """base64url without padding."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def decode(text: str) -> bytes:
    """Raises ValueError."""
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)


def public(key: ec.EllipticCurvePrivateKey) -> Json:
    """The public half of a P-256 key as a JWK."""
    numbers = key.public_key().public_numbers()
    x, y = (encode(n.to_bytes(_SIZE, "big")) for n in (numbers.x, numbers.y))
    return {"crv": "P-256", "kty": "EC", "x": x, "y": y}


def thumbprint(key: ec.EllipticCurvePrivateKey) -> str:
    return encode(hashlib.sha256(_compact(public(key))).digest())


def signed(key: ec.EllipticCurvePrivateKey, protected: Json, payload: Json | None) -> Json:
    """Sign with ES256. ``payload``: None for an empty one (POST-as-GET, RFC 8555 section 6.3)."""
    head, body = _parts({"alg": "ES256", **protected}, payload)
    r, s = decode_dss_signature(key.sign(f"{head}.{body}".encode(), ec.ECDSA(hashes.SHA256())))
    signature = r.to_bytes(_SIZE, "big") + s.to_bytes(_SIZE, "big")
    return {"protected": head, "payload": body, "signature": encode(signature)}


def authenticated(secret: bytes, protected: Json, payload: Json) -> Json:
    """Authenticate with HS256."""
    head, body = _parts({"alg": "HS256", **protected}, payload)
    mac = hmac.digest(secret, f"{head}.{body}".encode(), "sha256")
    return {"protected": head, "payload": body, "signature": encode(mac)}


def _parts(protected: Json, payload: Json | None) -> tuple[str, str]:
    return encode(_compact(protected)), "" if payload is None else encode(_compact(payload))


def _compact(value: Json) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
