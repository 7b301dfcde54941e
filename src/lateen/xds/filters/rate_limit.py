"""Local rate limits at the ports of workloads and at gateways (their configuration is in ``xds.rate_limits``).

At a workload's ports they are in a slot, which is always there: no limit drains a listener, nor does the first one of a
port (but for the first one about paths, which changes how they are normalized). At gateways the filters are off, but
for the routes that have limits.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from envoy.config.core.v3 import extension_pb2

from lateen.api import envoy_gateway as eg
from lateen.mesh.inbound_view import InboundPort
from lateen.mesh.outbound_view import Limits
from lateen.mesh.protocols import REQUESTS
from lateen.wire import names
from lateen.wire.resource import Resource
from lateen.xds import pb
from lateen.xds.filters.chain import HttpFilter, Requests, Screen, http_filter
from lateen.xds.filters.several import several
from lateen.xds.filters.slots import slot
from lateen.xds.rate_limits import ENFORCED, SHADOW, SLOT, config, nothing

AT_GATEWAY = (ENFORCED, SHADOW)


def enforced(limits: Limits) -> bool:
    """Whether some requests may be refused."""
    return any(not rule.shadow_mode for p in limits for rule in (*eg.rules(p.spec), *eg.quotas(p.spec)))


def paths(screen: Screen, limits: Iterable[Limits]) -> str:
    """How paths are normalized where these limits apply: one for ``/login`` must not let ``//login`` pass."""
    found = (rule for some in limits for p in some for rule in (*eg.rules(p.spec), *eg.quotas(p.spec)))
    about = any(c.path is not None for rule in found for c in rule.client_selectors)
    return screen.strict_paths if about else screen.paths


def http(chain: Requests) -> list[HttpFilter]:
    if chain.kind == "gateway":
        return [http_filter(name, nothing(name), disabled=True) for name in chain.limits]
    return [slot(name, chain.workload) for name in chain.limits]


def slots(port: InboundPort) -> tuple[str, ...]:
    """The name of a port's slot, if it takes requests."""
    return (f"{SLOT}/{port.port.number}",) if port.port.protocol in REQUESTS else ()


def extensions(port: InboundPort, workload: str = "") -> Iterator[Resource]:
    """The content of a port's slot."""
    for at in slots(port):
        made = ((kind, config(port.limits, kind)) for kind in (ENFORCED, SHADOW))
        found = [(kind, pb.any_of(limit)) for kind, limit in made if limit is not None]
        # a composite filter costs as much as the limit itself
        held = found[0][1] if len(found) == 1 else several(found)
        name = names.of_workload(at, workload)
        message = extension_pb2.TypedExtensionConfig(name=name, typed_config=held)
        yield pb.resource(name, message, tuple(str(p.ref) for p in port.limits))
