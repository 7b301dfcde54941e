"""What NetworkPolicies admit: the rules are read back and asked about packets, and refusals of wrong policies."""

import ipaddress
import re

import pytest
from apiserver import Cluster

from lateen.cluster.network import plan
from lateen.cluster.network.policies import DNS, MAIN, Peer, rules, without

NAMESPACES = {
    "shop": {"kubernetes.io/metadata.name": "shop", "team": "a"},
    "other": {"kubernetes.io/metadata.name": "other"},
    "kube-system": {"kubernetes.io/metadata.name": "kube-system"},
}
WEB = Peer("shop", "10.244.0.2", {"app": "web"}, (("http", "TCP", 8080),))
SQL = Peer("shop", "10.244.0.3", {"app": "sql"}, (("http", "TCP", 9090),))
FAR = Peer("other", "10.244.0.4", {"app": "web"}, (("http", "TCP", 7070),))
PODS = [WEB, SQL, FAR]
ABROAD = Peer("", "10.97.3.4")
"""A neighbouring cluster."""


def policy(selector=None, namespace="shop", **spec):
    return {"metadata": {"name": "p", "namespace": namespace}, "spec": {"podSelector": selector or {}} | spec}


class Kernel:
    """A plain reading of the rules, as iptables reads them."""

    def __init__(self, *policies, sctp=True):
        self.text = rules(PODS, NAMESPACES, policies, sctp, neighbours=[ABROAD.address])
        self._chains = {}
        for chain, match, target in re.findall(r"^-A (\S+) (.*?)-j (\S+)$", self.text, re.MULTILINE):
            self._chains.setdefault(chain, []).append((match.split(), target))

    def admits(self, source, target, port=80, protocol="tcp", established=False):
        packet = {"-s": source.address, "-d": target.address, "--dport": port, "-p": protocol}
        chain = "INPUT" if target.address in (plan.DNS_IP, plan.NODE_IP) else "FORWARD"
        if target is ABROAD:
            chain = "PREROUTING"
        return self._walk(chain, packet, established)

    def _walk(self, chain, packet, established):
        for match, target in self._chains.get(chain, []):
            if not self._meets(match, packet, established):
                continue
            if target in ("RETURN", "DROP"):
                return target == "RETURN"
            if not self._walk(target, packet, established):
                return False
        return True

    def _meets(self, match, packet, established):
        for flag, value in zip(match[::2], match[1::2], strict=True):
            if flag in ("-s", "-d") and not _inside(packet[flag], value):
                return False
            if flag == "-p" and packet["-p"] != value:
                return False
            if flag == "--dport":
                low, _, high = value.partition(":")
                if not int(low) <= packet["--dport"] <= int(high or low):
                    return False
            if flag == "--ctstate" and not established:
                return False
        return True


def _inside(address, network):
    return ipaddress.ip_address(address) in ipaddress.ip_network(network)


def test_without_policies_everything_is_admitted_and_nothing_is_asked():
    kernel = Kernel()
    assert MAIN not in kernel.text
    assert kernel.admits(FAR, WEB)


def test_a_policy_without_rules_isolates_the_pods_that_it_selects_in_its_direction():
    kernel = Kernel(policy({"matchLabels": {"app": "web"}}))
    assert not kernel.admits(SQL, WEB)
    assert not kernel.admits(FAR, WEB)
    assert kernel.admits(WEB, SQL)
    assert kernel.admits(SQL, FAR)  # another namespace's
    out = Kernel(policy(policyTypes=["Egress"]))
    assert not out.admits(WEB, FAR)
    assert not out.admits(WEB, SQL)
    assert out.admits(FAR, WEB)


def test_a_pod_reaches_itself_and_the_node_and_the_node_every_pod():
    kernel = Kernel(policy(policyTypes=["Ingress", "Egress"]))
    node = Peer("", plan.NODE_IP)
    assert kernel.admits(WEB, WEB)
    assert kernel.admits(WEB, node, 6443)
    assert kernel.admits(node, WEB)


def test_ports_of_neighbouring_clusters_are_those_that_the_pod_asks_for():
    """The node rewrites them on the way."""
    kernel = Kernel(policy(policyTypes=["Egress"], egress=[{"ports": [{"port": 15443}]}]))
    assert kernel.admits(WEB, ABROAD, 15443)
    assert not kernel.admits(WEB, ABROAD, 6443)
    assert kernel.admits(FAR, ABROAD, 6443)
    there = {"ipBlock": {"cidr": f"{ABROAD.address}/32"}}
    assert Kernel(policy(policyTypes=["Egress"], egress=[{"to": [there]}])).admits(WEB, ABROAD, 6443)
    assert not Kernel(policy(policyTypes=["Egress"])).admits(WEB, ABROAD, 15443)


