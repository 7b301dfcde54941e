"""NetworkPolicies as rules of the node's namespace: every packet between pods is routed there, after the addresses of
services have been replaced by those of pods, and no container can change the rules.

The table ``mangle`` is theirs alone, so that they and the rules of services are replaced independently.
Semantics: https://kubernetes.io/docs/concepts/services-networking/network-policies/. Connections that a policy admitted
stay when it changes. Traffic of the node itself (probes, the API server, whatever comes in from the host) is not
restricted.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from lateen.cluster.network import plan
from lateen.kit import jsons, selectors
from lateen.kit.jsons import Json, dig

MAIN = "LATEEN-POLICIES"


@dataclass(frozen=True)
class Peer:
    """Something with an address that policies select. ``ports``: (name, protocol, number). ``node``: it is a program of
    the node, so that packets for it are not forwarded."""

    namespace: str
    address: str
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    ports: tuple[tuple[str, str, int], ...] = ()
    node: bool = False


DNS = Peer("kube-system", plan.DNS_IP, {"k8s-app": "kube-dns"}, (("dns", "UDP", 53), ("dns-tcp", "TCP", 53)), node=True)
"""The cluster's DNS server, which policies know as the pod that it is in other clusters."""


def rules(
    pods: Sequence[Peer],
    namespaces: Mapping[str, Mapping[str, str]],
    policies: Sequence[Json],
    sctp: bool = True,
    neighbours: Sequence[str] = (),
) -> str:
    """The table in the format of iptables-restore. Pure. ``namespaces``: their labels by name; ``neighbours``: the
    addresses of other clusters, to which the node passes connections on.

    Without ``sctp`` the kernel cannot tell ports of SCTP, and what policies admit of it is dropped, too.
    """
    judge = _Judge([*pods, DNS], namespaces, sctp)
    chains: dict[str, list[str]] = {}
    main = []
    for peer in judge.peers:
        jumps = [
            f"-A {MAIN} {flag} {peer.address}/32 -j {_chain(lines, chains)}"
            for direction, flag in (("Egress", "-s"), ("Ingress", "-d"))
            if not (peer.node and direction == "Egress")
            if (lines := judge.admitted(peer, policies, direction)) is not None
        ]
        if jumps:
            main += [f"-A {MAIN} -s {peer.address}/32 -d {peer.address}/32 -j RETURN", *jumps]
    out = ["*mangle", ":PREROUTING ACCEPT [0:0]", ":FORWARD ACCEPT [0:0]", ":INPUT ACCEPT [0:0]"]
    if main:
        out += [f":{name} - [0:0]" for name in (MAIN, *chains)]
        out += [f"-A FORWARD -j {MAIN}", f"-A INPUT -d {plan.DNS_IP}/32 -j {MAIN}"]
        # On the way to a neighbour the port is rewritten, so that these are judged before.
        out += [f"-A PREROUTING -d {address}/32 -j {MAIN}" for address in neighbours]
        out += [f"-A {MAIN} -m conntrack --ctstate ESTABLISHED,RELATED -j RETURN"]
        out += [f"-A {MAIN} -s {address}/32 -j RETURN" for address in (plan.NODE_IP, plan.DNS_IP)]
        out += main
        for name, lines in chains.items():
            out += [*(f"-A {name} {line}-j RETURN" for line in lines), f"-A {name} -j DROP"]
    return "\n".join([*out, "COMMIT", ""])


def _chain(lines: list[str], chains: dict[str, list[str]]) -> str:
    """Pods with identical policy rules share a chain."""
    name = f"LNP-{hashlib.sha256(jsons.dumps(lines)).hexdigest()[:16].upper()}"
    chains[name] = lines
    return name


def directions(policy: Json) -> list[str]:
    """``policyTypes`` with its default."""
    spec = policy.get("spec") or {}
    return spec.get("policyTypes") or ["Ingress", *(["Egress"] if spec.get("egress") else [])]


