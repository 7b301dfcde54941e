"""What each connected proxy should have now."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from lateen.ads.peers import Connection
from lateen.api import objects as o
from lateen.control.clusters import Clusters, NotServed
from lateen.control.credentials import Credentials
from lateen.control.patching import Patching
from lateen.control.registration import Registrar
from lateen.control.sides import Sides, cluster_of
from lateen.kit.queries import Watch
from lateen.mesh.plugins import ModuleSource
from lateen.mesh.view import View
from lateen.mesh.views import Viewer, Views, viewer
from lateen.mesh.workloads import Proxy
from lateen.wire.node import ROUTER, NodeId
from lateen.wire.resource import Sets
from lateen.xds import proxyless
from lateen.xds.generate import generate, listeners_read_claims

Given = Mapping[str, Sets]
"""Type URL -> sets of resources"""


@dataclass(eq=False, slots=True)
class _Last:
    """What a proxy was offered last, as whom, and what that was made from."""

    views: Views
    watch: Watch
    """Fresh while all of it holds; only for proxies whose resources are made from the mesh alone."""
    viewer: Viewer | None = None
    view: View | None = None
    read: bool = False
    """Whether its listeners have ever read claims of tokens: those that it drains may still do."""
    sets: Given = field(default_factory=dict)


def may_be(kind: str, pod: o.Pod, identity: str) -> bool:
    """Whether a proxy with this identity, which says that it is of this kind (``wire.node``), may be that of a pod:
    gateways get Secrets of their namespace, which sidecars do not. It is asked for each offer, since pods may not be
    known yet when somebody connects in their name."""
    return identity.endswith(f"/ns/{pod.namespace}/sa/{pod.service_account}") and (kind != ROUTER or pod.gateway)


class Offering:
    def __init__(
        self,
        clusters: Clusters,
        sides: Sides,
        registrar: Registrar,
        credentials: Credentials,
        awaited: Callable[[], set[ModuleSource]],
        patching: Patching,
    ) -> None:
        """``awaited``: the modules of plugins that proxies may have already, and istiod has not yet."""
        self._clusters, self._sides, self._registrar = clusters, sides, registrar
        self._credentials, self._awaited, self._patching = credentials, awaited, patching

    def home(self, metadata: Mapping[str, str]) -> Views | None:
        """The mesh from the perspective of a proxy's cluster; None if the cluster is unknown (yet), or not served (any
        more)."""
        try:
            return self._sides.of(self._clusters.home(cluster_of(metadata)))
        except NotServed:
            return None

    def to(self, connection: Connection) -> Given:
        """Empty as long as it is not known what a proxy should have: nothing is sent then, and nothing removed."""
        views = self.home(connection.metadata)
        if views is None or not self._credentials.known(connection.node):
            return {}
        last = connection.kept if isinstance(connection.kept, _Last) else None
        if last is None or last.views is not views:
            self.forget(connection)
            connection.kept = last = _Last(views, Watch(views.queries))
        if last.watch.fresh() and not self._awaited():
            return last.sets
        node, machine = connection.node, self._registrar.workload(connection)
        with last.watch:
            pod = machine or views.mesh.objects.pods.get((node.namespace, node.pod))
            if pod is not None and not machine and not may_be(node.kind, pod, connection.identity):
                pod = None
            given = None if pod is None or self._awaits(pod) else self._made(connection, pod, last)
        if given is None or machine or last.view is None or last.view.patches:
            last.watch.close()
        return {} if given is None else given

    def _made(self, connection: Connection, pod: o.Pod, last: _Last) -> Given:
        if last.viewer is None or last.viewer.proxy.workloads[0] is not pod:
            last.viewer = viewer(Proxy(connection.node.kind, (pod,)), connection.metadata)
        view = last.views.seen_by(last.viewer, connection.metadata, last.view)
        if view is not last.view or view.patches:
            last.read = last.read or listeners_read_claims(view)
            last.sets = self._patching.sets(connection, view, generate(view, last.read))
            last.view = view
        return last.sets

    def _awaits(self, pod: o.Pod) -> bool:
        """Whether a proxy would lose a plugin, only because this istiod has not fetched its module yet."""
        awaited = self._awaited()
        if not awaited:
            return False
        own = self._sides.own.mesh
        return not awaited.isdisjoint(own.missing_modules(pod.namespace, pod.label_map))

    @staticmethod
    def forget(connection: Connection) -> None:
        """Called when a proxy has disconnected."""
        if isinstance(connection.kept, _Last):
            connection.kept.watch.close()
        connection.kept = None

    def proxyless(self, node: NodeId, metadata: Mapping[str, str], identity: str) -> Given:
        """What a gRPC client or server without a proxy should have; a server of an unknown pod has no listeners, nor
        has one with the ``identity`` of another account than the pod's."""
        views = self.home(metadata)
        if views is None:
            return {}
        pod = views.mesh.objects.pods.get((node.namespace, node.pod))
        found = proxyless.generate(views.outbound(node.namespace))
        if pod is None or not may_be(node.kind, pod, identity):
            return found
        return proxyless.with_servers(found, *views.served(pod))
