"""Authorization of certificate orders: only the namespace that serves a host may order for it. Pure.

Every gateway answers an ACME server for every host that is ordered, so the CA cannot tell which namespace a host
belongs to. Without this rule, any namespace could obtain a certificate for the host of another one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from lateen.api import objects as o
from lateen.api.gateway_api.gateway import Listener
from lateen.api.networking.gateway import Gateway
from lateen.api.validate.scalars import within
from lateen.mesh.objects import Key, Objects
from lateen.mesh.selecting import has_labels

ANY = "*"


def unserved(objects: Objects, secret: Key, root: str, names: Iterable[str]) -> list[str]:
    """The names that may not be ordered for a Certificate's Secret (namespace, name). A namespace serves the hosts of
    its Gateways, ListenerSets and Ingresses (an absent host means any), and those hosts of Gateways elsewhere whose
    TLS settings name the Secret. ``root``: the namespace of the mesh's administrators."""
    own, named = set(_own(objects, secret[0])), set(_naming(objects, secret, root)) - {ANY}
    return [n for n in names if not any(within(n, wider) for wider in own | named)]


def _own(objects: Objects, namespace: str) -> Iterator[str]:
    for gateway in objects.gateways.values():
        if gateway.ref.namespace == namespace:
            for server in gateway.spec.servers:
                yield from _hosts(server.hosts)
    for space, listeners in _listeners(objects):
        if space == namespace:
            yield from (_host(li.hostname) for li in listeners)
    for ingress in objects.ingresses.values():
        if ingress.ref.namespace == namespace:
            if ingress.spec.default_backend is not None:
                yield ANY
            yield from (_host(rule.host) for rule in ingress.spec.rules)
            for tls in ingress.spec.tls:
                yield from map(_host, tls.hosts)


def _naming(objects: Objects, secret: Key, root: str) -> Iterator[str]:
    """Hosts of Gateways in any namespace that refer to the Secret. An Istio Gateway refers to it by name only, in the
    workload's namespace."""
    for gateway in objects.gateways.values():
        found = [s for s in gateway.spec.servers if s.tls is not None and secret[1] in s.tls.secrets]
        if found and _at_work(objects, gateway, secret[0], root):
            for server in found:
                yield from _hosts(server.hosts)
    for space, listeners in _listeners(objects):
        for li in listeners:
            refs = li.tls.certificate_refs if li.tls else ()
            if any(r.kind == "Secret" and (r.namespace or space, r.name) == secret for r in refs):
                yield _host(li.hostname)


def _at_work(objects: Objects, gateway: o.Resource[Gateway], namespace: str, root: str) -> bool:
    """Whether a Gateway is served by workloads of a namespace: for the root namespace some suffice, for any other it
    must be only these, because anybody can start a pod with the labels that a Gateway selects. Without a selector,
    all gateways serve it."""
    wanted = gateway.spec.selector
    spaces = {p.namespace for p in objects.pods.values() if (wanted or p.gateway) and has_labels(wanted, p.label_map)}
    return namespace in spaces and (namespace == root or spaces == {namespace})


def _listeners(objects: Objects) -> Iterator[tuple[str, Sequence[Listener]]]:
    for gateway in objects.kubernetes_gateways.values():
        yield gateway.ref.namespace, gateway.spec.listeners
    for more in objects.listener_sets.values():
        yield more.ref.namespace, more.spec.listeners


def _hosts(hosts: Iterable[str]) -> Iterator[str]:
    """A server's hosts, without the namespace prefixes (``shop/a.test``)."""
    return (_host(h.rpartition("/")[2]) for h in hosts)


def _host(text: str | None) -> str:
    return (text or ANY).lower()
