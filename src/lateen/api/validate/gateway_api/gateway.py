"""Gateway, ListenerSet and GatewayClass."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from lateen.api.gateway_api import gateway as g
from lateen.api.networking import ciphers
from lateen.api.validate.findings import Findings, no, warn
from lateen.kit.jsons import Json

PLAIN, HOSTLESS = ("HTTP", "TCP", "UDP"), ("TCP", "UDP")
_HOST = re.compile(r"(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*", re.ASCII)
_KEY = re.compile(
    r"([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?([A-Za-z0-9][-A-Za-z0-9_.]{0,61})?[A-Za-z0-9]",
    re.ASCII,
)
_MOST = {"labels": 8, "annotations": 16, "options": 16}


def gateway(gw: g.Gateway, _: Json) -> Findings:
    yield from _listeners(gw.listeners)
    yield from _addresses(gw.addresses)
    if gw.infrastructure:
        at = "spec.infrastructure"
        yield from _keys(gw.infrastructure.labels, f"{at}.labels", "label")
        yield from _keys(gw.infrastructure.annotations, f"{at}.annotations", "annotation")
    frontend = gw.tls.frontend if gw.tls else None
    for i, port in _twice(p.port for p in frontend.per_port) if frontend else ():
        says = f"Port for TLS configuration must be unique within the Gateway: {port} is there twice"
        yield no(f"spec.tls.frontend.perPort[{i}].port", says)


def listener_set(found: g.ListenerSet, _: Json) -> Findings:
    yield from _listeners(found.listeners)


def gateway_class(_: g.GatewayClass, __: Json) -> Findings:
    yield from ()


def _listeners(listeners: Sequence[g.Listener]) -> Findings:
    for i, li in enumerate(listeners):
        yield from _listener(li, f"spec.listeners[{i}]")
    for i, name in _twice(li.name for li in listeners):
        says = f'Listener name must be unique within the Gateway: "{name}" is there twice'
        yield no(f"spec.listeners[{i}].name", says)
    for i, _ in _twice((li.port, li.protocol, li.hostname) for li in listeners):
        says = "Combination of port, protocol and hostname must be unique for each listener"
        yield no(f"spec.listeners[{i}]", says)


def _listener(li: g.Listener, at: str) -> Findings:
    tls = li.tls
    if tls is not None and li.protocol in PLAIN:
        yield no(
            f"{at}.tls", f"tls must not be specified for protocols ['HTTP', 'TCP', 'UDP'], and this is {li.protocol}"
        )
    if tls is not None and li.protocol == "HTTPS" and tls.mode != "Terminate":
        yield no(f"{at}.tls.mode", "tls mode must be Terminate for protocol HTTPS; write protocol: TLS")
    if tls is None and li.protocol == "TLS":
        yield no(f"{at}.tls", "tls mode must be set for protocol TLS: Terminate or Passthrough")
    if li.hostname and li.protocol in HOSTLESS:
        yield no(f"{at}.hostname", "hostname must not be specified for protocols ['TCP', 'UDP']")
    if tls is not None and tls.mode == "Terminate" and not tls.certificate_refs and not tls.options:
        yield no(f"{at}.tls", "certificateRefs or options must be specified when mode is Terminate")
    if tls is not None:
        yield from _many(tls.options, f"{at}.tls.options")
        yield from _options(tls.options, f"{at}.tls.options")
    spaces = li.allowed_routes.namespaces
    if spaces.from_ == "Selector" and spaces.selector is None:
        yield warn(f"{at}.allowedRoutes.namespaces", "from: Selector without a selector matches no namespace; add one")


def _options(options: Mapping[str, str], at: str) -> Findings:
    for key, value in options.items():
        if key == g.TERMINATE_MODE and value not in g.TERMINATE_MODES:
            yield no(f"{at}[{key}]", f'no "{value}": write one of {", ".join(g.TERMINATE_MODES)}')
        elif key == g.CIPHERS:
            unknown = [s for s in (part.strip() for part in value.split(",")) if s and not ciphers.suites(s)]
            if unknown:
                yield no(f"{at}[{key}]", f"no cipher suite of the proxy's: {', '.join(unknown)}")
        elif key not in (g.TERMINATE_MODE, g.CIPHERS):
            yield warn(f"{at}[{key}]", f"it has no effect: options are {g.TERMINATE_MODE} and {g.CIPHERS}")


def _addresses(addresses: Sequence[g.GatewayAddress]) -> Findings:
    for i, a in enumerate(addresses):
        if a.type == "Hostname" and a.value and not _HOST.fullmatch(a.value):
            says = f'Hostname value must be empty or contain only valid characters: "{a.value[:80]}" is not a host name'
            yield no(f"spec.addresses[{i}].value", says)
    for kind in ("IPAddress", "Hostname"):
        of = [(i, a.value) for i, a in enumerate(addresses) if a.type == kind and a.value]
        for j, value in _twice(v for _, v in of):
            yield no(f"spec.addresses[{of[j][0]}].value", f'{kind} values must be unique: "{value}" is there twice')


def _keys(given: dict[str, str], at: str, what: str) -> Findings:
    yield from _many(given, at)
    for key in given:
        if not _KEY.fullmatch(key):
            says = (
                f"{what.capitalize()} keys must be in the form of an optional DNS subdomain prefix followed by a "
                "required name segment of up to 63 characters"
            )
            yield no(f"{at}[{key[:80]}]", says)
        elif "/" in key and len(key.partition("/")[0]) > 252:
            yield no(f"{at}[{key[:80]}]", f"the {what} key's prefix may not be longer than 252 characters")


def _many(given: dict[str, str], at: str) -> Findings:
    most = _MOST[at.rpartition(".")[2]]
    if len(given) > most:
        yield no(at, f"must have at most {most} properties, has {len(given)}")


def _twice(given: Iterable[object]) -> list[tuple[int, object]]:
    """Values that have occurred before, with their positions."""
    seen: set[object] = set()
    out = []
    for i, value in enumerate(given):
        if value in seen:
            out.append((i, value))
        seen.add(value)
    return out
