"""Implements Services on the node: NAT rules, DNS names and host ports, from the objects in the API."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import Mapping, Sequence
from typing import Protocol

from lateen.api import kinds
from lateen.api.kinds import Kind
from lateen.api.reading import HOST_PORTS
from lateen.cluster.controllers import pod_ports, serving
from lateen.cluster.network import plan, portal, services
from lateen.kit.jsons import Json, dig
from lateen.kube.client import Client, KubeError
from lateen.kube.informer import Informer, Key

log = logging.getLogger("lateen.controllers.proxy")

HOST = "127.0.0.1"
MAX_ALIASES = 8
AGAIN_S = 1.0
"""Seconds until what has failed is tried again."""
FALLBACK = 8000
"""A LoadBalancer port below 1024 that is not available is tried again this much higher (80 -> 8080 is 80 + 8000)."""


class Events(Protocol):
    def event(self, obj: Json, type_: str, reason: str, message: str, path: str = "") -> None: ...


class Proxy:
    def __init__(
        self,
        client: Client,
        forwarder: portal.Forwarder,
        events: Events,
        outside: str = "",
        neighbours: Sequence[str] = (),
        outbound: bool = False,
    ) -> None:
        """``outside``: the address where neighbours find LoadBalancer services; ``neighbours``: their addresses;
        ``outbound``: pods have a way out of the machine."""
        self._outbound = outbound
        self._outside, self._neighbours = outside, neighbours
        self.behind: dict[tuple[str, int, str], int] = {}
        """See ``neighbours.Ways``."""
        self._client, self._forwarder, self._events = client, forwarder, events
        self._services = Informer(client, kinds.SERVICE, self._changed)
        self._slices = Informer(client, kinds.ENDPOINT_SLICE, self._changed)
        self._pods = Informer(client, kinds.POD, self._pod_changed)
        self._namespaces = Informer(client, kinds.NAMESPACE, lambda *_: None)
        self._dirty = asyncio.Event()
        self._installed = ""
        self._sticks: bool | None = None
        self._told: set[tuple[str, int]] = set()
        self._chosen: dict[tuple[str, str, int, str], int] = {}
        """(host's address, service's address, its port, protocol) -> the host's port"""
        self._hosts: dict[str, str] = {}
        """uid of a Service -> the host's address"""
        self._with_ports: dict[Key, Json] = {}
        """Pods that ask for ports of the node."""
        self._names: dict[str, list[str]] = {}
        self._beyond: dict[str, str] = {}
        """ExternalName services whose targets are outside of the cluster."""
        self._srv: dict[str, list[tuple[int, str]]] = {}
        self._reverse: dict[str, str] = {}

    def _changed(self, _: Kind, __: Key, ___: Json | None, ____: Json | None) -> None:
        self._dirty.set()

    def _pod_changed(self, _: Kind, key: Key, old: Json | None, new: Json | None) -> None:
        """Named headless pods (hostname and subdomain) are in DNS; others have ports of the node."""
        if any(dig(p, "spec", "subdomain") or pod_ports.asks(p) for p in (old, new)):
            self._dirty.set()
        self._with_ports.pop(key, None)
        if new is not None and pod_ports.asks(new):
            self._with_ports[key] = new

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for informer in (self._services, self._slices, self._pods, self._namespaces):
                group.create_task(informer.run(), name=f"proxy informer {informer.kind.plural}")
            await asyncio.gather(self._services.synced.wait(), self._slices.synced.wait())
            self._dirty.set()
            while True:
                await self._dirty.wait()
                self._dirty.clear()
                try:
                    await self._sync()
                except (OSError, TimeoutError) as e:
                    log.error("service rules could not be written: %s", e)
                    asyncio.get_running_loop().call_later(AGAIN_S, self._dirty.set)
                await asyncio.sleep(0.02)

    async def _sync(self) -> None:
        ports: list[services.ServicePort] = []
        names: dict[str, list[str]] = {}
        srv: dict[str, list[tuple[int, str]]] = {}
        reverse: dict[str, str] = {}
        known = serving.by_service(self._slices.objects.values())
        for (namespace, name), service in self._services.objects.items():
            endpoints = known.get((namespace, name), [])
            fqdn = f"{name}.{namespace}.svc.{plan.DOMAIN}"
            address = dig(service, "spec", "clusterIP", default="")
            if address and address != "None":
                ports += _ports(service, address, endpoints, await self._sticky_s(service), self._outside)
                names[fqdn] = [address]
                reverse[address] = fqdn
            elif address == "None":
                ready = [e for e in endpoints if e.ready]
                names[fqdn] = list(dict.fromkeys(e.address for e in ready))
                for e in ready:
                    host = f"{e.host or e.address.replace('.', '-')}.{fqdn}"
                    names[host] = [e.address]
                    if e.host:
                        reverse[e.address] = host
                    for port_name, protocol, number in e.ports:
                        if port_name:
                            service_name = f"_{port_name}._{protocol.lower()}.{fqdn}"
                            srv.setdefault(service_name, []).append((number, host))
                continue
            for p in dig(service, "spec", "ports", default=[]):
                if p.get("name"):
                    srv[f"_{p['name']}._{p['protocol'].lower()}.{fqdn}"] = [(p["port"], fqdn)]
        asked = pod_ports.asked(self._with_ports.values())
        own = pod_ports.of(asked)
        ports += [services.ServicePort(plan.NODE_IP, p.protocol, p.port, (p.target,)) for p in own]
        names |= self._aliases(names)
        self._names, self._srv, self._reverse = names, srv, reverse
        self.behind.clear()
        self.behind.update(behind(ports, self._neighbours))
        text = services.rules(ports, self._neighbours, self._outbound)
        if text != self._installed:
            await services.install(text)
            self._installed = text
        await self._host_ports(asked)

    async def _sticky_s(self, service: Json) -> int:
        if dig(service, "spec", "sessionAffinity") != "ClientIP":
            return 0
        if self._sticks is None:
            self._sticks = await services.can_stick()
        key = (str(service["metadata"]["uid"]), -1)
        if not self._sticks and key not in self._told:
            self._told.add(key)
            says = "this kernel cannot remember clients (iptables' match recent): sessionAffinity has no effect"
            self._events.event(service, "Warning", "SessionAffinityUnavailable", says)
        asked = int(dig(service, "spec", "sessionAffinityConfig", "clientIP", "timeoutSeconds", default=0))
        return asked if self._sticks else 0

    def _aliases(self, names: dict[str, list[str]]) -> dict[str, list[str]]:
        """ExternalName services have the addresses of their targets, also over several steps."""
        targets = {
            f"{name}.{namespace}.svc.{plan.DOMAIN}": str(dig(service, "spec", "externalName", default="")).rstrip(".")
            for (namespace, name), service in self._services.objects.items()
            if dig(service, "spec", "type") == "ExternalName"
        }
        out, self._beyond = {}, {}
        for alias in targets:
            at, steps = alias, 0
            while at in targets and steps < MAX_ALIASES:
                at, steps = targets[at], steps + 1
            if at in names:
                out[alias] = names[at]
            elif at and at not in targets and not at.endswith(f".{plan.DOMAIN}"):
                self._beyond[alias] = at
        return out

    # --- DNS -------------------------------------------------------------------------------------------------

    def lookup(self, name: str) -> list[str] | None:
        return self._names.get(name)

    def reverse(self, address: str) -> str | None:
        return self._reverse.get(address)

    def alias(self, name: str) -> str | None:
        return self._beyond.get(name)

    def srv(self, name: str) -> list[tuple[int, str]]:
        return self._srv.get(name, [])

    def has(self, namespace: str) -> bool:
        """Until the namespaces are known, each is taken for one."""
        return not self._namespaces.synced.is_set() or ("", namespace) in self._namespaces.objects

    # --- host ports ------------------------------------------------------------------------------------------

    async def _host_ports(self, of_pods: list[pod_ports.PodPort]) -> None:
        wanted: set[portal.Place] = set()
        services = list(self._services.objects.values())
        outside = [s for s in services if dig(s, "spec", "type") in ("NodePort", "LoadBalancer")]
        balanced = {s["metadata"]["uid"]: s for s in outside if s["spec"]["type"] == "LoadBalancer"}
        self._hosts = hosts(balanced, self._hosts)
        for service in outside:
            address, opened = service["spec"]["clusterIP"], {}
            host = self._hosts.get(service["metadata"]["uid"], "")
            for p in service["spec"]["ports"]:
                target, protocol = (address, int(p["port"])), str(p.get("protocol", "TCP"))
                if protocol not in ("TCP", "UDP"):
                    continue
                if p.get("nodePort"):
                    await self._open(service, (HOST, int(p["nodePort"]), protocol), target, wanted)
                if host:
                    opened[target[1], protocol] = await self._load_balancer(service, host, protocol, target, wanted)
            if service["metadata"]["uid"] in balanced:
                await self._report(service, host, opened)
        for service in services:
            had = dig(service, "metadata", "annotations", HOST_PORTS)
            if had is not None and service["metadata"]["uid"] not in balanced:
                await self._withdraw(service)
        for p in of_pods:
            if p.host and p.protocol in ("TCP", "UDP"):
                await self._open(p.pod, (p.host, p.port, p.protocol), p.target, wanted)
        for place in self._forwarder.opened() - wanted:
            self._forwarder.close(place)

    async def _load_balancer(
        self, service: Json, host: str, protocol: str, target: portal.Target, wanted: set[portal.Place]
    ) -> int:
        """The service's own port on the host, else one 8000 higher, else any free one; then always the same."""
        at, sources = (host, *target, protocol), source_ranges(service)
        known = self._chosen.get(at)
        for port in (known,) if known else (target[1], target[1] + FALLBACK, 0):
            if port < 65536 and (found := await self._open(service, (host, port, protocol), target, wanted, sources)):
                self._chosen[at] = found
                return found
        return 0

    async def _open(
        self,
        obj: Json,
        place: portal.Place,
        target: portal.Target,
        wanted: set[portal.Place],
        sources: tuple[portal.Network, ...] = (),
    ) -> int:
        """The port that was opened; 0 if it is not available."""
        host, port, protocol = place
        if place in wanted:
            self._unavailable(obj, port, target, f"port {port} on {host} is that of another Service or pod")
            return 0
        try:
            found = await self._forwarder.open(host, port, target, protocol, sources)
            wanted.add((host, found, protocol))
            return found
        except (OSError, TimeoutError) as e:
            self._unavailable(obj, port, target, portal.explain(e, host, port))
            return 0

    def _unavailable(self, obj: Json, port: int, target: portal.Target, why: str) -> None:
        key = (str(obj["metadata"]["uid"]), port)
        if key in self._told:
            return
        self._told.add(key)
        pod = obj["kind"] == "Pod"
        then = "the pod has no port on this machine" if pod else f"port {target[1]} of the service gets another one"
        self._events.event(obj, "Warning", "HostPortUnavailable", f"{why}; {then}")

    async def _report(self, service: Json, host: str, opened: dict[tuple[int, str], int]) -> None:
        """A Service that requests an address that this machine does not have gets none, as from a load balancer that
        waits for it."""
        ports = [{"port": found, "protocol": protocol} for (_, protocol), found in sorted(opened.items())]
        names = {"hostname": "localhost"} if host == HOST else {}
        ingress = [{**names, "ip": host, "ports": ports}] if host else []
        if self._outside:
            ingress.append({"ip": self._outside})
        listed = ",".join(f"{p}={h}" for (p, protocol), h in sorted(opened.items()) if protocol == "TCP")
        if dig(service, "status", "loadBalancer", "ingress", default=[]) != ingress:
            await self._write(service, {"status": {"loadBalancer": {"ingress": ingress}}}, "status")
        if dig(service, "metadata", "annotations", HOST_PORTS) != listed:
            await self._write(service, {"metadata": {"annotations": {HOST_PORTS: listed}}})

    async def _withdraw(self, service: Json) -> None:
        """A Service that is of another type now has no address outside of the cluster any more."""
        if await self._write(service, {"status": {"loadBalancer": {"ingress": None}}}, "status"):
            await self._write(service, {"metadata": {"annotations": {HOST_PORTS: None}}})

    async def _write(self, service: Json, change: Json, part: str = "") -> bool:
        """False if it has to be tried again: a webhook or policy may refuse what is written about one Service, which
        must not keep the others from their ports."""
        meta = service["metadata"]
        try:
            await self._client.patch(kinds.SERVICE, meta["namespace"], meta["name"], change, part)
        except KubeError as e:
            if e.code != 404:
                log.warning("the addresses of the service %s/%s: %s", meta["namespace"], meta["name"], e)
                asyncio.get_running_loop().call_later(AGAIN_S, self._dirty.set)
                return False
        return True