def test_answers_and_established_connections_pass():
    kernel = Kernel(policy(policyTypes=["Ingress", "Egress"]))
    assert kernel.admits(WEB, FAR, established=True)


@pytest.mark.parametrize(
    ("peers", "admitted"),
    [
        ([{"podSelector": {"matchLabels": {"app": "sql"}}}], {"SQL"}),
        ([{"podSelector": {}}], {"SQL"}),
        ([{"namespaceSelector": {}}], {"SQL", "FAR"}),
        ([{"namespaceSelector": {"matchLabels": {"team": "a"}}}], {"SQL"}),
        ([{"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "web"}}}], {"FAR"}),
        ([{"namespaceSelector": {"matchExpressions": [{"key": "team", "operator": "DoesNotExist"}]}}], {"FAR"}),
        ([{"ipBlock": {"cidr": "10.244.0.0/16"}}], {"SQL", "FAR"}),
        ([{"ipBlock": {"cidr": "10.244.0.0/16", "except": ["10.244.0.4/31"]}}], {"SQL"}),
        ([{"ipBlock": {"cidr": "fd00::/8"}}], set()),
        ([{"podSelector": {}}, {"ipBlock": {"cidr": "10.244.0.4/32"}}], {"SQL", "FAR"}),
        ([], {"SQL", "FAR"}),
        (None, {"SQL", "FAR"}),
    ],
)
@pytest.mark.parametrize("direction", ["ingress", "egress"])
def test_peers_are_selected_by_pod_namespace_and_address(direction, peers, admitted):
    rule = {} if peers is None else {"from" if direction == "ingress" else "to": peers}
    only = policy({"matchLabels": {"app": "web"}}, policyTypes=[direction.capitalize()], **{direction: [rule]})
    kernel = Kernel(only)
    for name, other in (("SQL", SQL), ("FAR", FAR)):
        ends = (other, WEB) if direction == "ingress" else (WEB, other)
        assert kernel.admits(*ends) == (name in admitted)


def test_ports_are_numbers_ranges_names_or_all_of_a_protocol():
    def incoming(**port):
        return Kernel(policy({"matchLabels": {"app": "web"}}, ingress=[{"ports": [port]}]))

    assert incoming(port=80).admits(SQL, WEB, 80)
    assert not incoming(port=80).admits(SQL, WEB, 81)
    assert not incoming(port=80).admits(SQL, WEB, 80, "udp")
    assert incoming(port=80, endPort=90).admits(SQL, WEB, 90)
    assert not incoming(port=80, endPort=90).admits(SQL, WEB, 91)
    assert incoming(protocol="UDP").admits(SQL, WEB, 5, "udp")
    assert incoming(port="http").admits(SQL, WEB, 8080)
    assert not incoming(port="http").admits(SQL, WEB, 80)
    assert not incoming(port="nothing").admits(SQL, WEB, 80)


def test_the_name_of_a_port_is_the_receivers():
    rule = {"to": [{"namespaceSelector": {}}], "ports": [{"port": "http"}]}
    kernel = Kernel(policy({"matchLabels": {"app": "web"}}, policyTypes=["Egress"], egress=[rule]))
    assert kernel.admits(WEB, SQL, 9090)
    assert kernel.admits(WEB, FAR, 7070)
    assert not kernel.admits(WEB, SQL, 7070)


def test_policies_add_up_and_both_ends_have_a_say():
    sql = {"ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "sql"}}}]}]}
    far = {"ingress": [{"from": [{"namespaceSelector": {}}], "ports": [{"port": 443}]}]}
    kernel = Kernel(policy(**sql), policy(**far))
    assert kernel.admits(SQL, WEB)
    assert kernel.admits(FAR, WEB, 443)
    assert not kernel.admits(FAR, WEB, 80)
    closed = Kernel(policy(**far), policy(namespace="other", policyTypes=["Egress"]))
    assert not closed.admits(FAR, WEB, 443)


def test_egress_needs_leave_for_dns_as_everywhere():
    assert not Kernel(policy(policyTypes=["Egress"])).admits(WEB, DNS, 53, "udp")
    to = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
        "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
    }
    usual = {"to": [to], "ports": [{"port": 53, "protocol": "UDP"}]}
    kernel = Kernel(policy(policyTypes=["Egress"], egress=[usual]))
    assert kernel.admits(WEB, DNS, 53, "udp")
    assert not kernel.admits(WEB, DNS, 53, "tcp")


def test_a_policy_with_egress_rules_is_about_both_directions_unless_it_says_otherwise():
    kernel = Kernel(policy(egress=[{}]))
    assert not kernel.admits(FAR, WEB)
    assert kernel.admits(WEB, FAR)


def test_pods_under_the_same_policies_share_a_chain():
    text = Kernel(policy(ingress=[{"from": [{"podSelector": {}}]}])).text
    assert len(set(re.findall(r"LNP-\S+", text))) == 1


def test_a_kernel_without_sctp_blocks_it_and_takes_the_rest():
    rule = {"ports": [{"port": 1, "protocol": "SCTP"}, {"port": 2}]}
    kernel = Kernel(policy(ingress=[rule]), sctp=False)
    assert "sctp" not in kernel.text
    assert kernel.admits(FAR, WEB, 2)


def test_a_network_less_its_exceptions():
    assert [str(n) for n in without("10.0.0.0/30", ("10.0.0.1/32",))] == ["10.0.0.0/32", "10.0.0.2/31"]
    assert [str(n) for n in without("10.0.0.0/29", ("10.0.0.4/31", "10.0.0.0/31"))] == ["10.0.0.2/31", "10.0.0.6/31"]
    assert without("10.0.0.0/8", ("10.0.0.0/8",)) == ()
    assert [str(n) for n in without("10.0.0.0/8", ("11.0.0.0/8",))] == ["10.0.0.0/8"]


def test_many_exceptions_cost_little():
    scattered = tuple(f"10.{a}.{b}.7/32" for a in range(64) for b in range(0, 256, 4))
    left = without("0.0.0.0/0", scattered)
    assert sum(n.num_addresses for n in left) == 2**32 - len(scattered)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"ingress": [{"from": [{}]}]}, "spec.ingress[0].from[0]: Required value: must specify a peer"),
        (
            {"ingress": [{"from": [{"podSelector": {}, "ipBlock": {"cidr": "1.0.0.0/8"}}]}]},
            "may not specify both ipBlock and another peer",
        ),
        ({"egress": [{"to": [{"ipBlock": {"cidr": "1.0.0.0"}}]}]}, "must be a valid CIDR value"),
        (
            {"egress": [{"to": [{"ipBlock": {"cidr": "1.0.0.0/8", "except": ["2.0.0.0/8"]}}]}]},
            "spec.egress[0].to[0].ipBlock.except[0]: Invalid value",
        ),
        ({"ingress": [{"ports": [{"port": 0}]}]}, "must be between 1 and 65535"),
        ({"ingress": [{"ports": [{"port": 5, "endPort": 4}]}]}, "must be greater than or equal to `port`"),
        ({"ingress": [{"ports": [{"endPort": 4}]}]}, "must be specified when `endPort` is specified"),
        ({"ingress": [{"ports": [{"port": "x\n-j ACCEPT"}]}]}, "spec.ingress[0].ports[0].port: Invalid value"),
        ({"ingress": [{"ports": [{"protocol": "HTTP"}]}]}, "Unsupported value"),
        ({"policyTypes": ["Both"]}, 'spec.policyTypes[0]: Unsupported value: "Both"'),
        ({"podSelector": {"matchExpressions": [{"key": "a", "operator": "Is"}]}}, "not a valid selector operator"),
    ],
)
def test_a_policy_that_is_wrong_is_refused(spec, says):
    path = "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies"
    code, answer = Cluster().ask("POST", path, {"metadata": {"name": "p"}, "spec": {"podSelector": {}} | spec})
    assert (code, says in answer["message"]) == (422, True), answer


def test_what_a_policy_does_not_say_is_completed():
    path = "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies"
    spec = {"podSelector": {}, "egress": [{"ports": [{"port": 53}]}]}
    made = Cluster().must("POST", path, {"metadata": {"name": "p"}, "spec": spec})
    assert made["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert made["spec"]["egress"] == [{"ports": [{"port": 53, "protocol": "TCP"}]}]


def test_a_policy_of_another_structure_is_refused():
    path = "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies"
    for spec in ({"podSelector": {}, "ingress": [{"ports": "all"}]}, {"podSelector": {}, "ingress": "all"}):
        assert Cluster().ask("POST", path, {"metadata": {"name": "p"}, "spec": spec})[0] == 400
    strict = {"metadata": {"name": "p"}, "spec": {"podSelector": {}, "ingres": []}}
    assert Cluster().ask("POST", path + "?fieldValidation=Strict", strict)[0] == 400
