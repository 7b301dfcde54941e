"""A container's hostPort is a port of the node and of this machine."""

import asyncio
from types import SimpleNamespace

from lateen.cluster.controllers import pod_ports
from lateen.cluster.controllers.service_proxy import Proxy


def pod(name, *ports, address="10.244.0.9", phase="Running", created="2026-01-01T00:00:00Z", **spec):
    listed = [{"containerPort": c, "hostPort": h, **more} for c, h, more in ports]
    return {
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "n", "uid": name, "creationTimestamp": created},
        "spec": {"containers": [{"name": "c", "ports": [*listed, {"containerPort": 1}]}], **spec},
        "status": {"podIP": address, "phase": phase},
    }


def found(*pods):
    return [
        (p.pod["metadata"]["name"], p.host, p.port, p.protocol, p.target) for p in pod_ports.of(pod_ports.asked(pods))
    ]


class Forwarder:
    def __init__(self):
        self.targets = {}

    async def open(self, host, port, target, protocol, _=()):
        self.targets[host, port, protocol] = target
        return port

    def opened(self):
        return set(self.targets)


def test_a_pod_whose_port_somebody_else_has_is_told_so_once():
    events, forwarder = [], Forwarder()
    recorder = SimpleNamespace(event=lambda obj, *said: events.append((obj["metadata"]["name"], *said)))
    proxy = Proxy(None, forwarder, recorder)
    ports = [{"port": 80, "nodePort": 30080, "protocol": "TCP"}]
    meta = {"name": "s", "namespace": "n", "uid": "s"}
    spec = {"type": "NodePort", "clusterIP": "10.96.0.7", "ports": ports}
    proxy._services.objects["n", "s"] = {"kind": "Service", "metadata": meta, "spec": spec}
    asked = pod_ports.asked(
        [
            pod("new", (80, 8080, {}), created="2026-01-02T00:00:00Z"),
            pod("old", (81, 8080, {}), address="10.244.0.8"),
            pod("late", (82, 30080, {})),
        ]
    )
    for _ in range(2):
        asyncio.run(proxy._host_ports(asked))
    assert forwarder.targets == {
        ("127.0.0.1", 30080, "TCP"): ("10.96.0.7", 80),
        ("127.0.0.1", 8080, "TCP"): ("10.244.0.8", 81),
    }
    says = "on 127.0.0.1 is that of another Service or pod; the pod has no port on this machine"
    assert sorted(events) == [
        ("late", "Warning", "HostPortUnavailable", f"port 30080 {says}"),
        ("new", "Warning", "HostPortUnavailable", f"port 8080 {says}"),
    ]


def test_ports_lead_to_their_pods():
    one = pod("one", (80, 8080, {}), (53, 5353, {"protocol": "UDP", "hostIP": "127.0.0.5"}))
    assert found(one) == [
        ("one", "127.0.0.1", 8080, "TCP", ("10.244.0.9", 80)),
        ("one", "127.0.0.5", 5353, "UDP", ("10.244.0.9", 53)),
    ]
    assert pod_ports.asks(one)
    assert not pod_ports.asks(pod("none"))
    assert not pod_ports.asks(None)


def test_the_oldest_of_several_has_the_port():
    new, old = pod("a", (80, 8080, {}), created="2026-01-02T00:00:00Z"), pod("b", (81, 8080, {}))
    assert [p[0] for p in found(new, old)] == ["b"]


def test_pods_without_an_address_of_their_own_have_none():
    assert found(pod("a", (80, 8080, {}), address=""), pod("b", (80, 8080, {}), phase="Succeeded")) == []
    assert found(pod("c", (80, 8080, {}), hostNetwork=True)) == []
    assert found(pod("d", (80, 8080, {"hostIP": "192.0.2.1"})))[0][1] == ""
