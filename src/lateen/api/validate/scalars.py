"""Validation rules of single values: names, ports, durations, addresses, regular expressions, percentages.

Source: istio.io/istio ``pkg/config/validation/agent/validation.go`` and ``pkg/config/labels``. Messages begin
with Istio's wording, which scripts look for.
"""

from __future__ import annotations

import http
import ipaddress
import re

from lateen.api import claims, operators
from lateen.api.config import Duration
from lateen.api.validate.findings import Finding, Findings, no, warn
from lateen.kit.digits import digits
from lateen.kit.regex import compiled

_LABEL = r"[a-zA-Z0-9](?:[-a-zA-Z0-9]*[a-zA-Z0-9])?"
_LABEL_RE = re.compile(_LABEL)
_WILDCARD_FIRST = re.compile(rf"\*|(?:\*|\*-)?{_LABEL}")
_TOKEN = re.compile(r"[-!#$%&'*+.^_`|~0-9A-Za-z]+")
_STRICT_HEADER = re.compile(r"[-_A-Za-z0-9]+")
_PROBE_HEADER = re.compile(r"[-A-Za-z0-9]+")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_TAG_KEY = re.compile(
    r"(?:[A-Za-z0-9](?:[-A-Za-z0-9]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[-A-Za-z0-9]*[A-Za-z0-9])?)*/)?"
    r"[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?"
)
_TAG_VALUE = re.compile(r"(?:[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?)?")
_PREFIX_LENGTH = re.compile(r"0|[1-9][0-9]{0,2}")
_GENERATED = re.compile(r"outbound_\.[0-9]+_[^_]*_\.[A-Za-z*][^_]*")
MAX_REGEX = 1024
MAX_NAME = 255
MAX_ANNOTATIONS = 1 << 18
HTTP = {"http", "http_proxy", "http2", "grpc", "grpc-web"}
SUPPORTED = {*HTTP, "https", "tcp", "tls", "mongo", "mysql", "redis", "udp"}
TLS = {"https", "tls"}
TCP = {"tcp", "https", "tls", "mongo", "redis", "mysql"}
PSEUDO_HEADERS = (":method", ":scheme", ":authority", ":path", ":status")
STATUS_CODES = frozenset(http.HTTPStatus)


def is_label(text: str) -> bool:
    """A DNS label as Istio defines it: letters of either case, digits and ``-``, at most 63."""
    return len(text) <= 63 and _LABEL_RE.fullmatch(text) is not None


def fqdn(name: str, path: str) -> Findings:
    """A DNS name; a trailing dot is allowed."""
    yield from _length(name, path)
    if name and len(name) <= MAX_NAME:
        yield from _labels(name, name, path)


def _length(name: str, path: str) -> Findings:
    if not name:
        yield no(path, "empty domain name not allowed")
    elif len(name) > MAX_NAME:
        yield no(path, f'domain name "{name[:80]}…" too long (max {MAX_NAME})')


def _labels(name: str, rest: str, path: str) -> Findings:
    labels = rest.split(".")
    if digits(labels[-1]):
        says = f'domain name "{name[:80]}" invalid (top level domain "{labels[-1]}" cannot be all-numeric)'
        yield no(path, says)
        return
    for i, label in enumerate(labels):
        if not is_label(label) and not (label == "" and i == len(labels) - 1):
            yield _bad_label(name, label, path)
            return


def _bad_label(name: str, label: str, path: str) -> Finding:
    says = f'domain name "{name[:80]}" invalid (label "{label[:80]}" invalid): use letters, digits and "-"'
    return no(path, says)


def wildcard_domain(name: str, path: str) -> Findings:
    """A DNS name whose first label may be ``*`` or begin with it."""
    yield from _length(name, path)
    if not name or len(name) > MAX_NAME:
        return
    first, dot, rest = name.partition(".")
    if len(first) > 63 or not _WILDCARD_FIRST.fullmatch(first):
        yield _bad_label(name, first, path)
    elif dot:
        yield from _labels(name, rest, path)