def behind(ports: Sequence[services.ServicePort], neighbours: Sequence[str]) -> dict[tuple[str, int, str], int]:
    """See ``neighbours.Ways``, which carry TCP: the ports at neighbours to which the rules of services lead. Pure."""
    out: dict[tuple[str, int, str], int] = {}
    for p in services.served(ports):
        for address, port in p.backends if p.protocol == "TCP" else ():
            if address in neighbours:
                out.setdefault((p.address, p.port, address), port)
    return out


def hosts(services: Mapping[str, Json], known: Mapping[str, str]) -> dict[str, str]:
    """By uid: the host's address of each Service of type LoadBalancer; empty for one that asks for an address that is
    no loopback address. Pure.

    One Service has 127.0.0.1, where users look first: the one that has it already, else the oldest. The others have one
    that ends as their cluster address does, 127.96.0.7 for 10.96.0.7, so that each may have the ports 80 and 443.
    """
    out: dict[str, str] = {}
    for key, service in services.items():
        asked = str(dig(service, "spec", "loadBalancerIP") or "")
        reported = dig(service, "status", "loadBalancer", "ingress", 0, "ip", default="")
        if asked:
            out[key] = asked if _is_loopback(asked) else ""
        elif had := known.get(key) or (str(reported) if _is_loopback(str(reported)) else ""):
            out[key] = had
    free = HOST not in out.values()
    waiting = [k for k in services if k not in out]
    for key in sorted(waiting, key=lambda k: (services[k]["metadata"].get("creationTimestamp", ""), k)):
        out[key] = HOST if free else f"127.{services[key]['spec']['clusterIP'].partition('.')[2]}"
        free = False
    return out


def source_ranges(service: Json) -> tuple[portal.Network, ...]:
    """``loadBalancerSourceRanges``: of the load balancer only, as in Kubernetes; node ports are open to all."""
    given = service["spec"].get("loadBalancerSourceRanges") or []
    return tuple(ipaddress.ip_network(str(s).strip(), strict=False) for s in given)


def _is_loopback(text: str) -> bool:
    try:
        return ipaddress.IPv4Address(text).is_loopback
    except ValueError:
        return False


def _ports(
    service: Json, address: str, endpoints: list[serving.Endpoint], sticky_s: int, outside: str
) -> list[services.ServicePort]:
    out = []
    balanced = [outside] if outside and service["spec"].get("type") == "LoadBalancer" else []
    for p in service["spec"].get("ports") or []:
        protocol = p.get("protocol", "TCP")
        backends = serving.backends(endpoints, str(p.get("name") or ""), protocol)
        for at in (address, *(service["spec"].get("externalIPs") or []), *balanced):
            out.append(services.ServicePort(at, protocol, int(p["port"]), backends, sticky_s))
        if p.get("nodePort"):
            out.append(services.ServicePort(plan.NODE_IP, protocol, int(p["nodePort"]), backends, sticky_s))
    return out
