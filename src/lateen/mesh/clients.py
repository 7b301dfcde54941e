"""The viewer of the mesh: the properties of a client that affect what it sees."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from lateen.api import objects as o
from lateen.mesh.rules import Interest
from lateen.mesh.workloads import IPV4


@dataclass(frozen=True)
class Client:
    namespace: str = ""
    """Empty for a namespace that no object mentions."""
    labels: tuple[tuple[str, str], ...] = ()
    """Only the labels that some rule matches on."""
    sidecar: o.Ref | None = None
    locality: str = ""
    dns: bool = False
    """Whether hosts without an address get an automatic one."""
    gateway: bool = False
    network: str = ""
    certificate: str = ""
    """``namespace/name`` of the Secret with the client certificate that a gateway presents to backends."""
    captured: bool = True
    """Whether connections are redirected to its proxy; otherwise it binds the addresses of its listeners."""
    closed: frozenset[int] = frozenset()
    """Ports of services where its proxy must not listen, if it would: the application or the proxy itself does."""
    proxy_port: int = 0
    """The port of 127.0.0.1 where applications find an HTTP proxy; 0 for none."""
    families: str = IPV4
    """Those of its proxy's addresses (``Proxy``)."""

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        place = (self.namespace, self.sidecar, self.locality, self.network, self.certificate)
        return hash((place, self.labels, self.dns, self.gateway, self.captured, self.families))

    @property
    def label_map(self) -> Mapping[str, str]:
        return dict(self.labels)

    def reduced(self, interest: Interest) -> Client:
        """Drop irrelevant properties, so that clients that see the same things are equal."""
        return Client(
            self.namespace if self.namespace in interest.namespaces or (self.sidecar and interest.rules) else "",
            tuple(item for item in self.labels if item[0] in interest.labels) if interest.labels else (),
            self.sidecar if interest.rules else None,
            self.locality if interest.place else "",
            self.dns and interest.dns,
            self.gateway and interest.secrets,
            self.network if interest.network else "",
            self.certificate if interest.backends else "",
            families=self.families if interest.families else IPV4,
        )
