"""istio-iptables: the article's own arguments."""

import pytest

from lateen.agent import capture

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
    assert capture.parse(ARTICLE) == capture.Capture()


def test_the_proxys_own_traffic_is_left_alone():
    text = capture.rules(capture.parse(ARTICLE))
    assert "-A ISTIO_OUTPUT -m owner --uid-owner 1337 -j RETURN" in text
    assert "--dport 15021 -j RETURN" in text
    assert text.endswith("COMMIT\n")


def test_where_user_ids_cannot_differ_a_mark_tells_the_proxy_apart():
    text = capture.rules(capture.parse(ARTICLE, mark=1337))
    assert "-m mark --mark 1337 -j RETURN" in text
    assert "owner" not in text


SAVED = """*nat
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:ISTIO_OUTPUT - [0:0]
:DOCKER - [0:0]
-A PREROUTING -p tcp -j ISTIO_INBOUND
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT -p udp -m udp --dport 53 -m owner --uid-owner 1337 -j RETURN
-A OUTPUT -p udp -m udp --dport 53 -j REDIRECT --to-ports 15053
-A OUTPUT -p tcp -j ISTIO_OUTPUT
-A ISTIO_OUTPUT -o lo -j RETURN
COMMIT
"""


def test_a_machine_gets_back_what_was_redirected_and_keeps_the_rules_of_others():
    assert capture.removal("nat", SAVED).splitlines() == [
        "*nat",
        "-D PREROUTING -p tcp -j ISTIO_INBOUND",
        "-D OUTPUT -p udp -m udp --dport 53 -m owner --uid-owner 1337 -j RETURN",
        "-D OUTPUT -p udp -m udp --dport 53 -j REDIRECT --to-ports 15053",
        "-D OUTPUT -p tcp -j ISTIO_OUTPUT",
        "-F ISTIO_OUTPUT",
        "-X ISTIO_OUTPUT",
        "COMMIT",
    ]
    others = [line for line in SAVED.splitlines() if "ISTIO" not in line and "15053" not in line]
    assert capture.removal("nat", "\n".join(others)) == ""
    marked = "*mangle\n-A OUTPUT -p tcp -m connmark --mark 0x539 -j CONNMARK --restore-mark\nCOMMIT\n"
    assert "-D OUTPUT" in capture.removal("mangle", marked)
    assert capture.removal("mangle", marked.replace("0x539", "0x77")) == ""


def test_an_unknown_flag_is_refused_by_name():
    with pytest.raises(capture.UsageError, match="--what"):
        capture.parse(["--what", "x"])


def test_ports_and_interfaces_of_annotations_become_rules():
    made = capture.rules(capture.parse(["-i", "", "-q", "443,80", "-k", "net0", "-c", "eth1", "-x", "10.9.0.0/16"]))
    lines = made.splitlines()
    assert "-A ISTIO_OUTPUT -p tcp --dport 443 -j ISTIO_REDIRECT" in lines
    assert "-A PREROUTING -i eth1 -j RETURN" in lines
    assert lines.index("-A PREROUTING -i net0 -d 10.9.0.0/16 -j RETURN") < lines.index(
        "-A PREROUTING -p tcp -j ISTIO_INBOUND"
    )
    everything = capture.rules(capture.parse(["-i", "*", "-k", "net0"])).splitlines()
    assert "-A PREROUTING -i net0 -p tcp -j ISTIO_REDIRECT" in everything


def test_a_cni_plugins_rules_are_checked_and_not_written():
    assert capture.parse(["-p", "15001", "--run-validation", "--skip-rule-apply", "--log_as_json"]).validate


def test_dns_is_redirected_where_the_proxys_settings_ask_for_it():
    """As Istio's istio-iptables, which reads ISTIO_META_DNS_CAPTURE; a flag goes before it."""
    assert capture.parse([], dns=True).dns
    assert not capture.parse([]).dns
    assert not capture.parse(["--redirect-dns=false"], dns=True).dns


def test_tproxy_leaves_inbound_addresses_alone_and_knows_the_proxy_by_its_group():
    made = capture.rules(capture.parse([*ARTICLE, "-m", "TPROXY"]))
    nat, mangle = made.split("*mangle\n")
    assert "PREROUTING -p tcp -j ISTIO_INBOUND" not in nat
    assert "--uid-owner" not in made
    assert "-A ISTIO_INBOUND -p tcp -j ISTIO_TPROXY" in mangle
    assert "-j TPROXY --tproxy-mark 1337 --on-port 15006" in mangle
    first = mangle.index("--dport 15021 -j RETURN")
    assert first < mangle.index("-j ISTIO_TPROXY\n"), "the health port is not captured"
    guard = nat.index("-o lo -m mark --mark 1337 -j RETURN")
    assert guard < nat.index("-j ISTIO_IN_REDIRECT\n-A ISTIO_OUTPUT"), "what goes to the application does not come back"


def test_tproxy_of_some_ports_only():
    mangle = capture.mangle(capture.parse(["-m", "TPROXY", "-b", "8080,9090"]))
    assert mangle.count("-j ISTIO_TPROXY") == 2
    assert "*mangle" not in capture.rules(capture.parse(["-m", "TPROXY", "-b", ""]))
