"""istio-iptables: the article's own arguments."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest

from lateen.agent import capture, interfaces, rules

ARTICLE = [
    "-p",
    "15001",
    "-z",
    "15006",
    "-u",
    "1337",
    "-m",
    "REDIRECT",
    "-i",
    "*",
    "-x",
    "",
    "-b",
    "*",
    "-d",
    "15090,15021,15020",
]


def test_the_articles_arguments_are_the_defaults():
    assert capture.parse(ARTICLE) == rules.Capture()


def test_the_proxys_own_traffic_is_left_alone():
    text = rules.rules(capture.parse(ARTICLE))
    assert "-A ISTIO_OUTPUT -m owner --uid-owner 1337 -j RETURN" in text
    assert "--dport 15021 -j RETURN" in text
    assert text.endswith("COMMIT\n")


def test_where_user_ids_cannot_differ_a_mark_tells_the_proxy_apart():
    text = rules.rules(capture.parse(ARTICLE, mark=1337))
    assert "-m mark --mark 1337 -j RETURN" in text
    assert "owner" not in text


MINE = "-m comment --comment lateen"
SAVED = f"""*nat
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:ISTIO_OUTPUT - [0:0]
:DOCKER - [0:0]
-A PREROUTING -i eth1 {MINE} -j RETURN
-A PREROUTING -i eth2 -j RETURN
-A PREROUTING -p tcp {MINE} -j ISTIO_INBOUND
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT -d 10.1.1.1/32 -p udp -m udp --dport 53 -j DNAT --to-destination 10.2.2.2
-A OUTPUT -p udp -m udp --dport 53 -m owner --uid-owner 1337 {MINE} -j RETURN
-A OUTPUT -p udp -m udp --dport 53 {MINE} -j REDIRECT --to-ports 15053
-A OUTPUT -p tcp -m comment --comment "not lateen" -j ACCEPT
-A OUTPUT -p tcp {MINE} -j ISTIO_OUTPUT
-A ISTIO_OUTPUT -o lo -j RETURN
COMMIT
"""


def test_a_machine_gets_back_what_was_redirected_and_keeps_the_rules_of_others():
    assert rules.removal("nat", SAVED).splitlines() == [
        "*nat",
        f"-D PREROUTING -i eth1 {MINE} -j RETURN",
        f"-D PREROUTING -p tcp {MINE} -j ISTIO_INBOUND",
        f"-D OUTPUT -p udp -m udp --dport 53 -m owner --uid-owner 1337 {MINE} -j RETURN",
        f"-D OUTPUT -p udp -m udp --dport 53 {MINE} -j REDIRECT --to-ports 15053",
        f"-D OUTPUT -p tcp {MINE} -j ISTIO_OUTPUT",
        "-F ISTIO_OUTPUT",
        "-X ISTIO_OUTPUT",
        "COMMIT",
    ]
    others = [line for line in SAVED.splitlines() if "ISTIO" not in line and MINE not in line]
    assert rules.removal("nat", "\n".join(others)) == ""


def test_where_the_kernel_has_no_comments_what_leads_to_the_proxy_is_removed():
    bare = SAVED.replace(f" {MINE}", "")
    assert [line for line in rules.removal("nat", bare).splitlines() if line.startswith("-D")] == [
        "-D PREROUTING -p tcp -j ISTIO_INBOUND",
        "-D OUTPUT -p udp -m udp --dport 53 -j REDIRECT --to-ports 15053",
        "-D OUTPUT -p tcp -j ISTIO_OUTPUT",
    ]


def test_rules_are_written_without_comments_where_the_kernel_has_none(monkeypatch):
    written = []

    def restore(family, text, *options, inside=()):
        if "--comment" in text:
            return "iptables-restore: unable to load the match"
        written.append(text)
        return ""

    monkeypatch.setattr(capture, "_restore", restore)
    monkeypatch.setattr(capture, "_saved", lambda *_: "")
    monkeypatch.setattr(capture, "_output", lambda *_: "")  # no IPv6
    capture.write(rules.Capture())
    assert written == [rules.rules(rules.Capture())]


ARGUMENTS = ["-m", "TPROXY", "-c", "eth1", "-k", "net0", "-x", "10.9.0.0/16,fd00:9::/64", "--redirect-dns"]


@pytest.mark.parametrize("family", [rules.V4, rules.V6], ids=lambda f: f.tool)
@pytest.mark.parametrize("kind", ["nft", "legacy"])
@pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")
def test_what_was_written_is_removed_exactly_from_a_kernels_tables(kind, family):
    """In a network namespace of its own, with rules of somebody else before and after."""
    tool = f"{family.tool}-{kind}"
    if not shutil.which(f"{tool}-restore"):
        pytest.skip(f"there is no {tool}")

    def inside(text, *command):
        done = subprocess.run(command, input=text, text=True, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    name = f"lateen-{os.getpid()}-{tool}"
    enter = ("ip", "netns", "exec", name)
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        theirs = "*nat\n-A OUTPUT -p udp --dport 53 -j RETURN\n-A PREROUTING -i eth2 -j RETURN\nCOMMIT\n"
        inside(theirs, *enter, f"{tool}-restore", "--noflush")
        before = tables(inside, enter, tool)
        write(inside, enter, tool, family, ARGUMENTS)
        once = tables(inside, enter, tool)
        for arguments in (ARGUMENTS, ARTICLE, ARGUMENTS):  # a sidecar that starts again; other settings; and back
            write(inside, enter, tool, family, arguments)
            assert bool(tables(inside, enter, tool)["mangle"]) == (arguments is ARGUMENTS)
        assert tables(inside, enter, tool) == once
        assert "-A OUTPUT -o eth1 -m comment --comment lateen -j RETURN" in tables(inside, enter, tool)["nat"]
        for table in ("nat", "mangle"):
            saved = inside("", *enter, f"{tool}-save", "-t", table)
            inside(rules.removal(table, saved), *enter, f"{tool}-restore", "--noflush")
        assert tables(inside, enter, tool) == before | {"mangle": []}
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)


ASKING = """
import socket, sys
print("asking", flush=True)
while True:
    try:
        socket.create_connection((sys.argv[1], 8080), 5).close()
    except ConnectionRefusedError:
        continue
    sys.exit("reached the application")
