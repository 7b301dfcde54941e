"""istio-iptables: a pod's redirection rules, as data and as input of a single iptables-restore.

The rules are Istio's: outgoing connections are redirected to 15001 and incoming ones to 15006; the proxy's own
traffic is exempt. The proxy is identified by its user id, or by a socket mark where ids cannot differ.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass, replace

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


class UsageError(ValueError):
    """An argument that istio-iptables does not have."""


_FLAGS = {
    "-p": "outbound",
    "-z": "inbound",
    "-u": "uid",
    "-i": "include_ranges",
    "-x": "exclude_ranges",
    "-b": "include_ports",
    "-d": "exclude_ports",
    "-o": "exclude_outbound_ports",
    "-q": "include_outbound_ports",
    "-k": "kubevirt_interfaces",
    "-c": "exclude_interfaces",
}


def parse(arguments: list[str], mark: int | None = None, dns: bool = False) -> Capture:
    """Parse Istio's short flags; ``dns`` is the default for whether DNS is redirected. Raises UsageError."""
    values: dict[str, object] = {"mark": mark, "dns": ports.DNS if dns else 0}
    rest = list(arguments)
    while rest:
        flag = rest.pop(0)
        if flag.startswith(("--log_output_level", "--log_as_json")):
            continue  # the output is always a single line
        if flag == "--force-apply":
            continue  # existing rules are always replaced
        if flag in ("--run-validation", "--skip-rule-apply"):
            values["validate"] = True
            continue
        if flag.startswith("--redirect-dns"):
            values["dns"] = ports.DNS if flag.partition("=")[2] in ("", "true") else 0
            continue
        if not rest:
            raise UsageError(f"{flag} needs a value")
        value = rest.pop(0)
        if flag == "-m":
            if value not in ("REDIRECT", "TPROXY"):
                raise UsageError(f"-m {value}: must be REDIRECT or TPROXY")
            values["tproxy"] = values["by_group"] = value == "TPROXY"
        elif flag in _FLAGS:
            name = _FLAGS[flag]
            values[name] = int(value) if name in ("outbound", "inbound", "uid") else value
        else:
            raise UsageError(f"unknown flag {flag}")
    return Capture(**values)  # type: ignore[arg-type]


