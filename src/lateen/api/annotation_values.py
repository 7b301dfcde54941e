"""What the values of Istio's annotations may be. Functions that check raise ValueError with a sentence about the value;
those named ``about_…`` return a caveat about a valid one, or an empty text. The table of annotations
(``api/annotations``) says which are for which."""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Callable

from lateen.kit import duration, jsons, regex
from lateen.kit.booleans import boolean
from lateen.kit.digits import digits

_QUANTITY = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?([numkMGTPE]|[KMGTPE]i|[eE][+-]?[0-9]+)?")
_IMAGE = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._:/@-]*")
_LEVELS = ("trace", "debug", "info", "warning", "warn", "error", "critical", "off")
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_IMAGE_TYPE = re.compile(r"[A-Za-z0-9_.-]{1,100}")
IMAGE_TYPES = ("distroless", "debug")
"""The ends of the tags of Istio's images"""
_INTERFACE = re.compile(r"[^\s/,]{1,15}$")


def _is_number(text: str) -> bool:
    """ASCII digits only: the text becomes an argument of iptables."""
    return digits(text)


def port(text: str, what: str = "a port") -> None:
    if not _is_number(text.strip()) or int(text) > 65535:
        raise ValueError(f'"{text}" is not {what} (0 to 65535)')


def ports(text: str) -> None:
    for part in text.split(",") if text.strip() else ():
        port(part.strip(), "a port; write ports separated by commas")


def ports_or_all(text: str) -> None:
    if text != "*":
        ports(text)


def ranges(text: str) -> None:
    for part in text.split(",") if text else ():
        try:
            _, slash, length = part.strip().partition("/")
            if not slash or not _is_number(length):
                raise ValueError
            ipaddress.ip_network(part.strip(), strict=False)
        except ValueError:
            raise ValueError(f'"{part}" is not a range of addresses such as 10.0.0.0/8') from None


def ranges_or_all(text: str) -> None:
    if text != "*":
        ranges(text)


def count(text: str) -> None:
    if not _is_number(text) or int(text) >= 2**31:
        raise ValueError(f'"{text}" is not a number of seconds or times')


def truth(text: str) -> None:
    boolean(text)


def quantity(text: str) -> None:
    if not _QUANTITY.fullmatch(text):
        raise ValueError(f'"{text}" is not a quantity such as 100m or 128Mi')


def image(text: str) -> None:
    if not _IMAGE.fullmatch(text):
        raise ValueError(f'"{text}" is not the name of an image')


def image_type(text: str) -> None:
    """The end of an image's tag, as in Istio: hubs may have other types than Istio's."""
    if text and not _IMAGE_TYPE.fullmatch(text):
        raise ValueError(f'"{text}" cannot be the end of an image\'s tag')


def one_of(*known: str) -> Callable[[str], None]:
    def check(text: str) -> None:
        if text not in known:
            near = difflib.get_close_matches(text, known, 1) or difflib.get_close_matches(text.upper(), known, 1)
            hint = f'; did you mean "{near[0]}"?' if near else ""
            raise ValueError(f'"{text}" is not {" or ".join(known)}{hint}')

    return check


def component_levels(text: str) -> None:
    for part in filter(None, text.split(",")):
        name, found, level = part.partition(":")
        if not found or not name.strip() or level.strip() not in _LEVELS:
            raise ValueError(f'"{part}" is not component:level, as in misc:error')


def scope_levels(text: str) -> None:
    levels = ("debug", "info", "warn", "warning", "error", "fatal", "none")
    for part in filter(None, text.split(",")):
        if part.rpartition(":")[2].strip() not in levels:
            raise ValueError(f'"{part}" is not scope:level; levels are {", ".join(levels)}')


def interfaces(text: str) -> None:
    for part in filter(None, text.split(",")):
        if not _INTERFACE.match(part.strip()):
            raise ValueError(f'"{part}" is not the name of a network interface')


def _json(text: str) -> object:
    try:
        return jsons.loads(text)
    except ValueError as e:
        raise ValueError(f"it is not JSON: {e}") from None


def volumes(text: str) -> None:
    found = _json(text)
    if not isinstance(found, dict) or not all(isinstance(v, dict) for v in found.values()):
        raise ValueError('expected an object that maps volume names to volumes, as in {"cache": {"emptyDir": {}}}')


def mounts(text: str) -> None:
    volumes(text)
    for name, mount in jsons.loads(text).items():
        if not isinstance(mount.get("mountPath"), str):
            raise ValueError(f'"{name}" needs a mountPath')


def targets(text: str) -> None:
    for part in filter(None, (p.strip() for p in text.split(","))):
        port, _, path = part.partition(":")
        if not _is_number(port) or not 0 < int(port) < 65536 or not path.startswith("/"):
            raise ValueError(f'"{part}" is not port:/path')


def interval(text: str) -> None:
    if duration.nanoseconds(text) < 10**6:
        raise ValueError(f'"{text}" is shorter than 1ms')


def buckets(text: str) -> None:
    found = _json(text)
    lists = list(found.values()) if isinstance(found, dict) else [()]
    for given in lists:
        numbers = isinstance(given, list) and given and all(isinstance(x, int | float) and x > 0 for x in given)
        if not numbers or sorted(set(given)) != given:
            raise ValueError(
                'expected an object that maps name prefixes to ascending numbers, as in {"istiocustom": [1, 5, 10]}'
            )


def regexes(text: str) -> None:
    for pattern in text.split(","):
        regex.compiled(pattern)


def names(text: str) -> None:
    if not all(re.match(r"[\w.-]+$", n.strip()) for n in text.split(",")):
        raise ValueError(f'"{text}" is not a list of names separated by commas')


def config_map(text: str) -> None:
    if len(text) > 253 or not all(map(_LABEL.fullmatch, text.split("."))):
        raise ValueError(f'"{text}" is not the name of a ConfigMap')


def about_interception(text: str) -> str:
    return {
        "NONE": "no traffic is redirected: services are at 127.0.0.1 (without IPv4: ::1) and their ports; only an "
        "ingress listener of a Sidecar has the application served by the mesh",
    }.get(text, "")


def about_injection(text: str) -> str:
    if text in ("true", "false", ""):
        return ""
    return f'"{text}" is neither "true" nor "false", so the namespace\'s and the installation\'s settings decide'


def about_core_dumps(text: str) -> str:
    return (
        "it sets the node's kernel.core_pattern, so privileged containers must be allowed for the pod"
        if (text == "true")
        else ""
    )


def about_image(text: str) -> str:
    return "" if "/" in text else "an image without a registry is ignored; write the full reference"


def about_image_type(text: str) -> str:
    if text in ("", "default", *IMAGE_TYPES):
        return ""
    return f'Istio has no images of type "{text}" (default, {", ".join(IMAGE_TYPES)}); the hub must have one'


def about_templates(text: str) -> str:
    simple = "grpc-simple" in [n.strip() for n in text.split(",")]
    return (
        "with grpc-simple, the certificate expires after a day and is not renewed; use grpc-agent, which renews it"
        if simple
        else ""
    )