"""


@pytest.mark.parametrize("family", [rules.V4, rules.V6], ids=lambda f: f.tool)
@pytest.mark.parametrize("kind", ["nft", "legacy"])
@pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")
def test_nobody_gets_past_rules_while_they_are_written_again(kind, family):
    """An application without a sidecar, and somebody who asks for it all the time."""
    tool = f"{family.tool}-{kind}"
    if not shutil.which(f"{tool}-restore"):
        pytest.skip(f"there is no {tool}")

    def inside(text, *command):
        return subprocess.run(command, input=text, text=True, capture_output=True, check=True).stdout

    names = [f"lateen-{os.getpid()}-{tool}-{side}" for side in "ac"]
    enter, outside = (("ip", "netns", "exec", name) for name in names)
    net, prefix = ("198.51.100.", "30") if family is rules.V4 else ("2001:db8::", "64 nodad")
    ask = [*outside, sys.executable, "-c", ASKING, f"{net}1"]
    application = asking = None
    try:
        for name in names:
            inside("", "ip", "netns", "add", name)
        inside("", *enter, *f"ip link add v0 type veth peer name v0 netns {names[1]}".split())
        for there, address in ((enter, 1), (outside, 2)):
            inside("", *there, *f"ip addr add {net}{address}/{prefix} dev v0".split())
            inside("", *there, *["ip", "link", "set", "v0", "up"])
        serve = (
            "import socket,time; f=socket.AF_INET6; s=socket.create_server(('', 8080), family=f, dualstack_ipv6=True)"
        )
        serve += "; print('up', flush=True); time.sleep(600)"
        application = subprocess.Popen([*enter, sys.executable, "-c", serve], stdout=subprocess.PIPE)
        application.stdout.readline()
        assert subprocess.run(ask, capture_output=True, check=False).stderr == b"reached the application\n"
        write(inside, enter, tool, family, ARTICLE)
        asking = subprocess.Popen(ask, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        asking.stdout.readline()
        for arguments in [[*ARTICLE, "--redirect-dns"], ARTICLE] * 20:
            write(inside, enter, tool, family, arguments)
        assert asking.poll() is None, asking.stderr.read()
    finally:
        for process in filter(None, (asking, application)):
            process.kill()
            process.communicate()
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], check=False)


def write(inside, enter, tool, family, arguments):
    saved = {t: inside("", *enter, f"{tool}-save", "-t", t) for t in rules.TABLES}
    made = rules.commented(rules.replacing(capture.parse(arguments), saved, family))
    assert made.count("*nat") == 1, "a table that is written twice is half empty in between"
    inside(made, *enter, f"{tool}-restore", "--noflush")


def tables(inside, enter, tool):
    found = {t: inside("", *enter, f"{tool}-save", "-t", t) for t in ("nat", "mangle")}
    return {t: [line for line in text.splitlines() if line.startswith("-A")] for t, text in found.items()}


def test_ranges_are_for_the_family_that_they_belong_to():
    """As in Istio: the annotations take ranges of both."""
    wanted = capture.parse(["-i", "10.0.0.0/8,fd00:1::/64", "-x", "10.9.0.0/16,fd00:1::9/128", "-k", "net0"])
    v4, v6 = rules.rules(wanted), rules.rules(wanted, rules.V6)
    assert "-A ISTIO_OUTPUT -d 10.9.0.0/16 -j RETURN" in v4
    assert "fd00" not in v4
    assert "-A ISTIO_OUTPUT -d fd00:1::9/128 -j RETURN" in v6
    assert "10." not in v6
    assert "-A ISTIO_OUTPUT -d fd00:1::/64 -j ISTIO_REDIRECT" in v6
    assert "-A PREROUTING -i net0 -p tcp -d fd00:1::/64 -j ISTIO_REDIRECT" in v6


@pytest.mark.parametrize("arguments", [ARTICLE, ARGUMENTS, ["-b", "80,443", "-q", "9080", "-o", "22", "-i", ""]])
def test_both_families_have_the_same_rules(arguments):
    wanted = capture.parse(arguments)
    v4, v6 = (rules.rules(replace(wanted, exclude_ranges=""), f) for f in (rules.V4, rules.V6))
    assert v4.replace("127.0.0.1/32", "::1/128").replace("127.0.0.6/32", "::6/128") == v6


def test_a_pod_whose_ipv6_address_cannot_be_redirected_does_not_start(monkeypatch):
    """Istio, too, fails where ip6tables does not work in a pod with an IPv6 address."""
    shown = {"/proc/net/if_inet6": SHOWN}
    monkeypatch.setattr(capture, "_output", lambda command: shown.get(command[-1], ""))
    monkeypatch.setattr(capture, "_run", lambda command, *_: "no such table" if "ip6" in command[0] else "")
    with pytest.raises(capture.NotWritten, match="address fd00:1::5, which cannot be redirected: no such table"):
        capture.write(rules.Capture())
    shown["/proc/net/if_inet6"] = "".join(line for line in SHOWN.splitlines(True) if "fd00" not in line)
    _, why = capture.write(rules.Capture())
    assert why == "IPv6 is not redirected: no such table; the pod has only link-local IPv6 addresses"
    shown.clear()
    _, why = capture.write(rules.Capture())
    assert why == "IPv6 is not redirected: this network namespace has none"


SHOWN = """00000000000000000000000000000001 01 80 10 80       lo
00000000000000000000000000000006 01 80 00 80       lo
fe800000000000000000000000000001 02 40 20 80     eth0
fd000001000000000000000000000005 02 40 00 82     eth0
"""


def test_addresses_are_read_as_the_kernel_shows_them():
    assert interfaces.ipv6(SHOWN) == ["fd00:1::5"]
    assert interfaces.ipv6(SHOWN.splitlines()[0]) == []
    assert interfaces.ipv6("") is None


def test_an_unknown_flag_is_refused_by_name():
    with pytest.raises(capture.UsageError, match="--what"):
        capture.parse(["--what", "x"])


def test_ports_and_interfaces_of_annotations_become_rules():
    made = rules.rules(capture.parse(["-i", "", "-q", "443,80", "-k", "net0", "-c", "eth1", "-x", "10.9.0.0/16"]))
    lines = made.splitlines()
    assert "-A ISTIO_OUTPUT -p tcp --dport 443 -j ISTIO_REDIRECT" in lines
    assert "-A PREROUTING -i eth1 -j RETURN" in lines
    assert lines.index("-A PREROUTING -i net0 -d 10.9.0.0/16 -j RETURN") < lines.index(
        "-A PREROUTING -p tcp -j ISTIO_INBOUND"
    )
    everything = rules.rules(capture.parse(["-i", "*", "-k", "net0"])).splitlines()
    assert "-A PREROUTING -i net0 -p tcp -j ISTIO_REDIRECT" in everything


def test_a_cni_plugins_rules_are_checked_and_not_written():
    assert capture.parse(["-p", "15001", "--run-validation", "--skip-rule-apply", "--log_as_json"]).validate


def test_dns_is_redirected_where_the_proxys_settings_ask_for_it():
    """As Istio's istio-iptables, which reads ISTIO_META_DNS_CAPTURE; a flag goes before it."""
    assert capture.parse([], dns=True).dns
    assert not capture.parse([]).dns
    assert not capture.parse(["--redirect-dns=false"], dns=True).dns


