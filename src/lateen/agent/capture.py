"""istio-iptables: writes a pod's redirection rules (``rules``), those of a family by a single iptables-restore.

IPv6 is redirected wherever the network namespace has it, whether or not the pod has an address of its own: until it
gets one, nobody listens at 15001 and 15006 there, and connections are refused; then Envoy is started again
(``following``). (Istio: where the pod's own address is IPv6, or
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
    v6 = interfaces.ipv6(_output([*inside, *interfaces.SHOW]))
    no_v6 = _no_v6(c, v6, inside)
    said = [f"IPv6 is not redirected: {no_v6}"] if no_v6 else []
    wanted, no_tproxy = _by_family(c, (V4,) if no_v6 else (V4, V6), inside, v6=bool(v6))
    for family, made in wanted.items():
        _write(made, family, inside)
    return wanted[V4], "\n".join([*said, *([no_tproxy] if no_tproxy else [])])


def _by_family(
    c: Capture, families: tuple[Family, ...], inside: tuple[str, ...], *, v6: bool
) -> tuple[dict[Family, Capture], str]:
    """What is written for each family, and why it differs from the request. TPROXY is used for all families by which
    others reach the pod, or for none: there is one listener for inbound connections, and it has to know. ``v6``:
    whether IPv6 is one of them; if not, its connections are redirected to where nobody listens. Routes are made after
    all families have been tried, because they are what ``transparent`` looks for."""
    plain = dict.fromkeys(families, replace(c, tproxy=False))
    if not c.tproxy:
        return plain, ""
    able = {f: _no_tproxy(c, f, inside) for f in families}
    failed = able[V4] or (able.get(V6, "") if v6 else "")
    failed = failed or next((no for f in families if not able[f] and (no := _routed(f, inside))), "")
    if failed:
        for family in families:
            _unrouted(family, inside)
        return plain, (
            f"TPROXY is not possible here ({failed}): connections are redirected as with REDIRECT, and the\n"
            "application does not see the client's address"
        )
    refused = f"TPROXY is not possible by IPv6 ({able[V6]}), of which the pod has only link-local addresses"
    return {f: plain[f] if no else c for f, no in able.items()}, f"{refused}: they are closed" if able.get(V6) else ""


def _write(c: Capture, family: Family, inside: tuple[str, ...]) -> None:
    made = replacing(c, {table: _saved(family, table, inside) for table in TABLES}, family)
    if not inside and not _restore(family, commented(made)):
        return
    if failed := _restore(family, made, inside=inside):  # without comments, which some kernels do not have
        raise NotWritten(failed)


def _no_v6(c: Capture, found: list[str] | None, inside: tuple[str, ...]) -> str:
    """Why IPv6 is not redirected; adds the source of the proxy's connections if it is. Raises NotWritten if others can
    reach the pod by IPv6 (``found``): its application would be open to everybody."""
    if found is None:
        return "this network namespace has none"
    failed = _restore(V6, nat(c, V6), "--test", inside=inside) or _run([*inside, *_guard("add")])
    if failed and "File exists" not in failed:
        if found:
            raise NotWritten(f"the pod has the IPv6 address {found[0]}, which cannot be redirected: {failed}")
        return f"{failed}; the pod has only link-local IPv6 addresses"
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
            _unrouted(family)
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
    """Why TPROXY is not possible; changes nothing."""
    if c.mark is not None:
        return "without root on the host, the socket mark that TPROXY needs identifies the proxy"
    return _restore(family, mangle(c, family), "--test", inside=inside)


ROUTES = (
    ("rule", ("add", "del"), f"fwmark {ports.TPROXY_MARK} lookup {ports.TPROXY_TABLE}"),
    ("route", ("replace", "del"), f"local default dev lo table {ports.TPROXY_TABLE}"),
)
"""What ``ip`` makes for TPROXY: the kind, how it is added and deleted, and the object."""


def _routed(family: Family, inside: tuple[str, ...]) -> str:
    """The error message; empty on success."""
    for kind, (add, _), what in ROUTES:
        failed = _run([*inside, "ip", f"-{family.version}", kind, add, *what.split()])
        if failed and "File exists" not in failed:
            return failed
    return ""


def _unrouted(family: Family, inside: tuple[str, ...] = ()) -> None:
    """Delete what ``_routed`` or an earlier run has made, if there is anything."""
    for kind, (_, delete), what in ROUTES:
        _run([*inside, "ip", f"-{family.version}", kind, delete, *what.split()])


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