class _Judge:
    def __init__(self, peers: list[Peer], namespaces: Mapping[str, Mapping[str, str]], sctp: bool) -> None:
        self.peers, self._namespaces, self._sctp = peers, namespaces, sctp

    def admitted(self, pod: Peer, policies: Sequence[Json], direction: str) -> list[str] | None:
        """The matches of what may come in or go out; None if no policy isolates the pod in this direction."""
        own = [p for p in policies if direction in directions(p) and self._isolates(p, pod)]
        if not own:
            return None
        key = direction.lower()
        given = (
            (dig(p, "metadata", "namespace", default=""), rule) for p in own for rule in dig(p, "spec", key, default=[])
        )
        return sorted({line for namespace, rule in given for line in self._lines(pod, namespace, rule, direction)})

    def _isolates(self, policy: Json, pod: Peer) -> bool:
        selector = dig(policy, "spec", "podSelector", default={})
        return policy["metadata"]["namespace"] == pod.namespace and selectors.matches(selector, pod.labels)

    def _lines(self, pod: Peer, namespace: str, rule: Json, direction: str) -> Iterator[str]:
        incoming = direction == "Ingress"
        flag, given = ("-s", rule.get("from")) if incoming else ("-d", rule.get("to"))
        there = list(self._networks(namespace, given or []))
        for port in rule.get("ports") or [None]:
            named = port is not None and isinstance(port.get("port"), str)
            if named and not incoming:  # a name means another number at each of the peers
                for peer in self._named(namespace, given or []):
                    yield from (f"-d {peer.address}/32 {p}" for p in self._ports(port, peer))
                continue
            for match in self._ports(port, pod) if port is not None else [""]:
                yield from (f"{flag} {net} {match}" for net in there) if given else [match]

    def _ports(self, port: Json, at: Peer) -> Iterator[str]:
        protocol = str(port.get("protocol") or "TCP")
        if protocol == "SCTP" and not self._sctp:
            return
        wanted, proto = port.get("port"), protocol.lower()
        if wanted is None:
            yield f"-p {proto} "
        elif isinstance(wanted, str):
            yield from (f"-p {proto} --dport {n} " for name, p, n in at.ports if (name, p) == (wanted, protocol))
        else:
            yield f"-p {proto} --dport {wanted}{':' + str(port['endPort']) if port.get('endPort') else ''} "

    def _named(self, namespace: str, given: list[Json]) -> list[Peer]:
        return [p for p in self.peers if not given or any(self._selects(namespace, one, p) for one in given)]

    def _networks(self, namespace: str, given: list[Json]) -> Iterator[str]:
        for one in given:
            if block := one.get("ipBlock"):
                yield from map(str, without(str(block["cidr"]), tuple(map(str, block.get("except") or []))))
            else:
                yield from (f"{p.address}/32" for p in self.peers if self._selects(namespace, one, p))

    def _selects(self, namespace: str, one: Json, peer: Peer) -> bool:
        if one.get("ipBlock"):
            return False
        chosen = one.get("namespaceSelector")
        if chosen is None and peer.namespace != namespace:
            return False
        if chosen is not None and not selectors.matches(chosen, self._namespaces.get(peer.namespace) or {}):
            return False
        return "podSelector" not in one or selectors.matches(one["podSelector"], peer.labels)


@lru_cache(maxsize=1024)
def without(cidr: str, excluded: tuple[str, ...]) -> tuple[ipaddress.IPv4Network, ...]:
    """A network less some of its parts; empty for one of IPv6, which no pod has an address of."""
    try:
        whole = ipaddress.IPv4Network(cidr, strict=False)
    except ValueError:
        return ()
    out: list[ipaddress.IPv4Network] = []
    first, last = int(whole.network_address), int(whole.broadcast_address)
    for part in sorted(ipaddress.IPv4Network(text, strict=False) for text in excluded):
        start, end = int(part.network_address), int(part.broadcast_address)
        if start > first:
            out += _networks(first, min(start - 1, last))
        first = max(first, end + 1)
    return tuple(out + _networks(first, last))


def _networks(first: int, last: int) -> list[ipaddress.IPv4Network]:
    if first > last:
        return []
    return list(ipaddress.summarize_address_range(ipaddress.IPv4Address(first), ipaddress.IPv4Address(last)))
