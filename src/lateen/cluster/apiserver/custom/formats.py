"""The formats of strings that schemas of custom resources can ask for; unknown ones hold nothing, as in Kubernetes."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections.abc import Callable
from datetime import date

from lateen.kit import times

_EMAIL = re.compile(r"[^@\s<>\"]+@[^@\s<>\"]+")
_HOST = re.compile(
    r"(?=.{1,253}\Z)([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)*[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
)
_UUID = re.compile(r"(?i)[0-9a-f]{8}-?[0-9a-f]{4}-?([0-9a-f])[0-9a-f]{3}-?[0-9a-f]{4}-?[0-9a-f]{12}")
_MAC = re.compile(r"(?i)[0-9a-f]{2}([:-][0-9a-f]{2}){5}|[0-9a-f]{4}(\.[0-9a-f]{4}){2}")
_DURATION = re.compile(r"[+-]?((\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h))+|0|\d+\s*(ns|us|ms|s|m|h|d|w|\w+s?)")
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:\S*|/\S*")


def parses(parse: Callable[[str], object]) -> Callable[[str], bool]:
    """Whether a text can be parsed: ``parse`` raises ValueError where it cannot."""

    def test(text: str) -> bool:
        try:
            parse(text)
        except ValueError:
            return False
        return True

    return test


def _base64(text: str) -> None:
    try:
        base64.b64decode(text, validate=True)
    except binascii.Error as e:
        raise ValueError(str(e)) from e


_TESTS: dict[str, Callable[[str], bool]] = {
    "byte": parses(_base64),
    "cidr": parses(lambda t: ipaddress.ip_network(t, strict=False) if "/" in t else ipaddress.ip_network("-")),
    "date": parses(date.fromisoformat),
    "date-time": parses(times.parse),
    "datetime": parses(times.parse),
    "duration": lambda t: bool(_DURATION.fullmatch(t)),
    "email": lambda t: bool(_EMAIL.fullmatch(t)),
    "hostname": lambda t: bool(_HOST.fullmatch(t)),
    "ipv4": parses(ipaddress.IPv4Address),
    "ipv6": parses(ipaddress.IPv6Address),
    "mac": lambda t: bool(_MAC.fullmatch(t)),
    "uri": lambda t: bool(_URI.fullmatch(t)),
    "uuid": lambda t: bool(_UUID.fullmatch(t)),
}


def fits(name: str, text: str) -> bool:
    test = _TESTS.get(name)
    return test is None or test(text)
