"""Rules for single values: names, ports, durations, addresses, regular expressions, percentages."""

from __future__ import annotations

import ipaddress
import re

import re2

from lateen.api.config import Duration
from lateen.api.validate.findings import Findings, no, warn

LABEL = r"[a-zA-Z0-9](?:[-a-zA-Z0-9]*[a-zA-Z0-9])?"
_LABEL = re.compile(f"{LABEL}")
_WILDCARD_FIRST = re.compile(rf"\*|(?:\*|\*-)?{LABEL}")
_HEADER = re.compile(r"[-_A-Za-z0-9]+")
_TAG_KEY = re.compile(
    r"(?:[A-Za-z0-9](?:[-A-Za-z0-9]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[-A-Za-z0-9]*[A-Za-z0-9])?)*/)?"
    r"[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?"
)
_TAG_VALUE = re.compile(r"(?:[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?)?")
_VARIABLE = re.compile(r"%(?:[A-Z_0-9]+(?:\([^()]*(?:\([^()]*\)[^()]*)*\))?(?::[0-9]+)?)?%")
MAX_REGEX = 1024
MAX_NAME = 253
SUPPORTED = {"http", "http2", "https", "grpc", "grpc-web", "tcp", "tls", "mongo", "mysql", "redis", "udp"}
JWT_CLAIM = ("@request.auth.claims.", "@request.auth.claims[")


def fqdn(name: str, path: str) -> Findings:
    """A DNS name of RFC 1123 labels; a trailing dot is allowed."""
    if not name:
        yield no(path, "domain name must not be empty")
    elif len(name) > MAX_NAME:
        yield no(path, f'domain name "{name[:80]}…" is longer than {MAX_NAME} characters')
    else:
        yield from _labels(name, name.removesuffix(".").split("."), path)


def _labels(name: str, labels: list[str], path: str) -> Findings:
    for label in labels:
        if not _LABEL.fullmatch(label) or len(label) > 63:
            yield no(
                path, f'domain name "{name[:80]}" invalid: "{label[:80]}" is not a label of letters, digits and "-"'
            )
            return
    if labels and labels[-1].isdigit():
        yield no(path, f'domain name "{name[:80]}" invalid: the top level domain "{labels[-1]}" cannot be all-numeric')


def wildcard_domain(name: str, path: str) -> Findings:
    """A DNS name whose first label may be or begin with ``*``."""
    if not name:
        yield no(path, "domain name must not be empty")
    elif len(name) > MAX_NAME:
        yield no(path, f'domain name "{name[:80]}…" is longer than {MAX_NAME} characters')
    elif name != "*":
        first, *rest = name.removesuffix(".").split(".")
        if not _WILDCARD_FIRST.fullmatch(first):
            yield no(
                path, f'domain name "{name[:80]}" invalid: a wildcard is allowed only at the start of the first label'
            )
        elif rest or "*" not in first:
            yield from _labels(name, rest or [first], path)


def offered_host(name: str, path: str) -> Findings:
    """A host of a Gateway's server or of a Sidecar's egress: full names, and wildcards of whole labels."""
    if name != "*" and "." not in name:
        yield no(path, f'short names (non FQDN) are not allowed: "{name[:80]}"')
    yield from wildcard_domain(name, path)
    yield from partial_wildcard(name, path)


def partial_wildcard(name: str, path: str, refuse: bool = True) -> Findings:
    """``*-a.test`` is a name for certificates, not for hosts of proxies."""
    if "*" in name and name != "*" and not name.startswith("*."):
        yield (no if refuse else warn)(path, f'partial wildcard "{name[:80]}" not allowed')


def is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def cidr(text: str, path: str) -> Findings:
    """An address, or a range of them."""
    try:
        if "%" in text:
            raise ValueError
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        yield no(path, f'"{text[:80]}" is not a valid CIDR block or IP address')


def port(number: int, path: str) -> Findings:
    if not 1 <= number <= 65535:
        yield no(path, f"port number {number} must be in the range 1..65535")


def protocol(name: str, path: str) -> Findings:
    if name.lower() not in SUPPORTED:
        yield no(path, f'invalid protocol "{name}"; use one of {", ".join(sorted(SUPPORTED))}')


def port_name(name: str, path: str) -> Findings:
    if not _LABEL.fullmatch(name) or len(name) > 63:
        yield no(path, f'invalid port name "{name[:80]}"; use letters, digits and "-"')


def duration(value: Duration | None, path: str) -> Findings:
    """At least a millisecond, without a fraction of one."""
    if value is None:
        return
    if value.nanoseconds < 1_000_000:
        yield no(path, f'duration must be greater than 1ms, is "{value}"')
    elif value.nanoseconds % 1_000_000:
        yield no(path, f'only durations to ms precision are supported, is "{value}"')


def percent(value: float, path: str) -> Findings:
    if not 0 <= value <= 100:
        yield no(path, f"percent {value:g} must be in the range 0..100")


def regex(text: str, path: str) -> Findings:
    if len(text) > MAX_REGEX:
        yield no(path, f"the regular expression has {len(text)} characters; the limit is {MAX_REGEX}")
        return
    options = re2.Options()
    options.log_errors = False
    try:
        re2.compile(text, options)
    except re2.error as e:
        yield no(path, f'"{text[:80]}" is not a regular expression of RE2: {e}')


def header_name(name: str, path: str) -> Findings:
    if not name:
        yield no(path, "header name cannot be empty")
    elif not _HEADER.fullmatch(name):
        yield no(path, f'header name "{name}" is not a valid header name; use letters, digits, "-" and "_"')


def header_value(value: str, path: str) -> Findings:
    """Envoy's command operators are %NAME(…)%; a lone percent sign is written %%."""
    if "%" in _VARIABLE.sub("", value):
        yield no(path, f'header value configuration "{value[:80]}": write a literal percent sign as %%')


def status(code: int, path: str) -> Findings:
    if not 200 <= code <= 600:
        yield no(path, f"HTTP status {code} is not in the range 200..600")


def labels(given: dict[str, str], path: str) -> Findings:
    """Kubernetes' rules for labels."""
    for key, value in given.items():
        if not _TAG_KEY.fullmatch(key):
            yield no(path, f'invalid tag key: "{key}"')
        if not _TAG_VALUE.fullmatch(value) or len(value) > 63:
            yield no(f"{path}[{key}]", f'invalid tag value: "{value}"')


def export_to(namespace: str, given: tuple[str, ...], service_entry: bool, path: str = "spec.exportTo") -> Findings:
    """``.``, ``*``, ``~`` (ServiceEntry only) or namespaces, each once, and ``*`` and ``~`` alone."""
    seen: set[str] = set()
    for i, to in enumerate(given):
        at = f"{path}[{i}]"
        if to == "~" and not service_entry:
            yield no(at, "~ is allowed only for a ServiceEntry")
            continue
        if to in seen:
            yield no(at, f'"{to}" is given twice')
        seen.add(to)
        if to not in (".", "*", "~") and (not _LABEL.fullmatch(to) or len(to) > 63):
            yield no(at, f'"{to}" is not a namespace; use ".", "*" or the name of one')
    if "." in seen and namespace and namespace in seen:
        yield no(path, f'"." and "{namespace}" are the same namespace')
    for alone in "*~":
        if alone in seen and len(seen) > 1:
            yield no(path, f'"{alone}" must be the only value')