def gateway_domain(name: str, path: str, sni: bool) -> Findings:
    """A host of a VirtualService of gateways. With ``sni``, it may be the name that a sidecar asks an AUTO_PASSTHROUGH
    gateway for: ``outbound_.80_._.reviews.default.svc.cluster.local``."""
    if not (sni and name.startswith("outbound_")):
        yield from wildcard_domain(name, path)
    elif not _GENERATED.fullmatch(name):
        yield no(path, f"domain name {name[:80]} invalid, should follow 'outbound_.<PORT>_._.<HOSTNAME>' format")


def offered_host(name: str, path: str) -> Findings:
    """A host of a Gateway's server or of a Sidecar's egress: full names, and wildcards of whole labels."""
    if name != "*" and "." not in name:
        yield no(path, f'short names (non FQDN) are not allowed: "{name[:80]}"')
    yield from wildcard_domain(name, path)
    yield from partial_wildcard(name, path)


def partial_wildcard(name: str, path: str, refuse: bool = True) -> Findings:
    """``*-a.test`` is valid in certificates, but not as a host of a proxy."""
    if "*" in name and name != "*" and not name.startswith("*."):
        yield (no if refuse else warn)(path, f'partial wildcard "{name[:80]}" not allowed')


def is_wildcard(name: str) -> bool:
    return name.startswith("*")


def within(name: str, wider: str) -> bool:
    """Whether ``wider`` covers every name that ``name`` covers."""
    if not is_wildcard(wider):
        return name == wider
    return (name[1:] if is_wildcard(name) else name).endswith(wider[1:])


def overlap(a: str, b: str) -> bool:
    """Whether some name is covered by both."""
    return within(a, b) or within(b, a)


def is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def cidr(text: str, path: str) -> Findings:
    """An address, or a range with its prefix length. Zones (``%eth0``) are invalid: they are local to a machine."""
    _, slash, length = text.partition("/")
    try:
        if "%" in text or (slash and not _PREFIX_LENGTH.fullmatch(length)):
            raise ValueError
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        what = "CIDR block" if slash else "IP"
        yield no(path, f"{text[:80]} is not a valid {what}; write an address or a range such as 10.0.0.0/8")


def port(number: int, path: str) -> Findings:
    if not 1 <= number <= 65535:
        yield no(path, f"port number {number} must be in the range 1..65535")


def port_text(text: str, path: str) -> Findings:
    """A port of an AuthorizationPolicy, which is a string there; 0 is allowed."""
    if not (digits(text) and int(text) <= 65535):
        yield no(path, f'bad port ({text[:80]}): "{text[:80]}" is not a port number')


def protocol(name: str, path: str) -> Findings:
    if name.lower() not in SUPPORTED:
        known = ", ".join(sorted(SUPPORTED)).upper()
        yield no(path, f'invalid protocol "{name}": unsupported protocol: {name}; use one of {known}')


def port_name(name: str, path: str) -> Findings:
    if not is_label(name):
        yield no(path, f'invalid port name: {name[:80]}; use letters, digits and "-", at most 63')


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
        yield no(path, f"percentage {value:g} is not in range 0..100")


def regex(text: str, path: str) -> Findings:
    if len(text) > MAX_REGEX:
        yield no(path, f"regex is too large, max length allowed is {MAX_REGEX}; it has {len(text)} characters")
        return
    try:
        compiled(text)
    except ValueError as e:
        yield no(path, f'"{text[:80]}": {e}; Istio uses RE2 style regex-based match')


def header_name(name: str, path: str) -> Findings:
    """Any token of RFC 9110."""
    yield from _header(name, path, _TOKEN)


def strict_header_name(name: str, path: str) -> Findings:
    yield from _header(name, path, _STRICT_HEADER)


def probe_header_name(name: str, path: str) -> Findings:
    """As Kubernetes allows it in probes."""
    yield from _header(name, path, _PROBE_HEADER)


