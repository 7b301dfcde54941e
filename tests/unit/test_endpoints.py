"""What serves a Service: EndpointSlices, whoever writes them, and Endpoints that users write."""

import asyncio

import pytest
from test_controllers import play, until

from lateen.api import kinds
from lateen.cluster.controllers import endpoints, mirrored, service_proxy, serving
from lateen.kit.jsons import dig

ADDRESSES = ("10.1.2.3", "10.4.5.6")


def piece(*found, name="db-1", service="db", port=9376, port_name="", family="IPv4"):
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": name, "namespace": "default", "labels": {"kubernetes.io/service-name": service}},
        "addressType": family,
        "endpoints": list(found),
        "ports": [{"name": port_name, "port": port, "protocol": "TCP"}],
    }


def at(address, **conditions):
    return {"addresses": [address]} | ({"conditions": conditions} if conditions else {})


# --- what gets connections -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("slices", "backends"),
    [
        ([piece(at(ADDRESSES[0]), at(ADDRESSES[1]))], [(a, 9376) for a in ADDRESSES]),
        ([piece(at(ADDRESSES[0], ready=True), at(ADDRESSES[1], ready=False))], [(ADDRESSES[0], 9376)]),
        ([piece(at(ADDRESSES[0])), piece(at(ADDRESSES[1]), name="db-2")], [(a, 9376) for a in ADDRESSES]),
        ([piece(at(ADDRESSES[0])), piece(at(ADDRESSES[0]), name="db-2")], [(ADDRESSES[0], 9376)]),
        ([piece(at(ADDRESSES[0], ready=False, serving=True, terminating=True))], [(ADDRESSES[0], 9376)]),
        (
            [piece(at(ADDRESSES[0], ready=False, serving=True, terminating=True), at(ADDRESSES[1]))],
            [(ADDRESSES[1], 9376)],
        ),
        ([piece(at(ADDRESSES[0], ready=False, serving=False, terminating=True))], []),
        ([piece(at(ADDRESSES[0]), port_name="other")], []),
        ([piece(at(ADDRESSES[0]), service="other")], []),
        ([piece(at("fd00::1"), family="IPv6"), piece(at("db.example"), family="FQDN")], []),
    ],
)
def test_connections_go_to_what_is_ready_or_else_to_what_still_answers(slices, backends):
    found = serving.by_service(slices).get(("default", "db"), [])
    assert list(serving.backends(found, "", "TCP")) == backends
    assert serving.backends(found, "", "UDP") == ()


def test_a_service_without_a_selector_leads_to_the_slices_that_users_write(monkeypatch):
    installed = []

    async def install(text):
        installed.append(text)

    async def host_ports(_):
        pass

    monkeypatch.setattr(service_proxy.services, "install", install)
    proxy = service_proxy.Proxy(None, None, None)
    monkeypatch.setattr(proxy, "_host_ports", host_ports)
    for name, address in (("db", "10.96.0.9"), ("peers", "None")):
        spec = {"clusterIP": address, "ports": [{"port": 80, "protocol": "TCP"}]}
        meta = {"name": name, "namespace": "default", "uid": name}
        proxy._services.objects["default", name] = {"metadata": meta, "spec": spec}
    proxy._slices.objects["default", "db-1"] = piece(at(ADDRESSES[0]))
    host = at(ADDRESSES[1]) | {"hostname": "first"}
    proxy._slices.objects["default", "peers-1"] = piece(host, service="peers", port_name="sql")
    asyncio.run(proxy._sync())
    assert f"--to-destination {ADDRESSES[0]}:9376" in installed[-1]
    domain = "peers.default.svc.cluster.local"
    assert proxy.lookup(domain) == proxy.lookup(f"first.{domain}") == [ADDRESSES[1]]
    assert proxy.srv(f"_sql._tcp.{domain}") == [(9376, f"first.{domain}")]


def test_a_service_finds_named_ports_of_sidecars_too():
    port = {"name": "metrics", "containerPort": 15090, "protocol": "TCP"}
    sidecar = {"name": "p", "restartPolicy": "Always", "ports": [port]}
    pod = {"spec": {"containers": [{"name": "c"}], "initContainers": [sidecar, {"name": "i", "ports": [port]}]}}
    assert endpoints.target_port(pod, {"port": 1, "targetPort": "metrics", "protocol": "TCP"}) == 15090
    pod["spec"]["initContainers"] = [{"name": "i", "ports": [port]}]
    assert endpoints.target_port(pod, {"port": 1, "targetPort": "metrics", "protocol": "TCP"}) is None


