"""What gateways answer while certificates are ordered of an ACME server: proofs that a host is the mesh's.

The istiod that orders keeps them in a Secret of its namespace, from which every istiod takes them. Sources: RFC 8555
section 8.3 (HTTP-01) and RFC 8737 (TLS-ALPN-01).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field

from lateen.api import objects as o

SECRET = "lateen-acme"
HTTP, TLS = "http.", "tls."
"""What the names of the Secret's entries begin with; a token or a host follows."""
HTTPS_PORT = 443
"""Where an ACME server looks for TLS-ALPN-01."""
MAX_TOKEN, MAX_HOST = 200, 249
"""Characters, so that the name of an entry fits into a Secret (253)"""
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
    """A certificate that is shown for one handshake. Its key proves nothing elsewhere, and is never used again."""

    host: str
    chain: str = field(repr=False)
    key: str = field(repr=False)


@dataclass(frozen=True)
class Challenges:
    """What a gateway answers, as long as there is an issuer that may ask for it."""

    answers: tuple[Answer, ...] = ()
    shown: tuple[Shown, ...] = ()
    places: tuple[Place, ...] = ()
    """The sockets of port 443, whether a server is there or its certificate is missing."""
    origin: str = ""


def entry(answer: Answer | Shown) -> tuple[str, str]:
    """The name and text of the Secret's entry."""
    if isinstance(answer, Answer):
        return f"{HTTP}{answer.token}", json.dumps({"host": answer.host, "proof": answer.proof})
    return f"{TLS}{answer.host}", json.dumps({"chain": answer.chain, "key": answer.key})


def is_host(text: str) -> bool:
    """Whether a gateway can answer for a host: a DNS name in lower case, and no wildcard."""
    return len(text) <= MAX_HOST and _HOST.fullmatch(text) is not None


def is_token(text: str) -> bool:
    return len(text) <= MAX_TOKEN and _TOKEN.fullmatch(text) is not None


def is_proof(text: str) -> bool:
    """A key authorization: a token and the thumbprint of a key (RFC 8555 section 8.1)."""
    return all(map(is_token, text.split(".", 1))) if "." in text else False


def read(found: o.Credential | None, origin: str) -> Challenges:
    """``found``: the Secret, where it is there; ``origin``: its name. Entries that istiod would not have written are
    left out, because the configuration of every gateway is made of them."""
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
    """An entry's fields; empty where it is no JSON object of texts."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) and all(isinstance(v, str) for v in found.values()) else {}
