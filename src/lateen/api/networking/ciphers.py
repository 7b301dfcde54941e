"""Lists of cipher suites of TLS 1.2 and below.

Items are names, ``ALL``, ``[A|B]`` for names that are equally preferred, and ``+A`` (the last one), ``-A`` (left out)
and ``!A`` (left out for good) about names that precede. Source: ``TlsParameters.cipher_suites`` in
https://www.envoyproxy.io/docs/envoy/latest/api-v3/extensions/transport_sockets/tls/v3/common.proto
"""

from __future__ import annotations

from collections.abc import Iterable

ALL = "ALL"
CIPHER_SUITES = frozenset(
    (
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "ECDHE-RSA-AES128-GCM-SHA256",
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "ECDHE-RSA-AES256-GCM-SHA384",
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        "ECDHE-RSA-CHACHA20-POLY1305",
        "ECDHE-ECDSA-AES128-SHA",
        "ECDHE-RSA-AES128-SHA",
        "ECDHE-ECDSA-AES256-SHA",
        "ECDHE-RSA-AES256-SHA",
        "AES128-GCM-SHA256",
        "AES256-GCM-SHA384",
        "AES128-SHA",
        "AES256-SHA",
        "DES-CBC3-SHA",
    )
)


def is_operator(item: str) -> bool:
    """Whether Istio takes an item for more than a name, and passes it on unread."""
    return not item[:1].isalnum()


def suites(item: str) -> frozenset[str]:
    """The suites that an item is about; empty if Envoy would refuse it."""
    if item == ALL:
        return CIPHER_SUITES
    if item.startswith("[") and item.endswith("]"):
        found = frozenset(item[1:-1].split("|"))
    else:
        found = frozenset((item[1:] if item[:1] in ("+", "-", "!") else item,))
    return found if found <= CIPHER_SUITES else frozenset()


def usable(given: Iterable[str]) -> tuple[str, ...]:
    """The items that Envoy knows, each once: with another one it would refuse all of a proxy's listeners, and likewise
    if nothing is left, so that they are empty then, which means Envoy's own list."""
    items = [item for item in dict.fromkeys(given) if suites(item)]
    left: set[str] = set()
    gone: set[str] = set()
    for item in items:
        match item[0]:
            case "-" | "!":
                left -= suites(item)
                gone |= suites(item) if item[0] == "!" else set()
            case "+":
                pass
            case _:
                left |= suites(item) - gone
    return tuple(items) if left else ()
