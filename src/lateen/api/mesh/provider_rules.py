"""Validation rules of extension providers.

Source: istio.io/istio ``pkg/config/validation/agent``, functions for ``MeshConfig.ExtensionProvider``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from lateen.api import operators
from lateen.api.domain import CLUSTER_DOMAIN, service_host
from lateen.api.mesh import rule_parts as parts
from lateen.api.mesh.providers import ExtensionProvider, FileAccessLog, LogFormat
from lateen.api.mesh.rule_parts import Findings
from lateen.api.validate import scalars
from lateen.kit.digits import digits

_KINDS = tuple(f for f in ExtensionProvider.__struct_fields__ if f != "name")
_ASKED = ("envoy_ext_authz_grpc", "envoy_ext_authz_http")
_HEADER_PATTERNS = (
    "include_headers_in_check",
    "include_request_headers_in_check",
    "headers_to_upstream_on_allow",
    "headers_to_downstream_on_deny",
    "headers_to_downstream_on_allow",
)
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_UNKNOWN_TO_ENVOY = {101, 102, 103, 418, 425, 451}
STATUS_ON_ERROR = frozenset(scalars.STATUS_CODES) - _UNKNOWN_TO_ENVOY
"""The status codes in Envoy's enum."""
_EXAMPLE = service_host("ext-authz", "default", CLUSTER_DOMAIN)


def can_be_asked(providers: Iterable[ExtensionProvider]) -> tuple[ExtensionProvider, ...]:
    """The valid providers of external authorization; as in Istio, requests that need any other provider are denied."""
    given = tuple(providers)
    times = Counter(p.name for p in given)
    asked = (p for p in given if any(getattr(p, kind) for kind in _ASKED))
    return tuple(p for p in asked if times[p.name] == 1 and not any(problems(p, "")))


def problems(provider: ExtensionProvider, path: str) -> Findings:
    """The errors in a provider at ``path``."""
    if not provider.name:
        yield f"{path}.name", "empty extension provider name: policies refer to a provider by its name"
    given = [k for k in _KINDS if getattr(provider, k) is not None]
    if len(given) != 1:
        what = ", ".join(parts.camel(k) for k in given) or "none"
        yield path, f"exactly one provider must be set, as in envoyExtAuthzGrpc: {{…}}; set are: {what}"
    for kind in given:
        found: Any = getattr(provider, kind)
        at = f"{path}.{parts.camel(kind)}"
        if hasattr(found, "service"):
            yield from _service(found.service, f"{at}.service")
            yield from parts.port(f"{at}.port", found.port)
        yield from _status(getattr(found, "status_on_error", ""), f"{at}.statusOnError")
        if kind in _ASKED:
            yield from _asked(provider.name, path)
        yield from _patterns(found, at)
        prefix = getattr(found, "path_prefix", "")
        if prefix and not prefix.startswith("/"):
            yield f"{at}.pathPrefix", f'pathPrefix should begin with `/` but found "{prefix}"'
        if kind == "lightstep" and not found.access_token:
            yield f"{at}.accessToken", "access token is required"
        if kind == "opentelemetry" and found.grpc is not None and found.http is not None:
            yield at, "OpenTelemetryTracingProvider cannot specify both grpc and http"
        yield from _headers(found, at)
        yield from _requests(found, at)
        if kind == "envoy_file_access_log":
            yield from log_file(found.path, f"{at}.path")
        if kind == "envoy_otel_als" and found.log_format and not all(map(_text, found.log_format.labels.items())):
            yield f"{at}.logFormat.labels", "the names and values of labels must be text, or maps and lists of it"
        shape = getattr(found, "log_format", None)
        if isinstance(shape, LogFormat):
            for text in (shape.text, *_strings(shape.labels)):
                for says in operators.problems(text):
                    yield f"{at}.logFormat", says


def log_file(text: str, at: str) -> Findings:
    if text and not text.startswith("/"):
        yield at, f'"{text}" is not an absolute path; write one, as in /dev/stdout'


def _text(label: tuple[Any, Any]) -> bool:
    """Whether Envoy can send a label to a collector of OpenTelemetry."""
    name, value = label
    if isinstance(value, dict):
        return bool(name) and all(map(_text, value.items()))
    return bool(name) and all(isinstance(v, str) for v in (value if isinstance(value, list) else [value]))


