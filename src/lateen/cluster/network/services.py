"""Service addresses as NAT rules in the node's namespace, replaced as a whole with iptables-restore on each change."""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, replace

from lateen.cluster.network import plan
from lateen.cluster.network.links import NetworkError
from lateen.cluster.network.neighbours import PORT
from lateen.kit import addresses

HAIRPIN = "0x4000/0x4000"
"""A pod that reaches itself through its service must be answered by way of the node, so such packets are marked."""
CLOSED = ("169.254.0.0/16", *(f"{a}/32" for a in addresses.METADATA if a.version == 4))
"""Cloud metadata services, which hand out the machine's credentials: link-local addresses, and those elsewhere."""


@dataclass(frozen=True)
class ServicePort:
    """One port of one service address and its endpoints: (address, port) pairs, possibly none."""

    address: str
    protocol: str
    port: int
    backends: tuple[tuple[str, int], ...]
    sticky_s: int = 0
    """Seconds for which a client stays with its endpoint after each connection (``sessionAffinity: ClientIP``)."""


def rules(ports: list[ServicePort], neighbours: Sequence[str] = (), outbound: bool = False) -> str:
    """The nat and filter tables in the format of iptables-restore. Pure. ``neighbours``: their addresses; ``outbound``:
    pods have a way out of the machine.

    ``CLOSED`` is no part of it.

    Of two services with the same (external) address and port, the first has it. Connections to a service without
    endpoints are rejected at once, as by kube-proxy.
    """
    nat = [
        "*nat",
        ":PREROUTING ACCEPT [0:0]",
        ":OUTPUT ACCEPT [0:0]",
        ":POSTROUTING ACCEPT [0:0]",
        ":LATEEN-SERVICES - [0:0]",
    ]
    refuse = ["*filter", ":FORWARD ACCEPT [0:0]", ":OUTPUT ACCEPT [0:0]", ":LATEEN-SERVICES - [0:0]"]
    chains, jumps = [], []
    for p in served(ports):
        proto = p.protocol.lower()
        match = f"-d {p.address}/32 -p {proto} -m {proto} --dport {p.port}"
        if not p.backends:
            refuse.append(
                f"-A LATEEN-SERVICES {match} -j REJECT" + (" --reject-with tcp-reset" if proto == "tcp" else "")
            )
            continue
        chain = _chain("LSVC-", f"{p.address}/{proto}/{p.port}")
        nat.append(f":{chain} - [0:0]")
        jumps.append(f"-A LATEEN-SERVICES {match} -j {chain}")
        if p.sticky_s:
            seen = f"-m recent --rcheck --seconds {p.sticky_s} --reap --rsource"
            for address, port in p.backends:
                one = _chain("LSEP-", f"{p.address}/{proto}/{p.port}/{address}/{port}")
                chains.append(f"-A {chain} {seen} --name {one} -j {one}")
        for i, (address, port) in enumerate(p.backends):
            left = len(p.backends) - i
            chance = f"-m statistic --mode random --probability {1 / left:.10f} " if left > 1 else ""
            one = _chain("LSEP-", f"{p.address}/{proto}/{p.port}/{address}/{port}")
            nat.append(f":{one} - [0:0]")
            note = f" -m recent --set --rsource --name {one}" if p.sticky_s else ""
            at = f"{address}:{PORT if address in neighbours else port}"
            chains += [
                f"-A {chain} {chance}-j {one}",
                f"-A {one} -s {address}/32 -j MARK --set-xmark {HAIRPIN}",
                f"-A {one} -p {proto}{note} -j DNAT --to-destination {at}",
            ]
    hooks = [
        "-A PREROUTING -j LATEEN-SERVICES",
        "-A OUTPUT -j LATEEN-SERVICES",
        f"-A POSTROUTING -m mark --mark {HAIRPIN} -j MASQUERADE",
        *(f"-A LATEEN-SERVICES -d {n}/32 -p tcp -j DNAT --to-destination {n}:{PORT}" for n in neighbours),
    ]
    if outbound:
        hooks.append(f"-A POSTROUTING -o {plan.WAY_OUT} -j MASQUERADE")
        for chain in ("FORWARD", "OUTPUT"):
            refuse += [f"-A {chain} -o {plan.WAY_OUT} -d {closed} -j REJECT" for closed in CLOSED]
    refuse[4:4] = ["-A FORWARD -j LATEEN-SERVICES", "-A OUTPUT -j LATEEN-SERVICES"]
    return "\n".join([*nat, *hooks, *jumps, *chains, "COMMIT", *refuse, "COMMIT", ""])


def served(ports: Sequence[ServicePort]) -> list[ServicePort]:
    """Those that have rules, by their addresses. Pure."""
    once = {(p.address, p.port, p.protocol): p for p in reversed(list(filter(None, map(_checked, ports))))}
    return [p for _, p in sorted(once.items())]


def _checked(p: ServicePort) -> ServicePort | None:
    """Leave out invalid IPv4 addresses and ports: users can write endpoints, and a single line that iptables-restore
    cannot parse would discard the rules of all services."""
    if p.protocol not in ("TCP", "UDP", "SCTP") or not _is_end(p.address, p.port):
        return None
    return replace(p, backends=tuple(b for b in p.backends if _is_end(*b)))


def _is_end(address: object, port: object) -> bool:
    try:
        ipaddress.IPv4Address(address)
    except ValueError:
        return False
    return isinstance(address, str) and type(port) is int and 0 < port < 65536


def _chain(prefix: str, what: str) -> str:
    return prefix + hashlib.sha256(what.encode()).hexdigest()[:16].upper()


async def can_stick() -> bool:
    """Whether this kernel remembers clients (the match ``recent``); without it, a rule would discard all others."""
    seen = "-A OUTPUT -m recent --rcheck --seconds 1 --reap --rsource --name LATEEN -j ACCEPT"
    return await takes(f"*nat\n{seen}\nCOMMIT\n")


async def takes(text: str) -> bool:
    """Whether this kernel knows the matches of some rules; they are not installed."""
    try:
        await install(text, "--test", "--noflush")
    except NetworkError:
        return False
    return True


async def install(text: str, *options: str) -> None:
    """Raises NetworkError."""
    process = await asyncio.create_subprocess_exec(
        "iptables-restore", "-w", "10", *options, stdin=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(30):
        _, err = await process.communicate(text.encode())
    if process.returncode != 0:
        raise NetworkError(f"iptables-restore: {err.decode(errors='replace').strip()}")
