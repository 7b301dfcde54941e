"""The admission webhooks over a real socket."""

import asyncio
import json

import pytest
from aiohttp import web

from lateen.api import kinds
from lateen.api import objects as o
from lateen.control.injection import Injector
from lateen.control.webhooks import MAX_BODY, Webhooks
from lateen.mesh.model import Mesh
from lateen.mesh.objects import Objects

GATEWAY = {
    "apiVersion": "networking.istio.io/v1",
    "kind": "Gateway",
    "metadata": {"name": "g", "namespace": "default"},
    "spec": {"servers": [{"hosts": ["a.b"], "port": {"number": 80, "name": "http", "protocol": "HTTP"}}]},
}


async def answer(parts, mesh=lambda: Mesh(Objects())):
    """The status and body of POST /validate, its body sent in ``parts`` with a pause between them."""
    app = web.Application(client_max_size=MAX_BODY)
    app.add_routes(Webhooks(Injector(mesh), mesh).routes())
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    reader, writer = await asyncio.open_connection(*runner.addresses[0])
    length = sum(map(len, parts))
    writer.write(
        f"POST /validate HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n".encode()
    )
    for part in parts:
        writer.write(part)
        await writer.drain()
        await asyncio.sleep(0.05)
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    await runner.cleanup()
    return int(head.split()[1]), body


@pytest.mark.parametrize("cuts", [1, 2, 5])
def test_a_review_that_arrives_in_parts_is_read_completely(cuts):
    body = json.dumps(
        {"request": {"uid": "u", "object": GATEWAY, "operation": "CREATE", "namespace": "default"}}
    ).encode()
    size = len(body) // cuts + 1
    status, said = asyncio.run(answer([body[i : i + size] for i in range(0, len(body), size)]))
    assert status == 200
    assert json.loads(said)["response"]["allowed"] is True


def test_an_endless_review_is_refused():
    status, said = asyncio.run(answer([b" " * (MAX_BODY // 2)] * 2 + [b" "]))
    assert (status, b"more than" in said) == (413, True)


def test_a_fault_in_a_warning_does_not_refuse_the_object():
    def mesh():
        raise KeyError("lost")

    body = json.dumps({"request": {"uid": "u", "object": RULE, "operation": "CREATE", "namespace": "default"}}).encode()
    status, said = asyncio.run(answer([body], mesh))
    response = json.loads(said)["response"]
    assert (status, response["allowed"]) == (200, True)
    assert "KeyError: 'lost'" in response["warnings"][-1]


RULE = {
    "apiVersion": "networking.istio.io/v1",
    "kind": "VirtualService",
    "metadata": {"name": "r", "namespace": "default"},
    "spec": {"hosts": ["reviews"], "http": [{"route": [{"destination": {"host": "reviews"}}]}]},
}


@pytest.mark.parametrize("comes", [True, False])
def test_a_service_applied_from_the_same_file_is_not_reported_as_missing(comes):
    service = o.Service("default", "reviews", "10.0.0.1", ())
    asked = []

    def mesh():
        asked.append(1)
        there = comes and len(asked) > 2
        return Mesh(Objects().put(kinds.SERVICE, ("default", "reviews"), service if there else None))

    body = json.dumps({"request": {"uid": "u", "object": RULE, "operation": "CREATE"}}).encode()
    _, said = asyncio.run(answer([body], mesh))
    warnings = json.loads(said)["response"]["warnings"]
    assert bool(warnings) is not comes


def reviewed(spec, pods, namespace="default"):
    found = Objects().replaced(kinds.POD, {(p.namespace, p.name): p for p in pods})
    obj = {
        "apiVersion": "security.istio.io/v1",
        "kind": "PeerAuthentication",
        "metadata": {"name": "p", "namespace": namespace},
        "spec": spec,
    }
    body = json.dumps({"request": {"uid": "u", "object": obj, "operation": "CREATE", "namespace": namespace}})
    _, said = asyncio.run(answer([body.encode()], lambda: Mesh(found)))
    return json.loads(said)["response"].get("warnings", [])


def a_pod(name, namespace, *labels, notes=()):
    return o.Pod(namespace, name, name, "10.0.0.1", labels, "default", name, (), True, notes=notes)


def test_strict_mutual_tls_warns_with_the_pods_that_have_no_sidecar():
    meshed = a_pod("new", "default", ("security.istio.io/tlsMode", "istio"))
    pods = [a_pod("old", "default"), meshed, a_pod("dns", "kube-system")]
    (warning,) = reviewed({"mtls": {"mode": "STRICT"}}, pods)
    assert "these pods have no sidecar: default/old;" in warning
    assert "lateen x authz plaintext" in warning
    assert reviewed({"mtls": {"mode": "PERMISSIVE"}}, pods) == []
    assert reviewed({"mtls": {"mode": "STRICT"}}, [meshed]) == []


@pytest.mark.parametrize("template", ["grpc-agent", "grpc-simple", "mine, grpc-agent"])
def test_applications_whose_grpc_library_has_mutual_tls_do_not_call_in_plaintext(template):
    speaking = a_pod("pricing", "default", notes=(("inject.istio.io/templates", template),))
    assert reviewed({"mtls": {"mode": "STRICT"}}, [speaking]) == []
    (warning,) = reviewed({"mtls": {"mode": "STRICT"}}, [speaking, a_pod("old", "default")])
    assert "these pods have no sidecar: default/old;" in warning


def test_a_policy_of_one_namespace_tells_no_names_of_pods_in_others():
    pods = [a_pod("old", "legacy"), a_pod("secret", "finance")]
    strict = {"mtls": {"mode": "STRICT"}}
    (own,) = reviewed(strict, pods, "legacy")
    assert "these pods have no sidecar: legacy/old, and 1 pod in other namespaces;" in own
    (none,) = reviewed(strict, pods, "default")
    assert "2 pods in other namespaces have no sidecar;" in none
    for warning in (own, none):
        assert "finance" not in warning
        assert "lateen x authz plaintext" in warning
    (whole,) = reviewed(strict, pods, "istio-system")
    assert "these pods have no sidecar: finance/secret, legacy/old;" in whole
