"""What values of a mesh configuration must fulfil beyond their types.

Source: istio.io/istio ``pkg/config/validation/agent``, functions ValidateMeshConfig and ValidateMeshConfigProxyConfig.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from lateen.api import operators
from lateen.api.config import Config
from lateen.api.domain import TRUST_DOMAIN, service_host
from lateen.api.mesh.config import MeshConfig
from lateen.api.mesh.providers import ExtensionProvider
from lateen.api.mesh.proxy import ProxyConfig

Findings = Iterator[tuple[str, str]]

_DOMAIN = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$")
_KINDS = tuple(f for f in ExtensionProvider.__struct_fields__ if f != "name")
_MAX_PORT = 65535


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(r.capitalize() for r in rest)


def _mesh(config: MeshConfig) -> Findings:
    for name in ("proxy_listen_port", "proxy_inbound_listen_port", "proxy_http_port"):
        yield from _port(_camel(name), getattr(config, name), zero=name == "proxy_http_port")
    for name in ("connect_timeout", "dns_refresh_rate"):
        value = getattr(config, name)
        if value is not None and value.seconds <= 0:
            yield _camel(name), f'must be longer than zero, got "{value}"'
    for at, domain in (("trustDomain", config.trust_domain), *_indexed("trustDomainAliases", config)):
        if domain and not _DOMAIN.match(domain):
            yield at, f'"{domain}" is not a trust domain; write it like a DNS name, "{TRUST_DOMAIN}"'
    if config.access_log_format:
        for says in operators.problems(config.access_log_format):
            yield "accessLogFormat", says
    seen: set[str] = set()
    for i, provider in enumerate(config.extension_providers):
        yield from _provider(provider, f"extensionProviders[{i}]")
        if provider.name in seen:
            yield f"extensionProviders[{i}].name", f'there is another provider "{provider.name}"'
        seen.add(provider.name)
    if config.default_config is not None:
        for where, says in _proxy(config.default_config):
            yield f"defaultConfig.{where}", says


def _indexed(name: str, config: MeshConfig) -> Iterator[tuple[str, str]]:
    yield from ((f"{name}[{i}]", alias) for i, alias in enumerate(config.trust_domain_aliases))


def _port(path: str, value: int | None, zero: bool = False) -> Findings:
    if value is not None and not (0 if zero else 1) <= value <= _MAX_PORT:
        yield path, f"{value} is not a port; ports are 1 to {_MAX_PORT}"


def _provider(provider: ExtensionProvider, path: str) -> Findings:
    if not provider.name:
        yield f"{path}.name", "a provider needs a name, by which policies refer to it"
    given = [k for k in _KINDS if getattr(provider, k) is not None]
    if len(given) != 1:
        what = ", ".join(_camel(k) for k in given) or "none"
        yield path, f"exactly one provider must be set, as in envoyExtAuthzGrpc: {{…}}; set are: {what}"
    for kind in given:
        found: Any = getattr(provider, kind)
        service = getattr(found, "service", None)
        if service is not None and not service:
            yield (
                f"{path}.{_camel(kind)}.service",
                f"a service is required, as in {service_host('ext-authz', 'default')}",
            )
        yield from _port(f"{path}.{_camel(kind)}.port", getattr(found, "port", None))


def _proxy(config: ProxyConfig) -> Findings:
    if config.concurrency is not None and config.concurrency < 0:
        yield "concurrency", f"must be 0 (all processors) or a number of threads, got {config.concurrency}"
    for name in ("status_port", "proxy_admin_port"):
        yield from _port(_camel(name), getattr(config, name), zero=True)
    for name in ("drain_duration", "termination_drain_duration"):
        value = getattr(config, name)
        if value is not None and value.seconds < 0:
            yield _camel(name), f'must not be negative, got "{value}"'
    if config.gateway_topology is not None and config.gateway_topology.num_trusted_proxies < 0:
        yield "gatewayTopology.numTrustedProxies", "must not be negative"


RULES: dict[type[Config], Callable[[Any], Iterable[tuple[str, str]]]] = {MeshConfig: _mesh, ProxyConfig: _proxy}
