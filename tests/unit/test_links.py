"""Pods' network namespaces, made in namespaces of the test's own."""

import asyncio
import subprocess
import sys
import threading

import pytest

from lateen.cluster.network import links
from lateen.cluster.portal_process import unshare
from lateen.kit import tasks

SCRIPT = """
import asyncio, os, socket, threading
from lateen.cluster import kernel
from lateen.cluster.network import links, plan

kernel.mount("none", "/", "", kernel.MS_REC | kernel.MS_PRIVATE)
kernel.mount("tmpfs", "/run", "tmpfs", 0, "mode=755")
os.mkdir("/run/netns")
own = os.readlink("/proc/self/ns/net")
A, B = "0000000a-1111-2222-3333-444444444444", "0000000b-1111-2222-3333-444444444444"

def serve(uid):
    kernel.enter_network(links.path(uid))
    return socket.create_server(("0.0.0.0", 8080)), threading.get_native_id()

async def asked(address):
    loop = asyncio.get_running_loop()
    with socket.socket() as client:
        client.setblocking(False)
        await asyncio.wait_for(loop.sock_connect(client, (address, 8080)), 10)
        return client.getsockname()[0]

async def main():
    await links.setup_node()
    await links.setup_node()
    await asyncio.gather(links.add_pod(A, "10.244.0.2"), links.add_pod(B, "10.244.0.3"))
    assert await links.in_use() == {A: "10.244.0.2", B: "10.244.0.3"}
    listener, stays = await asyncio.to_thread(serve, A)
    assert await asked("10.244.0.2") == plan.NODE_IP
    try:
        await links.add_pod(A, "10.244.0.4")
        raise SystemExit("a second namespace for the same pod")
    except links.NetworkError:
        pass
    assert await links.address_of(A) == "10.244.0.2"
    listener.close()
    await links.remove_pod(A)
    await links.remove_pod(A)
    assert await links.in_use() == {B: "10.244.0.3"}
    try:
        await asked("10.244.0.2")
        raise SystemExit("a pod that has gone is reached")
    except OSError:
        pass
    await links.add_pod(A, "10.244.0.2")
    for thread in os.listdir("/proc/self/task"):
        if int(thread) != stays:
            assert os.readlink(f"/proc/self/task/{thread}/ns/net") == own, "a thread has stayed in a pod"

asyncio.run(main())
print("done")
"""


@pytest.fixture(scope="module")
def namespaces():
    if subprocess.run([*unshare(), "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("this user cannot make namespaces")
    return unshare()


def test_a_pod_has_an_address_is_reached_and_goes(namespaces):
    done = subprocess.run(
        [*namespaces, sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout == "done\n", done.stderr


def test_what_a_cancelled_pod_has_begun_on_the_node_is_finished_first():
    """Else it would be cleaned up too early, and what is made later would stay."""

    async def run():
        loop, begun, done = asyncio.get_running_loop(), asyncio.Event(), []
        goes_on = threading.Event()

        def slow():
            loop.call_soon_threadsafe(begun.set)
            assert goes_on.wait(60)
            done.append("made")

        making = tasks.spawn(links._in_thread(slow), "a pod's network")
        await begun.wait()
        for _ in range(2):  # a deadline, then a deletion
            making.cancel()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        assert not making.done()
        goes_on.set()
        await asyncio.wait({making})
        assert making.cancelled()
        assert done == ["made"]

    asyncio.run(run())


def test_what_a_cancelled_pod_has_not_begun_on_the_node_is_never_done():
    async def run():
        done = []
        goes_on = threading.Event()
        busy = [tasks.spawn(links._in_thread(lambda: goes_on.wait(60)), "others") for _ in range(2)]
        await asyncio.sleep(0)
        waiting = tasks.spawn(links._in_thread(lambda: done.append("made")), "a pod's network")
        await asyncio.sleep(0)
        await tasks.cancel(waiting)
        goes_on.set()
        await asyncio.gather(*busy)
        await links._in_thread(lambda: None)
        assert done == []

    asyncio.run(run())
