"""Who istiod is, whose identities it certifies, and which roots everybody trusts: the components, wired."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from lateen.ads import rpc
from lateen.ads.debug import NotAnswered
from lateen.api import kinds
from lateen.ca.authority import Refused
from lateen.control import serving
from lateen.control.ca_service import CaService
from lateen.control.external import External, cluster_roots
from lateen.control.plane import Control
from lateen.control.remotes import Remotes
from lateen.control.roots import Roots
from lateen.control.settings import Settings
from lateen.control.trust import Trust
from lateen.kit import tasks
from lateen.kit.jsons import Json
from lateen.kube.client import Client, KubeError
from lateen.kube.informer import Key
from lateen.mesh import workloads


class Identities:
    """``ca`` signs, ``certificate`` is istiod's own, ``trust`` distributes roots, ``remotes`` are other clusters."""

    def __init__(
        self,
        settings: Settings,
        client: Client,
        roots: Roots,
        control: Control,
        leads: Callable[[], bool],
        namespaces: Callable[[], Mapping[Key, Json]],
    ) -> None:
        """``leads``: whether this istiod is the leader. ``namespaces``: those that the informer knows."""
        self._settings, self._control, self._roots = settings, control, roots
        self._leads, self._namespaces = leads, namespaces
        self._learned = False
        """Whether the additional trusted roots are known."""
        authority, clusters = roots.authority, control.world.clusters
        self.trust = Trust(
            client,
            settings.revision,
            lambda: authority.told,
            lambda: list(namespaces().values()) if leads() else None,
            roots.distributed,
            control.measures,
            settings.namespace,
            control.world.revisions,
        )
        self.remotes = Remotes(clusters, settings.cluster.name, settings.namespace, self.trust.teller, self.trust.wake)
        self.trust.others, self.trust.unread = self.remotes.tellers, self.remotes.unread
        self.certificate = serving.Certificate(authority, settings.host_names, settings.identity)
        roots.changed += [self.certificate.replace, self.trust.wake]
        roots.measure(control.measures)
        self.external = External(client, settings.signers, self._roots_of) if settings.signers else None
        self.ca = CaService(
            client,
            authority,
            settings.trust_domain,
            settings.certificate_ttl,
            self.external,
            control.measures,
            control.registrar.admits,
            lambda: control.world.objects.config.transport.aliases,
            self._described,
            clusters,
        )

    def learned(self) -> None:
        """Called once all objects that roots depend on are known."""
        self._learned = True
        self.configured()
        self._tell(self._namespaces().values())

    def configured(self) -> None:
        """Called when the mesh configuration may have changed."""
        self._roots.also(self._roots_of(""), self._control.world.mesh_config.settings.trust.domains)

    def changed(self, kind: kinds.Kind, key: Key, new: Json | None) -> None:
        """Handle an informer's event: new namespaces get the roots, altered ConfigMaps of roots are restored."""
        if kind is kinds.NAMESPACE and new is not None and self._learned:
            self._tell([new])
        elif kind is kinds.CONFIG_MAP and self._leads() and self.trust.altered(key, new):
            self._tell(n for k, n in self._namespaces().items() if k[1] == key[0])

    def secret(self, name: str, new: Json | None) -> None:
        """Handle an event of a Secret in the control plane's namespace: a CA, or access to another cluster."""
        self._roots.secret(name, new)
        self._control.world.clusters.secret(name, new)

    async def whose(self, token: str) -> str:
        """The identity of a token's owner. Raises NotAnswered."""
        try:
            return str(await self.ca.whose(token))
        except Refused as e:
            raise NotAnswered(rpc.Status.UNAUTHENTICATED, str(e)) from None
        except (KubeError, OSError) as e:
            raise NotAnswered(rpc.Status.UNAVAILABLE, f"the token cannot be verified at the moment: {e}") from None

    def _tell(self, namespaces: Iterable[Json]) -> None:
        for namespace in namespaces:
            tasks.spawn(self.trust.namespace(namespace), "root certificates")

    def _roots_of(self, signer: str) -> str:
        """The roots that verify certificates of an external signer; an empty name: of any."""
        anchors = self._control.world.mesh_config.settings.trust.anchors
        found = [a.pem for a in anchors if not (signer and a.signers) or signer in a.signers]
        asked = signer or (self._settings.signers.default if self._settings.signers else "")
        return "".join([*found, cluster_roots() if asked.startswith("kubernetes.io/") else ""])

    def _described(self, cluster: str, namespace: str, name: str) -> str:
        objects = self._control.world.objects
        there = objects.others.get(cluster) if cluster else objects
        pod = there.pods.get((namespace, name)) if there else None
        return workloads.said(pod, cluster or self._control.mesh().cluster.name)
