"""istio-iptables: a pod's redirection rules, as data and as input of a single iptables-restore.

The rules are Istio's: outgoing connections are redirected to 15001 and incoming ones to 15006; what the proxy itself
sends passes unchanged. The proxy is identified by its user id, or by a socket mark where ids cannot differ.
"""

from __future__ import annotations

import socket
import subprocess
import sys
from dataclasses import dataclass

from lateen.wire import ports


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
    """Interfaces of virtual machines in the pod: what arrives on them is outbound traffic."""
    exclude_interfaces: str = ""
    dns: int = 0
    """The port that DNS is redirected to; 0 for none."""
    tproxy: bool = False
    """TPROXY was asked for; the rules are those of REDIRECT."""
    validate: bool = False
    """A CNI plugin has written the rules; only check that they work."""


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
            continue  # one line is all that is ever written
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
            values["tproxy"] = value == "TPROXY"
        elif flag in _FLAGS:
            name = _FLAGS[flag]
            values[name] = int(value) if name in ("outbound", "inbound", "uid") else value
        else:
            raise UsageError(f"unknown flag {flag}")
    return Capture(**values)  # type: ignore[arg-type]


def _items(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def rules(c: Capture) -> str:
    """The nat table in the format of iptables-restore. Pure."""
    own = f"-m mark --mark {c.mark}" if c.mark is not None else f"-m owner --uid-owner {c.uid}"
    other = f"-m mark ! --mark {c.mark}" if c.mark is not None else f"-m owner ! --uid-owner {c.uid}"
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
    if c.include_ports:
        out.append("-A PREROUTING -p tcp -j ISTIO_INBOUND")
        out.append("-A ISTIO_INBOUND -p tcp --dport 15008 -j RETURN")
        if c.include_ports == "*":
            out += [f"-A ISTIO_INBOUND -p tcp --dport {p} -j RETURN" for p in _items(c.exclude_ports)]
            out.append("-A ISTIO_INBOUND -p tcp -j ISTIO_IN_REDIRECT")
        else:
            out += [f"-A ISTIO_INBOUND -p tcp --dport {p} -j ISTIO_IN_REDIRECT" for p in _items(c.include_ports)]
    if c.dns:
        # Over UDP and TCP; queries of the proxy and the agent themselves go to the real servers.
        for kind in ("udp", "tcp"):
            out.append(f"-A OUTPUT -p {kind} --dport 53 {own} -j RETURN")
            out.append(f"-A OUTPUT -p {kind} --dport 53 -j REDIRECT --to-ports {c.dns}")
    out.append("-A OUTPUT -p tcp -j ISTIO_OUTPUT")
    out += [f"-A ISTIO_OUTPUT -p tcp --dport {p} -j RETURN" for p in _items(c.exclude_outbound_ports)]
    out += [
        "-A ISTIO_OUTPUT -s 127.0.0.6/32 -o lo -j RETURN",
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


def install(c: Capture) -> None:
    """Write the rules. Raises SystemExit with a sentence if that fails."""
    try:
        done = subprocess.run(
            ["iptables-restore", "-w", "10", "--noflush"],
            input=rules(c),
            text=True,
            capture_output=True,
            timeout=30,
            check=False,
        )
    except FileNotFoundError:
        sys.exit("istio-iptables: iptables-restore is not installed in this image")
    if done.returncode != 0:
        sys.exit(f"istio-iptables: {done.stderr.strip()} (the container needs the capability NET_ADMIN)")
    if c.tproxy:
        print("TPROXY: connections are redirected as with REDIRECT; the application does not see the client's address")
    print(f"redirected: outbound to {c.outbound}, inbound to {c.inbound}, except for what the proxy itself sends")


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