def _requests(found: Any, at: str) -> Findings:
    """What Envoy would reject in a provider's requests, and all listeners with it."""
    for name in ("", "http", "grpc"):
        part = getattr(found, name, None) if name else found
        time = getattr(part, "timeout", None)
        where = f"{at}.{name}" if name else at
        if time is not None and time.nanoseconds < 0:
            yield f"{where}.timeout", f'must not be negative, got "{time}"'
        path = getattr(part, "path", "") if not isinstance(part, FileAccessLog) else ""
        if any(c.isspace() or not c.isprintable() for c in path):
            yield f"{where}.path", f'"{path}" is not the path of a URL'
        if path and name == "" and not path.startswith("/"):
            yield f"{where}.path", f'"{path}" does not begin with a slash'
    body = getattr(found, "include_request_body_in_check", None)
    if body is not None and body.max_request_bytes <= 0:
        yield f"{at}.includeRequestBodyInCheck.maxRequestBytes", "must be the largest number of bytes, above 0"
    for name, value in getattr(found, "include_additional_headers_in_check", {}).items():
        if not _HEADER.fullmatch(name):
            yield f"{at}.includeAdditionalHeadersInCheck", f'"{name}" is not the name of a header'
        if not value.isprintable():
            yield f"{at}.includeAdditionalHeadersInCheck[{name}]", "has control characters"


def _asked(name: str, path: str) -> Findings:
    """A provider's name becomes part of filter names, and of metadata that is matched by prefix."""
    if name and not (scalars.is_label(name) and name == name.lower()):
        yield f"{path}.name", f'invalid provider name "{name}"; write at most 63 lowercase letters, digits and hyphens'


def _patterns(found: Any, at: str) -> Findings:
    for field in _HEADER_PATTERNS:
        for i, text in enumerate(getattr(found, field, ())):
            if text == "*":
                says = 'a single wildcard ("*") is not supported, change it to either prefix or suffix match'
                yield f"{at}.{parts.camel(field)}[{i}]", says


def _headers(provider: Any, at: str) -> Findings:
    """The headers of a provider's HTTP service."""
    http, grpc = getattr(provider, "http", None), getattr(provider, "grpc", None)
    given = [("headers", getattr(provider, "headers", ()))]
    given += [
        ("http.headers", http.headers if http else ()),
        ("grpc.initialMetadata", grpc.initial_metadata if grpc else ()),
    ]
    for where, headers in given:
        for i, header in enumerate(headers):
            if not _HEADER.fullmatch(header.name):
                yield f"{at}.{where}[{i}].name", f'"{header.name}" is not the name of a header'
            if header.value and header.env_name:
                yield f"{at}.{where}[{i}]", "has value and envName; give only one"
            if not header.value.isprintable():
                yield f"{at}.{where}[{i}].value", "has control characters"
            if header.env_name and not _VARIABLE.fullmatch(header.env_name):
                yield f"{at}.{where}[{i}].envName", f'"{header.env_name}" is not the name of a variable'


def _strings(node: Any) -> Iterator[str]:
    """All strings in the labels, at any depth."""
    if isinstance(node, str):
        yield node
    elif isinstance(node, dict):
        for value in node.values():
            yield from _strings(value)
    elif isinstance(node, (list, tuple)):
        for value in node:
            yield from _strings(value)


def _service(text: str, at: str) -> Findings:
    """``host`` or ``namespace/host``."""
    namespace, slash, host = text.rpartition("/")
    if not text:
        yield at, f"service must not be empty; write a host, as in {_EXAMPLE}"
    elif slash and not scalars.is_label(namespace):
        yield at, f'invalid namespace value "{namespace}"; write namespace/host'
    elif not scalars.is_ip(host) and list(scalars.fqdn(host, at)):
        yield at, f"invalid service fmt {text}: it is not a host, as in {_EXAMPLE}"


def _status(text: str, at: str) -> Findings:
    if text and not (digits(text) and int(text) in STATUS_ON_ERROR):
        yield at, f"unsupported statusOnError value {text}; write a status code of HTTP, as in 403"
