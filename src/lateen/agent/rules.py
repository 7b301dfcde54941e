"""A pod's redirection rules, as data and as input of iptables-restore and ip6tables-restore. Pure.

The rules are Istio's: outgoing connections are redirected to 15001 and incoming ones to 15006; the proxy's own
traffic is exempt. The proxy is identified by its user id, or by a socket mark where ids cannot differ. Both families of
addresses have the same rules; a ``Family`` is what differs.
"""

from __future__ import annotations

from dataclasses import dataclass

from lateen.wire import ports

COMMENT = "lateen"
TABLES = ("nat", "mangle")
BUILT_IN = ("-A OUTPUT ", "-A PREROUTING ")


@dataclass(frozen=True)
class Capture:
    outbound: int = ports.OUTBOUND
    inbound: int = ports.INBOUND
    uid: int = ports.PROXY_UID
    mark: int | None = None
    include_ranges: str = "*"
    exclude_ranges: str = ""
    include_ports: str = "*"
    exclude_ports: str = ",".join(str(p) for p in ports.EXCLUDED_INBOUND)
    exclude_outbound_ports: str = ""
    include_outbound_ports: str = ""
    kubevirt_interfaces: str = ""
    """Interfaces of virtual machines in the pod: traffic arriving on them is outbound."""
    exclude_interfaces: str = ""
    dns: int = 0
    """The port that DNS is redirected to; 0 for none."""
    gid: int = ports.PROXY_UID
    tproxy: bool = False
    """Preserve the client's address of inbound connections: TPROXY instead of REDIRECT."""
    by_group: bool = False
    """Identify the proxy by its group, because with TPROXY it runs as root."""
    validate: bool = False
    """Only check rules that a CNI plugin has written."""


@dataclass(frozen=True)
class Family:
    """A family of addresses, and what its rules differ in."""

    version: int
    tool: str
    """The prefix of the programs that read and write its rules."""
    loopback: str
    guard: str
    """The source of connections from the proxy to its application, which are not captured again."""

    def own(self, ranges: str) -> list[str]:
        """Those of its ranges of addresses (separated by commas)."""
        return [r for r in _items(ranges) if (":" in r) == (self.version == 6)]


V4 = Family(4, "iptables", "127.0.0.1/32", f"{ports.GUARD}/32")
V6 = Family(6, "ip6tables", "::1/128", f"{ports.GUARD_V6}/128")


