"""RequestAuthentications: a slot whose content is what ``xds.jwt`` makes of them."""

from __future__ import annotations

from envoy.config.core.v3 import extension_pb2

from lateen.kit.derived import held
from lateen.mesh.authentication import Authentication
from lateen.wire import names
from lateen.wire.resource import Resource
from lateen.xds import pb
from lateen.xds.filters.chain import HttpFilter, Requests
from lateen.xds.filters.slots import AUTHENTICATION, slot
from lateen.xds.jwt import configuration


def http(chain: Requests) -> list[HttpFilter]:
    return [] if chain.kind == "outbound" else [slot(AUTHENTICATION, chain.workload)]


def extension(found: Authentication, workload: str = "", gateway: bool = False) -> Resource:
    """The content of a workload's slot. ``gateway``: routes are chosen again once the claims are known."""
    return _resource(found, workload, gateway)


@held
def _resource(found: Authentication, workload: str, gateway: bool) -> Resource:
    name = names.of_workload(AUTHENTICATION, workload)
    message = extension_pb2.TypedExtensionConfig(name=name, typed_config=pb.any_of(configuration(found, gateway)))
    return pb.resource(name, message, tuple(str(p.ref) for p in found.policies))
