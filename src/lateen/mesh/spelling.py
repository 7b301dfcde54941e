"""The forms in which clients and rules write host names."""

from __future__ import annotations

from lateen.api.domain import service_host, service_suffix
from lateen.kit.digits import digits


def spellings(host: str, namespace: str, name: str, domain: str) -> tuple[str, ...]:
    """All forms in which clients write a service's name, in a cluster with this DNS domain. The full name is included
    with the trailing dot of an absolute DNS name, as in Istio (``ENABLE_ABSOLUTE_FQDN_VHOST_DOMAIN``)."""
    own = (host,) if host == "*" or _is_address(host) or host.endswith(".") else (host, f"{host}.")
    if host == service_host(name, namespace, domain):
        return (*own, name, f"{name}.{namespace}", f"{name}.{namespace}.svc")
    return own


def _is_address(host: str) -> bool:
    return ":" in host or digits(host.replace(".", ""))


def written(host: str, domain: str) -> tuple[str | tuple[str, str], ...]:
    """All forms in which rules may write a host (or a wildcard). A bare name means a service in the rule's own
    namespace, so it is included as (namespace, name)."""
    if host.startswith("*") or not host.endswith(f".{domain}"):
        return (host,)
    suffix = service_suffix(domain)
    if not host.endswith(suffix):
        return (host, host.removesuffix(f".{domain}"))
    short = host.removesuffix(suffix)
    name, _, namespace = short.partition(".")
    bare = ((namespace, name),) if namespace and "." not in namespace else ()
    return (host, f"{short}.svc", short, *bare)


def as_written(spelling: str | tuple[str, str]) -> str:
    return spelling if isinstance(spelling, str) else spelling[1]
