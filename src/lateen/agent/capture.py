"""istio-iptables: writes a pod's redirection rules (``rules``), those of a family by a single iptables-restore.

IPv6 is redirected wherever the network namespace has it, whether or not the pod has an address of its own: until it
gets one, nobody listens at 15006 there, and connections are refused. (Istio: where the pod's own address is IPv6, or
by ISTIO_DUAL_STACK.) The source ``::6`` becomes an address of the pod, as in Istio: only ``::1`` is local by itself.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from dataclasses import replace

from lateen.agent import interfaces
from lateen.agent.rules import TABLES, V4, V6, Capture, Family, commented, mangle, nat, removal, replacing
from lateen.wire import ports


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
    said = []
    no_v6 = _no_v6(c, inside)
    families = (V4,) if no_v6 else (V4, V6)
    if no_v6:
        said.append(f"IPv6 is not redirected: {no_v6}")
    if c.tproxy and (no := next((no for f in families if (no := _no_tproxy(c, f, inside))), "")):
        said.append(
            f"TPROXY is not possible here ({no}): connections are redirected as with REDIRECT, and the application\n"
            "does not see the client's address"
        )
        c = replace(c, tproxy=False)
    for family in families:
        _write(c, family, inside)
    return c, "\n".join(said)


def _write(c: Capture, family: Family, inside: tuple[str, ...]) -> None:
    made = replacing(c, {table: _saved(family, table, inside) for table in TABLES}, family)
    if not inside and not _restore(family, commented(made)):
        return
    if failed := _restore(family, made, inside=inside):  # without comments, which some kernels do not have
        raise NotWritten(failed)


def _no_v6(c: Capture, inside: tuple[str, ...]) -> str:
    """Why IPv6 is not redirected; adds the source of the proxy's connections if it is. Raises NotWritten if others can
    reach the pod by IPv6: its application would be open to everybody."""
    found = interfaces.ipv6(_output([*inside, *interfaces.SHOW]))
    if found is None:
        return "this network namespace has none"
    failed = _restore(V6, nat(c, V6), "--test", inside=inside) or _run([*inside, *_guard("add")])
    if failed and "File exists" not in failed:
        if found:
            raise NotWritten(f"the pod has the IPv6 address {found[0]}, which cannot be redirected: {failed}")
        return f"{failed}; the pod has no IPv6 address but local ones"
    return ""


def _guard(verb: str) -> list[str]:
    return f"ip -6 addr {verb} {V6.guard} dev lo".split()


def missing(inside: tuple[str, ...] = ()) -> str:
    """The programs whose rules should be there and are not, those of IPv6 only where the pod has an address; empty if
    there are none."""
    v6 = interfaces.ipv6(_output([*inside, *interfaces.SHOW]))
    wanted = (V4, V6) if v6 else (V4,)
    return ", ".join(f.tool for f in wanted if "-A OUTPUT -p tcp -j ISTIO_OUTPUT" not in _saved(f, "nat", inside))


def remove() -> str:
    """Remove our rules from a machine; the error message, empty on success."""
    if not shutil.which("iptables-save"):
        return "iptables is not installed"
    failed = []
    for family in (V4, V6):
        if text := "".join(removal(table, _saved(family, table)) for table in TABLES):
            failed.append(_restore(family, text))
            if family is V6:
                _run(_guard("del"))
    return "; ".join(filter(None, failed))


def _saved(family: Family, table: str, inside: tuple[str, ...] = ()) -> str:
    """What iptables-save prints; empty where there is no such table, or no such program."""
    return _output([*inside, f"{family.tool}-save", "-t", table])


def _output(command: list[str]) -> str:
    try:
        return subprocess.run(command, text=True, capture_output=True, timeout=30, check=False).stdout
    except FileNotFoundError:
        return ""


def _restore(family: Family, text: str, *options: str, inside: tuple[str, ...] = ()) -> str:
    """The error message; empty on success."""
    return _run([*inside, f"{family.tool}-restore", "-w", "10", "--noflush", *options], text)


def _run(command: list[str], text: str = "") -> str:
    try:
        done = subprocess.run(command, input=text, text=True, capture_output=True, timeout=30, check=False)
    except FileNotFoundError:
        return f"{command[0]} is not installed in this image"
    return done.stderr.strip() or f"{command[0]} failed" if done.returncode else ""


def _no_tproxy(c: Capture, family: Family, inside: tuple[str, ...]) -> str:
    """Why TPROXY is not possible; sets up its routes if it is."""
    if c.mark is not None:
        return "without root on the host, the socket mark that TPROXY needs identifies the proxy"
    if failed := _restore(family, mangle(c, family), "--test", inside=inside):
        return failed
    for what in (f"rule add {ROUTES}", f"route replace local default dev lo table {ports.TPROXY_TABLE}"):
        if (failed := _run([*inside, "ip", f"-{family.version}", *what.split()])) and "File exists" not in failed:
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
    _arrives(socket.AF_INET, "0.0.0.0", "127.0.0.1", ports.GUARD, c.inbound)
    if interfaces.ipv6(_output([*interfaces.SHOW])):
        _arrives(socket.AF_INET6, "::", "::1", ports.GUARD_V6, c.inbound)
    print("the CNI plugin's redirection works")


def _arrives(family: socket.AddressFamily, anywhere: str, source: str, target: str, port: int) -> None:
    with socket.socket(family) as server, socket.socket(family) as client:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((anywhere, port))
        server.listen()
        server.settimeout(5)
        client.settimeout(5)
        try:
            client.bind((source, 0))
            client.connect((target, port + 1))
            server.accept()[0].close()
        except OSError as e:
            sys.exit(
                f"istio-iptables: the pod's traffic is not redirected ({e}); is the CNI plugin ready on this node?"
            )
