"""The ports of a proxy: those where it and its agent listen themselves, and the one of its HTTP proxy for applications.

Source: https://istio.io/latest/docs/ops/deployment/application-requirements/#ports-used-by-istio.
"""

from __future__ import annotations

from collections.abc import Mapping

from lateen.kit.digits import digits

OWN = frozenset((15000, 15001, 15006, 15020, 15021, 15053, 15090))
"""Where the proxy and its agent listen themselves; ``wire.ports`` has their names."""
HTTP_PROXY = "HTTP_PROXY_PORT"
"""What a proxy reports as the port of its own HTTP proxy, instead of the mesh's ``proxyHttpPort``."""
VARIABLE = f"ISTIO_META_{HTTP_PROXY}"
"""The variable of ``proxyMetadata`` that sets it."""


def unfit(port: int) -> str:
    """Why the HTTP proxy cannot have a port (0: there is none), or empty if it can."""
    if not 0 <= port < 1 << 16:
        return f"port number {port} must be in the range 1..65535"
    return f"the proxy itself listens at {port}; choose another port, for example 15007" if port in OWN else ""


def unfit_text(variables: Mapping[str, str]) -> str:
    """What is wrong with ``VARIABLE`` among the variables of a proxy; empty if nothing is, or if it is not set."""
    text = variables.get(VARIABLE, "")
    if not text:
        return ""
    return unfit(int(text)) if digits(text) else f'"{text[:80]}" is not the number of a port (0: no HTTP proxy)'


def chosen(metadata: Mapping[str, str]) -> int | None:
    """The port that a proxy reports; None if it has none of its own."""
    text = metadata.get(HTTP_PROXY, "")
    return int(text) if digits(text) and not unfit(int(text)) else None
