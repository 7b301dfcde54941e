"""Callers in plaintext: what metrics and access logs say of them."""

import os
import subprocess
import sys

import pytest

from lateen.cli.plaintext import told
from lateen.console.plaintext import Caller, Seen, concerned, is_strict, logged, nameless, shared

PLAIN = (
    '[2026-11-26T14:08:31.404Z] "GET /get HTTP/1.1" 200 - via_upstream - "-" 0 3 1 1 "-" "curl/8" "id" "httpbin:8000" '
    '"10.244.0.9:8080" inbound|8080|| 127.0.0.6:4711 10.244.0.9:8080 10.244.0.7:51234 - default'
)
MESH = PLAIN.replace("51234 -", "51234 outbound_.8000_._.httpbin.tasks.svc.cluster.local")
TCP = (
    '[2026-11-26T14:09:00.000Z] "- - -" 0 - - - "-" 3 3 1 - "-" "-" "-" "-" "10.244.0.9:9000" inbound|9000|| '
    "127.0.0.6:4711 10.244.0.9:9000 10.244.0.8:51235 - -"
)
OUT = PLAIN.replace("inbound|8080||", "outbound|8000||httpbin.tasks.svc.cluster.local")


def series(principal, values, service="api"):
    labels = {"destination_workload_namespace": "default", "destination_canonical_service": service}
    return {"metric": {**labels, "source_principal": principal}, "values": values}


def test_the_access_log_says_who_called_in_plaintext_and_at_which_port():
    assert logged(f"{PLAIN}\n{MESH}\n{TCP}\n{OUT}\nnonsense") == [
        Caller("10.244.0.7", 8080, "2026-11-26T14:08:31.404Z"),
        Caller("10.244.0.8", 9000, "2026-11-26T14:09:00.000Z"),
    ]


def test_calls_without_an_identity_are_counted_with_the_time_of_the_last_one():
    found = nameless(
        [
            series("unknown", [[60, "2"], [120, "1"], [180, "0"]]),
            series("spiffe://cluster.local/ns/a/sa/b", [[60, "5"]]),
            series("unknown", [[60, "0"]], "quiet"),
        ],
        60,
    )
    assert found == {("default", "api"): Seen(3, 60)}


def test_what_is_told_names_the_pod_the_port_and_the_time():
    seen = Seen(3, 1000, {("10.244.0.7", 8080): "2026-11-26T14:08:31Z", ("192.0.2.1", 9000): ""})
    assert told({("default", "api"): seen}, {"10.244.0.7": "pod old.legacy"}, 1300, 60) == [
        "api.default: about 3 calls in plaintext, the last one less than 7 min ago",
        "  pod old.legacy at port 8080, last seen 2026-11-26T14:08:31Z",
        "  192.0.2.1 at port 9000, last seen at an unknown time",
    ]


def test_services_share_the_logs_that_are_read_and_it_is_told_what_was_left_out():
    many, few = ("default", "many"), ("default", "few")
    assert shared({many: [1, 2, 3, 4], few: [5]}, 3) == [(many, 1), (few, 5), (many, 2)]
    assert shared({}, 3) == []


@pytest.mark.parametrize("more", [True, False])
def test_the_command_that_reads_more_logs_is_named_where_it_would(more):
    (_, line) = told({("shop", "many"): Seen(3, 1000, unread=2)}, {}, 1300, 60, more)
    remedy = "; lateen x authz plaintext -n shop --logs 2000 reads more" if more else ""
    assert line == f"  there may be more: the logs of 2 of its pods were not read{remedy}"


def peer(spec, namespace="default"):
    return {
        "apiVersion": "security.istio.io/v1",
        "kind": "PeerAuthentication",
        "metadata": {"name": "p", "namespace": namespace},
        "spec": spec,
    }


@pytest.mark.parametrize(
    ("spec", "strict"),
    [
        ({"mtls": {"mode": "STRICT"}}, True),
        ({"mtls": {"mode": "PERMISSIVE"}}, False),
        ({"portLevelMtls": {8080: {"mode": "STRICT"}}}, True),
        ({}, False),
        ([{"mtls": {"mode": "STRICT"}}], False),
        ("STRICT", False),
        ({"mtls": "STRICT", "portLevelMtls": [{"mode": "STRICT"}]}, False),
        ({"portLevelMtls": {8080: "STRICT", 9090: {"mode": "STRICT"}}}, True),
    ],
)
def test_policies_that_refuse_plaintext(spec, strict):
    assert is_strict(peer(spec)) == strict


@pytest.mark.parametrize("spec", [["a"], "a", {"portLevelMtls": ["a"]}])
def test_objects_of_other_kinds_may_have_any_spec(spec):
    assert not is_strict({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "t"}, "spec": spec})


BEFORE = """
import os, sys
from lateen.cli.kubectl import strict
strict.before(["apply", "-f", "-"])
sys.stdout.write(os.read(0, 1 << 16).decode())
"""


@pytest.mark.parametrize(
    "text",
    [
        "kind: [",
        "just text",
        "- a\n- b\n",
        "kind: PeerAuthentication\nspec: x\n",
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: p}\nspec: [a]\n",
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: p\nspec: {mtls: {mode: STRICT}}\n",
    ],
)
def test_kubectl_gets_the_manifest_from_standard_input_whatever_is_wrong_with_it(text):
    gone = os.environ | {"KUBECONFIG": "/nonexistent"}
    found = subprocess.run([sys.executable, "-c", BEFORE], input=text, capture_output=True, text=True, env=gone)
    assert (found.stdout, found.returncode, "Traceback" in found.stderr) == (text, 0, False)


def test_a_policy_is_for_its_namespace_its_labels_or_in_the_root_namespace_for_all():
    place, labels = ("default", "api"), {"app": "api"}
    assert concerned([peer({})], place, labels, "istio-system")
    assert not concerned([peer({}, "other")], place, labels, "istio-system")
    assert concerned([peer({}, "istio-system")], place, labels, "istio-system")
    assert not concerned([peer({"selector": {"matchLabels": {"app": "web"}}})], place, labels, "istio-system")
