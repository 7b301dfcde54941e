"""Machines: the entries made of a WorkloadGroup, and what an agent's probe reports."""

import asyncio
import copy

import pytest
from test_goldens import leaves, without

from lateen.agent import health
from lateen.api import kinds
from lateen.api import objects as o
from lateen.api.config import decode
from lateen.api.networking import WorkloadGroup
from lateen.control.registration import entry

GROUP = {
    "metadata": {"labels": {"app": "db"}, "annotations": {"a": "b"}},
    "template": {
        "ports": {"http": 8080}, "labels": {"class": "vm"}, "locality": "west/a", "weight": 3, "serviceAccount": "sa",
    },
}  # fmt: skip


def made(spec):
    ref = kinds.WORKLOAD_GROUP.ref("ns", "group")
    return entry(o.Resource(ref, "u", "1", "", decode(WorkloadGroup, spec)), "10.0.0.1", "istiod-a")


def test_an_entry_has_its_groups_settings():
    found = made(GROUP)
    assert found["metadata"]["name"] == "group-10-0-0-1"
    assert found["spec"]["labels"] == {"app": "db", "class": "vm"}
    assert found["spec"]["serviceAccount"] == "sa"
    assert found["metadata"]["annotations"]["istio.io/autoRegistrationGroup"] == "group"
    assert found["metadata"]["annotations"]["istio.io/workloadController"] == "istiod-a"


@pytest.mark.parametrize("path", list(leaves(GROUP)), ids=lambda p: ".".join(map(str, p)))
def test_removing_any_field_changes_the_result(path):
    assert made(without(copy.deepcopy(GROUP), path)) != made(GROUP)


async def served(handle, work):
    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        return await work(server.sockets[0].getsockname()[1])
    finally:
        server.close()


def answers(status, wanted=b"", slow=0.0):
    async def handle(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(slow)
        code = status if wanted in head.lower() else 400
        writer.write(f"HTTP/1.1 {code} X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".encode())
        await writer.drain()
        writer.close()

    return handle


@pytest.mark.parametrize(
    ("handle", "get", "says"),
    [
        (answers(200), {}, None),
        (answers(503), {}, "503"),
        (answers(200, b"get /own "), {"path": "/own"}, None),
        (answers(200, b"get /own "), {"path": "/other"}, "400"),
        (answers(200, b"x-a: b"), {"httpHeaders": [{"name": "x-a", "value": "b"}]}, None),
        (answers(200), {"host": "127.0.0.9"}, "connect"),
        (answers(200), {"scheme": "HTTPS"}, ""),
        (answers(200, slow=1.0), {}, "0.2 s"),
    ],
)
def test_an_http_probe(handle, get, says):
    async def work(port):
        return await health.once({"httpGet": {"port": port, **get}, "timeoutSeconds": 0.2})

    found = asyncio.run(served(handle, work))
    assert found is None if says is None else says.lower() in (found or "").lower()
    assert (found is None) == (says is None)


def test_other_probes():
    async def work(port):
        return await health.once({"tcpSocket": {"port": port}}), await health.once({"tcpSocket": {"port": 1}})

    well, ill = asyncio.run(served(answers(200), work))
    assert well is None
    assert ill
    assert asyncio.run(health.once({"exec": {"command": ["true"]}})) is None
    assert asyncio.run(health.once({"exec": {"command": ["false"]}})) == "false exited with 1"
    assert "within" in asyncio.run(health.once({"exec": {"command": ["sleep", "5"]}, "timeoutSeconds": 0.1}))


def test_thresholds_and_times(tmp_path):
    """Two failures in a row make it unhealthy, two successes healthy; before the first probe, nothing is reported."""
    flag = tmp_path / "ill"
    said = []

    async def report(healthy, says):
        if said[-1:] != [healthy]:  # the same is said again from time to time
            said.append(healthy)

    async def work():
        probe = {
            "exec": {"command": ["test", "!", "-f", str(flag)]}, "periodSeconds": 0.02, "initialDelaySeconds": 0.2,
            "failureThreshold": 2, "successThreshold": 2,
        }  # fmt: skip
        task = asyncio.ensure_future(health.watch(probe, report))  # noqa: TID251 - ended below
        await asyncio.sleep(0.1)
        assert said == []
        for wanted in (True, False, True):
            flag.unlink(missing_ok=True) if wanted else flag.touch()
            async with asyncio.timeout(5):
                while not said or said[-1] is not wanted:
                    await asyncio.sleep(0.01)
        task.cancel()

    asyncio.run(work())
    assert said == [True, False, True]