def _items(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def rules(c: Capture, family: Family = V4) -> str:
    """The tables in the format of iptables-restore."""
    return replacing(c, {}, family)


def replacing(c: Capture, saved: dict[str, str], family: Family = V4) -> str:
    """The rules in the place of those of ours in ``saved`` (table -> what iptables-save has printed). Each table is
    replaced as a whole, and one that is no longer needed is emptied last: traffic is redirected all the time."""
    made = ({"mangle": mangle(c, family)} if c.tproxy and c.include_ports else {}) | {"nat": nat(c, family)}
    out = []
    for table, text in made.items():
        lines = text.split("\n")
        at = 1 + sum(line.startswith(":") for line in lines)  # declaring our chains empties them
        out.append("\n".join([*lines[:at], *_deletions(saved.get(table, "")), *lines[at:]]))
    return "".join([*out, *(removal(table, text) for table, text in saved.items() if table not in made)])


def mangle(c: Capture, family: Family = V4) -> str:
    """Inbound connections by TPROXY. Packets for the proxy's sockets are marked, and routed to the loopback
    interface by a separate routing table; packets from the proxy to the application with the client's address have
    the same mark."""
    mark, mine = f"-m mark --mark {ports.TPROXY_MARK}", f"-m owner --gid-owner {c.gid}"
    taken = f"TPROXY --tproxy-mark {ports.TPROXY_MARK} --on-port {c.inbound}"
    out = [
        "*mangle",
        ":PREROUTING ACCEPT [0:0]",
        ":OUTPUT ACCEPT [0:0]",
        ":ISTIO_INBOUND - [0:0]",
        ":ISTIO_DIVERT - [0:0]",
        ":ISTIO_TPROXY - [0:0]",
        f"-A ISTIO_DIVERT -j MARK --set-mark {ports.TPROXY_MARK}",
        "-A ISTIO_DIVERT -j ACCEPT",
        f"-A ISTIO_TPROXY ! -d {family.loopback} -p tcp -j {taken}",
    ]
    for name in _items(c.exclude_interfaces):
        out += [f"-A PREROUTING -i {name} -j RETURN", f"-A OUTPUT -o {name} -j RETURN"]
    out += [
        "-A PREROUTING -p tcp -j ISTIO_INBOUND",
        f"-A PREROUTING -p tcp {mark} -j CONNMARK --save-mark",
        f"-A ISTIO_INBOUND -p tcp {mark} -j RETURN",
        f"-A ISTIO_INBOUND -p tcp -s {family.guard} -i lo -j RETURN",
        # the application connects to itself by its own address
        f"-A ISTIO_INBOUND -p tcp -i lo -m mark ! --mark {ports.TPROXY_OWN_MARK} -j RETURN",
        "-A ISTIO_INBOUND -p tcp --dport 15008 -j RETURN",
    ]
    everything = c.include_ports == "*"
    if everything:
        out += [f"-A ISTIO_INBOUND -p tcp --dport {p} -j RETURN" for p in _items(c.exclude_ports)]
    for port in [""] if everything else [f" --dport {p}" for p in _items(c.include_ports)]:
        established = "-m conntrack --ctstate RELATED,ESTABLISHED"
        out.append(f"-A ISTIO_INBOUND -p tcp{port} {established} -j ISTIO_DIVERT")
        out.append(f"-A ISTIO_INBOUND -p tcp{port} -j ISTIO_TPROXY")
    out += [
        f"-A OUTPUT -p tcp -o lo {mark} -j RETURN",
        f"-A OUTPUT ! -d {family.loopback} -p tcp -o lo {mine} -j MARK --set-mark {ports.TPROXY_OWN_MARK}",
        f"-A OUTPUT -p tcp -m connmark --mark {ports.TPROXY_MARK} -j CONNMARK --restore-mark",
    ]
    return "\n".join([*out, "COMMIT", ""])


def nat(c: Capture, family: Family = V4) -> str:
    if c.mark is not None:
        own, other = f"-m mark --mark {c.mark}", f"-m mark ! --mark {c.mark}"
    elif c.by_group:
        own, other = f"-m owner --gid-owner {c.gid}", f"-m owner ! --gid-owner {c.gid}"
    else:
        own, other = f"-m owner --uid-owner {c.uid}", f"-m owner ! --uid-owner {c.uid}"
    out = [
        "*nat",
        ":PREROUTING ACCEPT [0:0]",
        ":OUTPUT ACCEPT [0:0]",
        ":ISTIO_INBOUND - [0:0]",
        ":ISTIO_IN_REDIRECT - [0:0]",
        ":ISTIO_OUTPUT - [0:0]",
        ":ISTIO_REDIRECT - [0:0]",
        f"-A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports {c.outbound}",
        f"-A ISTIO_IN_REDIRECT -p tcp -j REDIRECT --to-ports {c.inbound}",
    ]
    for name in _items(c.exclude_interfaces):
        out += [f"-A PREROUTING -i {name} -j RETURN", f"-A OUTPUT -o {name} -j RETURN"]
    for name in _items(c.kubevirt_interfaces):
        out += [f"-A PREROUTING -i {name} -d {r} -j RETURN" for r in family.own(c.exclude_ranges)]
        ranges = [""] if c.include_ranges == "*" else [f" -d {r}" for r in family.own(c.include_ranges)]
        out += [f"-A PREROUTING -i {name} -p tcp{r} -j ISTIO_REDIRECT" for r in ranges]
        out.append(f"-A PREROUTING -i {name} -j RETURN")
    if c.include_ports and not c.tproxy:
        out.append("-A PREROUTING -p tcp -j ISTIO_INBOUND")
        out.append("-A ISTIO_INBOUND -p tcp --dport 15008 -j RETURN")
        if c.include_ports == "*":
            out += [f"-A ISTIO_INBOUND -p tcp --dport {p} -j RETURN" for p in _items(c.exclude_ports)]
            out.append("-A ISTIO_INBOUND -p tcp -j ISTIO_IN_REDIRECT")
        else:
            out += [f"-A ISTIO_INBOUND -p tcp --dport {p} -j ISTIO_IN_REDIRECT" for p in _items(c.include_ports)]
    if c.dns:
        # UDP and TCP; queries of the proxy and the agent themselves go to the real servers
        for kind in ("udp", "tcp"):
            out.append(f"-A OUTPUT -p {kind} --dport 53 {own} -j RETURN")
            out.append(f"-A OUTPUT -p {kind} --dport 53 -j REDIRECT --to-ports {c.dns}")
    out.append("-A OUTPUT -p tcp -j ISTIO_OUTPUT")
    out += [f"-A ISTIO_OUTPUT -p tcp --dport {p} -j RETURN" for p in _items(c.exclude_outbound_ports)]
    out += [
        f"-A ISTIO_OUTPUT -s {family.guard} -o lo -j RETURN",
        # from the proxy to the application, with the client's address
        *([f"-A ISTIO_OUTPUT -o lo -m mark --mark {ports.TPROXY_MARK} -j RETURN"] if c.tproxy else []),
        # the proxy connects to its own workload by its address: redirect to the inbound listener
        f"-A ISTIO_OUTPUT ! -d {family.loopback} -o lo -p tcp ! --dport 15008 {own} -j ISTIO_IN_REDIRECT",
        f"-A ISTIO_OUTPUT -o lo {other} -j RETURN",
        f"-A ISTIO_OUTPUT {own} -j RETURN",
        f"-A ISTIO_OUTPUT -d {family.loopback} -j RETURN",
    ]
    out += [f"-A ISTIO_OUTPUT -d {r} -j RETURN" for r in family.own(c.exclude_ranges)]
    if c.include_outbound_ports == "*":
        out.append("-A ISTIO_OUTPUT -j ISTIO_REDIRECT")
    else:
        out += [f"-A ISTIO_OUTPUT -p tcp --dport {p} -j ISTIO_REDIRECT" for p in _items(c.include_outbound_ports)]
    if c.include_ranges == "*":
        out.append("-A ISTIO_OUTPUT -j ISTIO_REDIRECT")
    else:
        out += [f"-A ISTIO_OUTPUT -d {r} -j ISTIO_REDIRECT" for r in family.own(c.include_ranges)]
        out.append("-A ISTIO_OUTPUT -j RETURN")
    return "\n".join([*out, "COMMIT", ""])


def commented(made: str) -> str:
    """The rules, with a comment at those outside of our chains, by which ``removal`` knows them."""
    lines = made.split("\n")
    return "\n".join(
        line.replace(" -j ", f" -m comment --comment {COMMENT} -j ", 1) if line.startswith(BUILT_IN) else line
        for line in lines
    )


def removal(table: str, saved: str) -> str:
    """What takes our rules out of a table that iptables-save has printed; empty if there are none."""
    lines = saved.splitlines()
    chains = [line.split()[0].removeprefix(":") for line in lines if line.startswith(":ISTIO_")]
    gone = _deletions(saved) + [f"-{how} {c}" for how in "FX" for c in chains]
    return "\n".join([f"*{table}", *gone, "COMMIT", ""]) if gone else ""


def _deletions(saved: str) -> list[str]:
    """What takes our rules out of the chains that are not ours."""
    ours = [line for line in saved.splitlines() if line.startswith(BUILT_IN) and _is_ours(line)]
    return [f"-D{line.removeprefix('-A')}" for line in ours]


def _is_ours(line: str) -> bool:
    """Those with our comment; and without it, where the kernel has none, those that lead to our chains or ports: with
    neither, traffic would end nowhere."""
    words = line.replace('"', "").split()
    if "--comment" in words:
        return words[words.index("--comment") + 1] == COMMENT
    target = words[words.index("-j") + 1] if "-j" in words else ""
    return target.startswith("ISTIO_") or words[-2:] == ["--to-ports", str(ports.DNS)]
