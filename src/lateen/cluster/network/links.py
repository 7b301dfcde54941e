"""Pod network namespaces: a veth pair for each, routed (no bridge), so that service rules see every packet.

A pod has a /32 address and reaches everything through 169.254.1.1, for which the host end of every pair answers.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Sequence
from pathlib import Path

from lateen.cluster.network import plan
from lateen.kit import jsons


class NetworkError(OSError):
    """An ``ip`` command failed; the message is its output."""


async def _run(*argv: str, stdin: str = "") -> str:
    process = await asyncio.create_subprocess_exec(
        *argv, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(20):
        out, err = await process.communicate(stdin.encode())
    if process.returncode != 0:
        raise NetworkError(f"{argv[0]}: {err.decode(errors='replace').strip() or f'exit {process.returncode}'}")
    return out.decode()


async def setup_node(more: Sequence[str] = ()) -> None:
    """Configure addresses (and ``more`` of them) and forwarding in the node's own namespace; idempotent."""
    lines = ["link set lo up"]
    have = await _run("ip", "-o", "addr", "show", "dev", "lo")
    for address in (plan.NODE_IP, plan.DNS_IP, *more):
        if f" {address}/" not in have:
            lines.append(f"addr add {address}/32 dev lo")
    # The node's own connections to service addresses need a route before DNAT can rewrite them.
    lines.append(f"route replace {plan.SERVICE_NET} dev lo src {plan.NODE_IP}")
    await _run("ip", "-batch", "-", stdin="\n".join(lines) + "\n")
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    # A pod that connects to its own service leaves and returns with its own address.
    Path("/proc/sys/net/ipv4/conf/all/rp_filter").write_text("0")
    Path("/proc/sys/net/ipv4/conf/all/accept_local").write_text("1")


def namespace(pod_uid: str) -> str:
    return f"pod-{pod_uid}"


def path(pod_uid: str) -> str:
    return f"/run/netns/{namespace(pod_uid)}"


def _veth(pod_uid: str) -> str:
    return "v" + pod_uid.replace("-", "")[:13]


async def add_pod(pod_uid: str, address: str) -> None:
    """Create the namespace and its link. Raises NetworkError."""
    name, veth = namespace(pod_uid), _veth(pod_uid)
    await _run("ip", "netns", "add", name)
    inside = (
        f"link set lo up\nlink set eth0 up\naddr add {address}/32 dev eth0\n"
        f"route add {plan.GATEWAY} dev eth0 scope link\nroute add default via {plan.GATEWAY} dev eth0\n"
    )
    outside = (
        f"link add {veth} type veth peer name eth0 netns {name}\naddr add {plan.GATEWAY}/32 dev {veth}\n"
        f"link set {veth} up\nroute add {address}/32 dev {veth} src {plan.NODE_IP}\n"
    )
    await _run("ip", "-batch", "-", stdin=outside)
    await _run("ip", "-n", name, "-batch", "-", stdin=inside)


async def address_of(pod_uid: str) -> str:
    """The address of a pod whose namespace already exists; empty if there is none."""
    if not Path(path(pod_uid)).exists():
        return ""
    try:
        found = jsons.loads(await _run("ip", "-n", namespace(pod_uid), "-j", "-4", "addr", "show", "dev", "eth0"))
        return str(found[0]["addr_info"][0]["local"])
    except (NetworkError, LookupError, ValueError):
        return ""


async def remove_pod(pod_uid: str) -> None:
    if Path(path(pod_uid)).exists():
        try:
            await _run("ip", "link", "del", _veth(pod_uid))
        except NetworkError:
            pass  # deleting the namespace deletes the link
        await _run("ip", "netns", "del", namespace(pod_uid))


class Addresses:
    """Pod addresses in use; a freed address is reused as late as possible."""

    def __init__(self) -> None:
        self._net = ipaddress.ip_network(plan.POD_NET)
        self._used: set[str] = {plan.NODE_IP}
        self._next = 1

    def take(self, wanted: str = "") -> str:
        if wanted and wanted not in self._used and ipaddress.ip_address(wanted) in self._net:
            self._used.add(wanted)
            return wanted
        for _ in range(self._net.num_addresses):
            self._next = self._next % (self._net.num_addresses - 2) + 1
            address = str(self._net[self._next])
            if address not in self._used:
                self._used.add(address)
                return address
        raise NetworkError(f"no free address in {plan.POD_NET}")

    def free(self, address: str) -> None:
        self._used.discard(address)