def _items(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def rules(c: Capture) -> str:
    """The tables in the format of iptables-restore. Pure."""
    return replacing(c, {})


def replacing(c: Capture, saved: dict[str, str]) -> str:
    """The rules in the place of those of ours in ``saved`` (table -> what iptables-save has printed). Each table is
    replaced as a whole, and one that is no longer needed is emptied last: traffic is redirected all the time. Pure."""
    made = ({"mangle": mangle(c)} if c.tproxy and c.include_ports else {}) | {"nat": nat(c)}
    out = []
    for table, text in made.items():
        lines = text.split("\n")
        at = 1 + sum(line.startswith(":") for line in lines)  # declaring our chains empties them
        out.append("\n".join([*lines[:at], *_deletions(saved.get(table, "")), *lines[at:]]))
    return "".join([*out, *(removal(table, text) for table, text in saved.items() if table not in made)])


def mangle(c: Capture) -> str:
    """Inbound connections by TPROXY. Packets for the proxy's sockets are marked, and routed to the loopback
    interface by a separate routing table; packets from the proxy to the application with the client's address have
    the same mark."""
    mark, mine = f"-m mark --mark {ports.TPROXY_MARK}", f"-m owner --gid-owner {c.gid}"
    out = [
        "*mangle",
        ":PREROUTING ACCEPT [0:0]",
        ":OUTPUT ACCEPT [0:0]",
        ":ISTIO_INBOUND - [0:0]",
        ":ISTIO_DIVERT - [0:0]",
        ":ISTIO_TPROXY - [0:0]",
        f"-A ISTIO_DIVERT -j MARK --set-mark {ports.TPROXY_MARK}",
        "-A ISTIO_DIVERT -j ACCEPT",
        f"-A ISTIO_TPROXY ! -d 127.0.0.1/32 -p tcp -j TPROXY --tproxy-mark {ports.TPROXY_MARK} --on-port {c.inbound}",
    ]
    for name in _items(c.exclude_interfaces):
        out += [f"-A PREROUTING -i {name} -j RETURN", f"-A OUTPUT -o {name} -j RETURN"]
    out += [
        "-A PREROUTING -p tcp -j ISTIO_INBOUND",
        f"-A PREROUTING -p tcp {mark} -j CONNMARK --save-mark",
        f"-A ISTIO_INBOUND -p tcp {mark} -j RETURN",
        "-A ISTIO_INBOUND -p tcp -s 127.0.0.6/32 -i lo -j RETURN",
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
        f"-A OUTPUT ! -d 127.0.0.1/32 -p tcp -o lo {mine} -j MARK --set-mark {ports.TPROXY_OWN_MARK}",
        f"-A OUTPUT -p tcp -m connmark --mark {ports.TPROXY_MARK} -j CONNMARK --restore-mark",
    ]
    return "\n".join([*out, "COMMIT", ""])


def nat(c: Capture) -> str:
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
        out += [f"-A PREROUTING -i {name} -d {r} -j RETURN" for r in _items(c.exclude_ranges)]
        ranges = [""] if c.include_ranges == "*" else [f" -d {r}" for r in _items(c.include_ranges)]
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
        "-A ISTIO_OUTPUT -s 127.0.0.6/32 -o lo -j RETURN",
        # from the proxy to the application, with the client's address
        *([f"-A ISTIO_OUTPUT -o lo -m mark --mark {ports.TPROXY_MARK} -j RETURN"] if c.tproxy else []),
        # the proxy connects to its own workload by its address: redirect to the inbound listener
        f"-A ISTIO_OUTPUT ! -d 127.0.0.1/32 -o lo -p tcp ! --dport 15008 {own} -j ISTIO_IN_REDIRECT",
        f"-A ISTIO_OUTPUT -o lo {other} -j RETURN",
        f"-A ISTIO_OUTPUT {own} -j RETURN",
        "-A ISTIO_OUTPUT -d 127.0.0.1/32 -j RETURN",
    ]
    out += [f"-A ISTIO_OUTPUT -d {r} -j RETURN" for r in _items(c.exclude_ranges)]
    if c.include_outbound_ports == "*":
        out.append("-A ISTIO_OUTPUT -j ISTIO_REDIRECT")
    else:
        out += [f"-A ISTIO_OUTPUT -p tcp --dport {p} -j ISTIO_REDIRECT" for p in _items(c.include_outbound_ports)]
    if c.include_ranges == "*":
        out.append("-A ISTIO_OUTPUT -j ISTIO_REDIRECT")
    else:
        out += [f"-A ISTIO_OUTPUT -d {r} -j ISTIO_REDIRECT" for r in _items(c.include_ranges)]
        out.append("-A ISTIO_OUTPUT -j RETURN")
    return "\n".join([*out, "COMMIT", ""])


class NotWritten(Exception):
    """The rules could not be written; the message says why."""


def install(c: Capture) -> None:
    """Write the rules. Raises SystemExit with a sentence if that fails."""
    try:
        written, why = write(c)
    except NotWritten as e:
        sys.exit(f"istio-iptables: {e} (the container needs the capability NET_ADMIN)")
    if why:
        print(why)
    how = "by TPROXY" if written.tproxy else "redirected"
    print(f"redirected: outbound to {c.outbound}; inbound {how} to {c.inbound}; except what the proxy itself sends")