def _header(name: str, path: str, allowed: re.Pattern[str]) -> Findings:
    if not name:
        yield no(path, "header name cannot be empty")
    elif not allowed.fullmatch(name):
        yield no(path, f"header name {name[:80]} is not a valid header name")


def matched_header(name: str, path: str) -> Findings:
    """A header that a route matches: may also be a pseudo header, or a claim of a token."""
    claim = claims.routed(name)
    if claim is None:
        if name not in PSEUDO_HEADERS:
            yield from header_name(name, path)
    elif not all(claim):
        yield no(path, f'"{name[:80]}" has an empty name of a claim; write @request.auth.claims[a][b]')


def header_value(value: str, path: str) -> Findings:
    """A string with Envoy's command operators. Envoy rejects the whole listener because of an unknown one."""
    if _CONTROL.search(value):
        yield no(path, f"header value configuration {value[:80]!r} is invalid: it has control characters")
        return
    for says in operators.problems(value, operators.HEADERS):
        yield no(path, f"header value configuration: {says}")


MAX_COMPARED = 4096
"""Bytes of a text that becomes a part of a regular expression: Envoy refuses those whose program is too large (32,768
instructions, of which a byte needs up to five), and with them everything else of their kind."""


def compared(text: str, at: str, most: int = MAX_COMPARED) -> Findings:
    """A text that requests are compared with."""
    if (length := len(text.encode())) > most:
        yield no(at, f"must have at most {most} bytes, has {length}")


def plain_value(value: str, path: str) -> Findings:
    """The literal value of a header, or a part of one."""
    if _CONTROL.search(value):
        yield no(path, f"{value[:80]!r} has control characters")


def status(code: int, path: str) -> Findings:
    """Envoy accepts at most 599."""
    if not 200 <= code <= 599:
        yield no(path, f"HTTP status {code} is not in range 200-599")


def labels(given: dict[str, str], path: str) -> Findings:
    """Kubernetes' rules for labels."""
    for key, value in given.items():
        if not _TAG_KEY.fullmatch(key):
            yield no(path, f'invalid tag key: "{key}"')
        if not _TAG_VALUE.fullmatch(value) or len(value) > 63:
            yield no(f"{path}[{key}]", f'invalid tag value: "{value}"')


def notes(given: dict[str, str], path: str) -> Findings:
    """Kubernetes' rules for annotations."""
    for key in given:
        prefix, _, name = key.rpartition("/")
        if not _TAG_KEY.fullmatch(key) or len(name) > 63 or len(prefix) > 253:
            yield no(path, f'invalid annotation key: "{key[:80]}"')
    if sum(len(k.encode()) + len(v.encode()) for k, v in given.items()) > MAX_ANNOTATIONS:
        yield no(path, f"may have at most {MAX_ANNOTATIONS} bytes in all")


def export_to(namespace: str, given: tuple[str, ...], service_entry: bool, path: str = "spec.exportTo") -> Findings:
    """``.``, ``*``, ``~`` (ServiceEntry only) or namespaces, each once, and ``*`` and ``~`` alone."""
    seen: set[str] = set()
    for i, to in enumerate(given):
        at = f"{path}[{i}]"
        if to == "~" and not service_entry:
            yield no(at, "exportTo ~ (none) is not allowed for Istio configuration objects except ServiceEntry")
            continue
        if to in seen:
            yield no(at, f"duplicate entries in exportTo for entry {to}")
        seen.add(to)
        if to not in (".", "*", "~") and not is_label(to):
            says = "only ., *, or a valid DNS 1123 label is allowed as exportTo entry"
            yield no(at, f'"{to}" is not the name of a namespace: {says}')
    if "." in seen and namespace and namespace in seen:
        yield no(path, f"duplicate entries in exportTo: . and current namespace {namespace}")
    if "*" in seen and len(given) > 1:
        yield no(path, "cannot have both public (*) and non-public exportTo values for a resource")
    if "~" in seen and len(given) > 1:
        yield no(path, "cannot export service entry to no one (~) and someone")
