"""ACME challenges that gateways answer, to prove control of a host while a certificate is being ordered. The istiod
that orders a certificate keeps the answers in a Secret of its namespace, where every istiod reads them. Sources: RFC
8555 section 8.3 (HTTP-01) and RFC 8737 (TLS-ALPN-01).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field

from lateen.api import objects as o

SECRET = "lateen-acme"
HTTP, TLS = "http.", "tls."
"""Prefixes of the names of the Secret's entries; a token or a host follows."""
HTTPS_PORT = 443
"""The port that an ACME server connects to for TLS-ALPN-01."""
MAX_TOKEN, MAX_HOST = 200, 249
"""Maximum numbers of characters, such that the name of an entry fits into a Secret (253)"""
_HOST = re.compile(r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*\.?")
_TOKEN = re.compile(r"[A-Za-z0-9_-]+")
Place = tuple[str, int]
"""(address, port) of a socket"""


@dataclass(frozen=True)
class Answer:
    host: str
    token: str
    proof: str = field(repr=False)


@dataclass(frozen=True)
class Shown:
    """A certificate that is presented in a single handshake. Its key is worthless elsewhere, and never reused."""

    host: str
    chain: str = field(repr=False)
    key: str = field(repr=False)


@dataclass(frozen=True)
class Challenges:
    """The challenges that gateways answer, as long as there is an issuer that may order certificates."""

    answers: tuple[Answer, ...] = ()
    shown: tuple[Shown, ...] = ()
    places: tuple[Place, ...] = ()
    """The sockets of port 443, including those of servers whose certificate is missing."""
    origin: str = ""


def entry(answer: Answer | Shown) -> tuple[str, str]:
    """The name and text of the Secret's entry."""
    if isinstance(answer, Answer):
        return f"{HTTP}{answer.token}", json.dumps({"host": answer.host, "proof": answer.proof})
    return f"{TLS}{answer.host}", json.dumps({"chain": answer.chain, "key": answer.key})


def is_host(text: str) -> bool:
    """Whether a challenge can be answered for a host: a lower-case DNS name without a wildcard."""
    return len(text) <= MAX_HOST and _HOST.fullmatch(text) is not None


def is_token(text: str) -> bool:
    return len(text) <= MAX_TOKEN and _TOKEN.fullmatch(text) is not None


def is_proof(text: str) -> bool:
    """A key authorization: a token and the thumbprint of a key (RFC 8555 section 8.1)."""
    return all(map(is_token, text.split(".", 1))) if "." in text else False


def read(found: o.Credential | None, origin: str) -> Challenges:
    """Parse the Secret ``found``, if it exists; ``origin`` is its name. Entries that istiod would not have written are
    left out, because they go into the configuration of every gateway."""
    answers, shown = [], []
    for name, text in found.entries if found else ():
        value = _texts(text)
        if name.startswith(HTTP):
            answer = Answer(value.get("host", ""), name.removeprefix(HTTP), value.get("proof", ""))
            if is_host(answer.host) and is_token(answer.token) and is_proof(answer.proof):
                answers.append(answer)
        elif name.startswith(TLS) and is_host(name.removeprefix(TLS)) and value.keys() >= {"chain", "key"}:
            shown.append(Shown(name.removeprefix(TLS), value["chain"], value["key"]))
    return Challenges(tuple(answers), tuple(shown), origin=origin)


def _texts(text: str) -> dict[str, str]:
    """An entry's fields; empty if it is not a JSON object of strings."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) and all(isinstance(v, str) for v in found.values()) else {}