# --- Endpoints that users write --------------------------------------------------------------------------------------


def service(**spec):
    ports = {"ports": [{"port": 80, "targetPort": 9376}]}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "db", "namespace": "default"},
        "spec": ports | spec,
    }


def written(*subsets, labels=None, annotations=None):
    meta = {"name": "db", "namespace": "default", "labels": labels or {}, "annotations": annotations or {}}
    return {"apiVersion": "v1", "kind": "Endpoints", "metadata": meta, "subsets": list(subsets)}


def subset(ready=(), unready=(), port=9376):
    groups = {"addresses": ready, "notReadyAddresses": unready}
    return {k: [{"ip": a} for a in v] for k, v in groups.items() if v} | {"ports": [{"port": port}]}


async def slices(client):
    found, _ = await client.list(kinds.ENDPOINT_SLICE, "default")
    mine = [s for s in found if dig(s, "metadata", "labels", "kubernetes.io/service-name") == "db"]
    return sorted((s["ports"][0]["port"], [e["addresses"][0] for e in s["endpoints"]]) for s in mine)


def test_endpoints_of_a_service_without_a_selector_are_mirrored_to_slices():
    async def story(client, _):
        await client.create(kinds.SERVICE, service())
        await client.create(kinds.ENDPOINTS, written(subset(ADDRESSES[:1], ADDRESSES[1:]), labels={"app": "db"}))
        await until(lambda: has(client, [(9376, list(ADDRESSES))]))
        (made,) = (await client.list(kinds.ENDPOINT_SLICE, "default"))[0]
        assert made["metadata"]["labels"] == {
            "app": "db",
            "kubernetes.io/service-name": "db",
            "endpointslice.kubernetes.io/managed-by": mirrored.MANAGER,
        }
        assert made["metadata"]["ownerReferences"][0]["kind"] == "Endpoints"
        assert [e["conditions"]["ready"] for e in made["endpoints"]] == [True, False]
        await client.patch(kinds.ENDPOINTS, "default", "db", {"metadata": {"annotations": {"owner": "me"}}})
        await until(lambda: noted(client, {"owner": "me"}))
        await client.patch(kinds.ENDPOINTS, "default", "db", {"metadata": {"annotations": {"owner": None}}})
        await until(lambda: noted(client, {}))
        change = {"subsets": [subset(ADDRESSES[:1]), subset(ADDRESSES[1:], port=5432)]}
        await client.patch(kinds.ENDPOINTS, "default", "db", change)
        await until(lambda: has(client, [(5432, [ADDRESSES[1]]), (9376, [ADDRESSES[0]])]))
        await client.patch(kinds.SERVICE, "default", "db", {"spec": {"selector": {"app": "none"}}})
        await until(lambda: gone(client))

    async def has(client, wanted):
        return await slices(client) == wanted

    async def noted(client, wanted):
        (made,) = (await client.list(kinds.ENDPOINT_SLICE, "default"))[0]
        return made["metadata"].get("annotations", {}) == wanted

    async def gone(client):
        found, _ = await client.list(kinds.ENDPOINT_SLICE, "default")
        return all(s["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"] != mirrored.MANAGER for s in found)

    play(story)


def test_locks_and_endpoints_that_say_so_are_not_mirrored():
    async def story(client, _):
        await client.create(kinds.SERVICE, service())
        for more in (
            {"annotations": {"control-plane.alpha.kubernetes.io/leader": "{}"}},
            {"labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
        ):
            await client.create(kinds.ENDPOINTS, written(subset(ADDRESSES), **more))
            await asyncio.sleep(0.3)
            assert await slices(client) == []
            await client.delete(kinds.ENDPOINTS, "default", "db")
        await client.create(kinds.ENDPOINTS, written(subset(ADDRESSES)))
        await until(lambda: mirrored_now(client))
        await client.delete(kinds.ENDPOINTS, "default", "db")
        await until(lambda: none(client))

    async def mirrored_now(client):
        return await slices(client) == [(9376, list(ADDRESSES))]

    async def none(client):
        return not await slices(client)

    play(story)