def write(c: Capture, inside: tuple[str, ...] = ()) -> tuple[Capture, str]:
    """Write the rules; returns what was written, and why it differs from the request. ``inside``: a command prefix that
    enters another network namespace. Raises NotWritten."""
    why = ""
    if c.tproxy and (no := _no_tproxy(c, inside)):
        why = (
            f"TPROXY is not possible here ({no}): connections are redirected as with REDIRECT, and the application\n"
            "does not see the client's address"
        )
        c = replace(c, tproxy=False)
    made = replacing(c, {table: _saved(table, inside) for table in TABLES})
    if not inside and not _restore(commented(made)):
        return c, why
    if failed := _restore(made, inside=inside):  # without comments, which some kernels do not have
        raise NotWritten(failed)
    return c, why


def remove() -> str:
    """Remove our rules from a machine; the error message, empty on success."""
    if not shutil.which("iptables-save"):
        return "iptables is not installed"
    text = "".join(removal(table, _saved(table)) for table in TABLES)
    return _restore(text) if text else ""


def _saved(table: str, inside: tuple[str, ...] = ()) -> str:
    """What iptables-save prints; empty where there is no such table, or no such program."""
    command = [*inside, "iptables-save", "-t", table]
    try:
        return subprocess.run(command, text=True, capture_output=True, timeout=30, check=False).stdout
    except FileNotFoundError:
        return ""


def commented(made: str) -> str:
    """The rules, with a comment at those outside of our chains, by which ``removal`` knows them. Pure."""
    lines = made.split("\n")
    return "\n".join(
        line.replace(" -j ", f" -m comment --comment {COMMENT} -j ", 1) if line.startswith(BUILT_IN) else line
        for line in lines
    )


def removal(table: str, saved: str) -> str:
    """What takes our rules out of a table that iptables-save has printed; empty if there are none. Pure."""
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


def _restore(text: str, *options: str, inside: tuple[str, ...] = ()) -> str:
    """The error message; empty on success."""
    return _run([*inside, "iptables-restore", "-w", "10", "--noflush", *options], text)


def _run(command: list[str], text: str = "") -> str:
    try:
        done = subprocess.run(command, input=text, text=True, capture_output=True, timeout=30, check=False)
    except FileNotFoundError:
        return f"{command[0]} is not installed in this image"
    return done.stderr.strip() or f"{command[0]} failed" if done.returncode else ""


def _no_tproxy(c: Capture, inside: tuple[str, ...] = ()) -> str:
    """Why TPROXY is not possible; sets up its routes if it is."""
    if c.mark is not None:
        return "without root on the host, the socket mark that TPROXY needs identifies the proxy"
    if failed := _restore(mangle(c), "--test", inside=inside):
        return failed
    for command in (f"ip rule add {ROUTES}", f"ip route replace local default dev lo table {ports.TPROXY_TABLE}"):
        if (failed := _run([*inside, *command.split()])) and "File exists" not in failed:
            return failed
    return ""


ROUTES = f"fwmark {ports.TPROXY_MARK} lookup {ports.TPROXY_TABLE}"


def transparent() -> bool:
    """Whether TPROXY is in use, that is, istio-iptables or a CNI plugin has created its routes."""
    try:
        done = subprocess.run(["ip", "rule"], text=True, capture_output=True, timeout=10, check=False)
    except OSError:
        return False
    found = f"lookup {ports.TPROXY_TABLE}"
    return any("fwmark" in line and line.rstrip().endswith(found) for line in done.stdout.splitlines())


def validate(c: Capture) -> None:
    """Check that the rules written by a CNI plugin work: a connection of the proxy's own user to the pod itself must
    arrive at the inbound port. Raises SystemExit with a sentence if it does not."""
    with socket.socket() as server, socket.socket() as client:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("0.0.0.0", c.inbound))
        server.listen()
        server.settimeout(5)
        client.settimeout(5)
        try:
            client.connect(("127.0.0.6", c.inbound + 1))
            server.accept()[0].close()
        except OSError as e:
            sys.exit(
                f"istio-iptables: the pod's traffic is not redirected ({e}); is the CNI plugin ready on this node?"
            )
    print("the CNI plugin's redirection works")