def test_tproxy_leaves_inbound_addresses_alone_and_knows_the_proxy_by_its_group():
    made = rules.rules(capture.parse([*ARTICLE, "-m", "TPROXY"]))
    mangle, nat = made.split("*nat\n")
    assert "PREROUTING -p tcp -j ISTIO_INBOUND" not in nat
    assert "--uid-owner" not in made
    assert "-A ISTIO_INBOUND -p tcp -j ISTIO_TPROXY" in mangle
    assert "-j TPROXY --tproxy-mark 1337 --on-port 15006" in mangle
    first = mangle.index("--dport 15021 -j RETURN")
    assert first < mangle.index("-j ISTIO_TPROXY\n"), "the health port is not captured"
    guard = nat.index("-o lo -m mark --mark 1337 -j RETURN")
    assert guard < nat.index("-j ISTIO_IN_REDIRECT\n-A ISTIO_OUTPUT"), "what goes to the application does not come back"


@pytest.fixture
def kernel(monkeypatch):
    """Programs that fail where a command has the words of ``refused``; the routes, and the tables that are written."""

    class Kernel:
        shown, refused, routes, written = SHOWN, (), set(), {}

    def run(command, text=""):
        if any(all(w in (*command, text) for w in words) for words in Kernel.refused):
            return "no such table"
        if command[0] == "ip" and command[2] in ("rule", "route"):
            place = (command[1], command[2])
            (Kernel.routes.discard if command[3] == "del" else Kernel.routes.add)(place)
        elif "--test" not in command and "restore" in command[0]:
            Kernel.written[command[0].removesuffix("-restore")] = "*mangle" in text
        return ""

    Kernel.routes, Kernel.written = set(), {}
    monkeypatch.setattr(capture, "_output", lambda command: Kernel.shown if command[-1] == interfaces.FILE else "")
    monkeypatch.setattr(capture, "_run", run)
    return Kernel


