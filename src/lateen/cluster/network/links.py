"""Pod network namespaces: a veth pair for each, routed (no bridge), so that service rules see every packet.

A pod has a /32 address and reaches everything through 169.254.1.1, for which the host end of every pair answers.
Threads of their own make the changes, since entering a namespace concerns a whole thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from lateen.cluster import kernel
from lateen.cluster.network import plan
from lateen.cluster.network.netlink import Netlink
from lateen.cluster.network.netlink import address_of as address_on

_PREFIX = "pod-"
_NAMESPACES = Path("/run/netns")
_OWN = "/proc/thread-self/ns/net"
_SETTINGS = "/proc/sys/net/ipv4/conf"
_LINK = "eth0"
T = TypeVar("T")

_threads = ThreadPoolExecutor(2, "links")
"""The kernel makes one such change at a time; the second one prepares meanwhile."""


class NetworkError(OSError):
    """The kernel has refused a change of the network; the message says which."""


async def _in_thread(work: Callable[[], T]) -> T:
    """Raises NetworkError. What has begun is finished before a cancellation takes effect: whoever cleans up after it
    must find all of it."""
    begun = _threads.submit(work)
    future = asyncio.wrap_future(begun)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        while not (begun.cancel() or future.done()):
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait({future})
        raise
    except NetworkError:
        raise
    except OSError as e:
        raise NetworkError(e.errno, e.strerror or str(e)) from e


async def setup_node(more: Sequence[str] = ()) -> None:
    """Configure addresses (and ``more`` of them) and forwarding in the node's own namespace; idempotent."""
    await _in_thread(lambda: _setup_node(more))


def _setup_node(more: Sequence[str]) -> None:
    with Netlink() as node:
        node.up("lo")
        for address in (plan.NODE_IP, plan.DNS_IP, *more):
            node.address("lo", address)
        # The node's own connections to service addresses need a route before DNAT can rewrite them.
        node.route(plan.SERVICE_NET, "lo", source=plan.NODE_IP)
        # Addresses without a pod are unreachable, also where the node has a way out.
        for net in (plan.POD_NET, plan.OUTSIDE_NET):
            node.route(net)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    Path(f"{_SETTINGS}/all/rp_filter").write_text("0")  # pods' links set their own; the stricter one counts
    Path(f"{_SETTINGS}/all/accept_local").write_text("0")


def namespace(pod_uid: str) -> str:
    return f"{_PREFIX}{pod_uid}"


def path(pod_uid: str) -> str:
    return f"{_NAMESPACES}/{namespace(pod_uid)}"


def _veth(pod_uid: str) -> str:
    return "v" + pod_uid.replace("-", "")[:13]


@contextlib.contextmanager
def _elsewhere() -> Iterator[int]:
    """The calling thread may enter another network namespace and is back at the end. Yields its own one."""
    own = os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield own
    finally:
        try:
            kernel.setns(own, kernel.CLONE_NEWNET)
        except OSError:
            os.abort()  # rather than make the next pod's link in this pod's namespace
        os.close(own)


async def add_pod(pod_uid: str, address: str) -> None:
    """Create the namespace and its link. Raises NetworkError."""
    await _in_thread(lambda: _add_pod(pod_uid, address))


def _add_pod(pod_uid: str, address: str) -> None:
    veth = _veth(pod_uid)
    with _elsewhere() as node:
        kernel.unshare(kernel.CLONE_NEWNET)
        os.close(os.open(path(pod_uid), os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444))
        kernel.mount(_OWN, path(pod_uid), "", kernel.MS_BIND)
        with Netlink() as pod:
            pod.add_pair(_LINK, veth, node)
            pod.up("lo")
            pod.up(_LINK)
            pod.address(_LINK, address)
            pod.route(f"{plan.GATEWAY}/32", _LINK)
            pod.route("0.0.0.0/0", _LINK, gateway=plan.GATEWAY)
    with Netlink() as outside:
        outside.address(veth, plan.GATEWAY)
        # Policies go by address: what comes in with another one than the pod's is dropped (RFC 3704, strict).
        Path(f"{_SETTINGS}/{veth}/rp_filter").write_text("1")
        outside.up(veth)
        outside.route(f"{address}/32", veth, source=plan.NODE_IP)


async def address_of(pod_uid: str) -> str:
    """The address of a pod whose namespace already exists; empty if there is none."""
    return (await _in_thread(lambda: _addresses([pod_uid]))).get(pod_uid, "")


async def in_use() -> dict[str, str]:
    """The addresses of the pods that have a namespace, also of those that an earlier node daemon has left, by uid."""
    found = [p.name.removeprefix(_PREFIX) for p in _NAMESPACES.glob(f"{_PREFIX}*")]
    return await _in_thread(lambda: _addresses(found))


def _addresses(pods: Sequence[str]) -> dict[str, str]:
    out = {}
    with _elsewhere():
        for uid in pods:
            with contextlib.suppress(OSError):  # it is about to go, or was never finished
                kernel.enter_network(path(uid))
                if found := address_on(_LINK):
                    out[uid] = found
    return out


async def remove_pod(pod_uid: str) -> None:
    if Path(path(pod_uid)).exists():
        await _in_thread(lambda: _remove_pod(pod_uid))


def _remove_pod(pod_uid: str) -> None:
    with contextlib.suppress(OSError), Netlink() as node:  # deleting the namespace deletes the link
        node.delete(_veth(pod_uid))
    with contextlib.suppress(OSError):  # nothing is mounted there where it was never finished
        kernel.unmount(path(pod_uid))
    Path(path(pod_uid)).unlink(missing_ok=True)


class Addresses:
    """Pod addresses in use; a freed address is reused as late as possible."""

    def __init__(self) -> None:
        self._net = ipaddress.ip_network(plan.POD_NET)
        self._used: set[str] = {plan.NODE_IP}
        self._next = 1

    def keep(self, address: str) -> None:
        """A pod has this address already."""
        self._used.add(address)

    def take(self) -> str:
        for _ in range(self._net.num_addresses):
            self._next = self._next % (self._net.num_addresses - 2) + 1
            address = str(self._net[self._next])
            if address not in self._used:
                self._used.add(address)
                return address
        raise NetworkError(f"no free address in {plan.POD_NET}")

    def free(self, address: str) -> None:
        self._used.discard(address)
