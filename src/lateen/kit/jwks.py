"""JSON Web Key Sets (RFC 7517), reduced to the keys that Envoy can verify tokens with.

Envoy rejects the whole configuration if a set has no key that it can read, so every set is checked here first.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

MIN_BITS, MAX_BITS, EXPONENT_BITS = 1024, 16384, 33
"""The RSA keys that Envoy's library accepts: the size of the modulus, and the largest exponent."""
_CURVES: dict[str, tuple[ec.EllipticCurve, str]] = {
    "P-256": (ec.SECP256R1(), "ES256"),
    "P-384": (ec.SECP384R1(), "ES384"),
    "P-521": (ec.SECP521R1(), "ES512"),
}
NEEDS = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x"), "oct": ("k",)}
"""Key types -> the members that each must have (RFC 7518 and 8037)."""
ALGORITHMS = {
    "RSA": ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    "EC": ("ES256", "ES384", "ES512"),
    "OKP": ("EdDSA",),
    "oct": ("HS256", "HS384", "HS512"),
}
"""Key types -> the algorithms that a key may name (``alg``)."""
Values = dict[str, Any]
"""A key's members: bytes, and the name of the curve"""


@lru_cache(maxsize=256)
def usable(text: str) -> str:
    """The set reduced to the public members of its usable keys, in a fixed form. Raises ValueError if no key is usable,
    with the fault of the document or of its first key."""
    kept, wrong = examine(text)
    if not kept:
        raise ValueError(wrong[0] if wrong else "there is no key in it")
    return json.dumps({"keys": kept}, sort_keys=True, separators=(",", ":"))


def examine(text: str) -> tuple[list[dict[str, str]], list[str]]:
    """(the usable keys, the fault of each of the others). Raises ValueError if it is not a key set."""
    try:
        found = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    keys = found.get("keys") if isinstance(found, dict) else None
    if not isinstance(keys, list):
        raise ValueError('there is no list "keys"')
    kept: list[dict[str, str]] = []
    wrong: list[str] = []
    for i, key in enumerate(keys):
        try:
            kept.append(_public(key))
        except ValueError as e:
            wrong.append(f"key {i} {e}")
    return kept, wrong


def _public(key: Any) -> dict[str, str]:
    """A key's public members. Raises ValueError if no token can be verified with it."""
    kind = key.get("kty") if isinstance(key, dict) else None
    if not isinstance(kind, str) or kind not in NEEDS:
        raise ValueError("has no known type (kty)")
    if key.get("use", "sig") != "sig":
        raise ValueError('is not for signatures (use is not "sig")')
    if missing := [k for k in NEEDS[kind] if not isinstance(key.get(k), str) or not key[k]]:
        raise ValueError(f"lacks {', '.join(missing)}")
    algorithm = key.get("alg")
    if algorithm is not None and algorithm not in ALGORITHMS[kind]:
        raise ValueError(
            f'has the algorithm "{str(algorithm)[:40]}", which is not one of {", ".join(ALGORITHMS[kind])}'
        )
    values = {k: key[k] if k == "crv" else _bytes(key, k) for k in NEEDS[kind]}
    _CHECKS[kind](values, algorithm)
    named = {k: v for k in ("kid", "alg") if isinstance(v := key.get(k), str) and v}
    if any("\ud800" <= c <= "\udfff" for c in named.get("kid", "")):
        raise ValueError("has a kid that is not Unicode")
    return {"kty": kind, **named, **{k: v if isinstance(v, str) else _text(v) for k, v in values.items()}}


def _bytes(key: dict[str, str], member: str) -> bytes:
    text = key[member].rstrip("=")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except ValueError:
        raise ValueError(f"has a member {member} that is not Base64") from None


def _text(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def _rsa(key: Values, _: str | None) -> None:
    modulus, exponent = (int.from_bytes(key[k], "big") for k in ("n", "e"))
    if not MIN_BITS <= modulus.bit_length() <= MAX_BITS:
        raise ValueError(f"has {modulus.bit_length()} bits, not between {MIN_BITS} and {MAX_BITS}")
    if modulus % 2 == 0 or exponent.bit_length() > EXPONENT_BITS:
        raise ValueError("is not an RSA key: its modulus is even, or its exponent is too large")
    try:
        rsa.RSAPublicNumbers(exponent, modulus).public_key()
    except ValueError as e:
        raise ValueError(f"is not an RSA key: {e}") from None


def _ec(key: Values, algorithm: str | None) -> None:
    if key["crv"] not in _CURVES:
        raise ValueError(f'has the curve "{key["crv"][:40]}", which is not one of {", ".join(_CURVES)}')
    curve, fits = _CURVES[key["crv"]]
    if algorithm not in (None, fits):
        raise ValueError(f"has the curve {key['crv']}, which is for {fits}, not for {algorithm}")
    x, y = (int.from_bytes(key[k], "big") for k in ("x", "y"))
    try:
        ec.EllipticCurvePublicNumbers(x, y, curve).public_key()
    except ValueError as e:
        raise ValueError(f"is not a point of its curve: {e}") from None


def _okp(key: Values, _: str | None) -> None:
    if key["crv"] != "Ed25519":
        raise ValueError(f'has the curve "{key["crv"][:40]}", which is not Ed25519')
    try:
        ed25519.Ed25519PublicKey.from_public_bytes(key["x"])
    except ValueError as e:
        raise ValueError(f"is not an Ed25519 key: {e}") from None


def _oct(key: Values, _: str | None) -> None:
    if not key["k"]:
        raise ValueError("is empty")


_CHECKS: dict[str, Callable[[Values, str | None], None]] = {"RSA": _rsa, "EC": _ec, "OKP": _okp, "oct": _oct}