LOCAL = "".join(line for line in SHOWN.splitlines(True) if "fd00" not in line)
BOTH_WAYS = {("-4", "rule"), ("-4", "route"), ("-6", "rule"), ("-6", "route")}


def ip6tables(text):
    return ("ip6tables-restore", "--test", text)


MANGLE = ip6tables(rules.mangle(capture.parse(["-m", "TPROXY"]), rules.V6))


@pytest.mark.parametrize(
    ("shown", "refused", "v4", "v6", "says"),
    [
        (SHOWN, (), True, True, ""),
        (SHOWN, (MANGLE,), False, False, "TPROXY is not possible here (no such table)"),
        (SHOWN, (("-6", "route", "replace"),), False, False, "TPROXY is not possible here (no such table)"),
        (SHOWN, (("-4", "route", "replace"),), False, False, "TPROXY is not possible here (no such table)"),
        (LOCAL, (MANGLE,), True, False, "TPROXY is not possible by IPv6 (no such table), of which the pod has only"),
        (LOCAL, (("iptables-restore", "--test"),), False, False, "TPROXY is not possible here (no such table)"),
    ],
)
def test_inbound_traffic_is_taken_in_one_way_by_all_families_of_the_pod(kernel, shown, refused, v4, v6, says):
    """The agent tells istiod that there is TPROXY by its routes, so these are there exactly if it is used."""
    kernel.shown, kernel.refused = shown, refused
    kernel.routes |= BOTH_WAYS if not v4 else set()  # an earlier run's
    written, why = capture.write(capture.parse(["-m", "TPROXY"]))
    assert (written.tproxy, kernel.written) == (v4, {"iptables": v4, "ip6tables": v6})
    assert kernel.routes == {r for r in BOTH_WAYS if (v4 if r[0] == "-4" else v6)}
    assert why.startswith(says)
    assert bool(why) == bool(says)


def test_where_there_is_no_program_ip_there_is_no_tproxy(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert not capture.transparent()


def test_without_root_on_the_host_tproxy_has_no_mark_of_its_own(kernel):
    written, why = capture.write(capture.parse(["-m", "TPROXY"], mark=1338))
    assert (written.tproxy, kernel.written, kernel.routes) == (False, {"iptables": False, "ip6tables": False}, set())
    assert why.startswith("TPROXY is not possible here (without root on the host")


def test_tproxy_of_some_ports_only():
    mangle = rules.mangle(capture.parse(["-m", "TPROXY", "-b", "8080,9090"]))
    assert mangle.count("-j ISTIO_TPROXY") == 2
    assert "*mangle" not in rules.rules(capture.parse(["-m", "TPROXY", "-b", ""]))
