"""Lua and Wasm of the user: at which workloads, ports and phases it runs."""

import judge
import meshes as mesh
import pytest
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm

from lateen.wire import names

CODE = "function envoy_on_request(handle) handle:logInfo('x') end"


def extension(name="one", namespace="default", **spec):
    fields = "".join(f", {k}: {v}" for k, v in spec.items())
    return f"""
apiVersion: extensions.istio.io/v1alpha1
kind: TrafficExtension
metadata: {{name: {name}, namespace: {namespace}}}
spec: {{lua: {{inlineCode: "{CODE}"}}{fields}}}
"""


GATEWAY = """
kind: Gateway
metadata: {name: g}
spec: {selector: {istio: ingressgateway}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]}
"""
AT_GATEWAY = ("ingress", "istio-system")


def _managers(listener):
    for chain in listener.filter_chains:
        for f in chain.filters:
            if f.typed_config.Is(hcm.HttpConnectionManager.DESCRIPTOR):
                out = hcm.HttpConnectionManager()
                f.typed_config.Unpack(out)
                yield out


def filters(text, *proxy):
    """(the HTTP filters of the first chain that routes requests to the workload, what is delivered for plugins)"""
    known = mesh.objects(f"{GATEWAY}---{text}") if isinstance(text, str) else text
    found = judge.messages(mesh.view(known, *proxy))
    listener = found[names.LDS]["0.0.0.0_8080" if proxy else "virtualInbound"]
    managers = [m for m in _managers(listener) if m.stat_prefix.startswith(("outbound_", "inbound_0.0.0.0_9080"))]
    scripts = {n: m for n, m in found[names.ECDS].items() if n.startswith(("lateen.lua", "extensions"))}
    return [f.name for f in managers[0].http_filters], scripts


def scripts(text, *proxy):
    return [n.rpartition("/")[2] for n in filters(text, *proxy)[0] if n.startswith("lateen.lua")]


@pytest.mark.parametrize(
    ("spec", "at_workload", "at_gateway"),
    [
        ({}, True, False),
        ({"selector": "{matchLabels: {app: productpage}}"}, True, False),
        ({"selector": "{matchLabels: {app: reviews}}"}, False, False),
        ({"match": "[{mode: SERVER}]"}, True, False),
        ({"match": "[{mode: CLIENT}]"}, False, False),
        ({"match": "[{ports: [{number: 9080}]}]"}, True, False),
        ({"match": "[{ports: [{number: 9999}]}]"}, False, False),
        ({"namespace": "istio-system"}, True, True),
        ({"namespace": "istio-system", "match": "[{mode: CLIENT}]"}, False, True),
        ({"namespace": "istio-system", "match": "[{ports: [{number: 80}]}]"}, False, True),
    ],
)
def test_a_script_runs_where_its_extension_says(spec, at_workload, at_gateway):
    text = extension(**spec)
    assert scripts(text) == (["one"] if at_workload else [])
    assert scripts(text, *AT_GATEWAY) == (["one"] if at_gateway else [])


def test_phases_are_about_authentication_and_authorization():
    order, _ = filters("---".join(extension(p.lower(), phase=p) for p in ("AUTHZ", "STATS", "AUTHN")))
    wanted = ["lateen.lua/default/authn", "istio.authentication", "lateen.lua/default/authz"]
    wanted += ["istio.authorization.deny", "istio.authorization.allow", "lateen.lua/default/stats"]
    assert [n for n in order if n in wanted] == wanted


def test_a_higher_priority_comes_first_then_the_older():
    text = "---".join((extension("low"), extension("high", priority=9), extension("younger")))
    assert scripts(text) == ["high", "low", "younger"]


def test_a_script_is_delivered_by_itself_so_that_a_changed_one_drains_no_listener():
    _, found = filters(extension())
    assert CODE.encode() in found["lateen.lua/default/one"].typed_config.value


def outbound(text):
    """What runs on requests that the workload sends, by port."""
    found = judge.messages(mesh.view(mesh.objects(text)))[names.LDS]
    return {
        int(name.rpartition("_")[2]): [f.name.rpartition("/")[2] for m in _managers(li) for f in m.http_filters[:1]]
        for name, li in found.items()
        if name.startswith("0.0.0.0_")
    }


@pytest.mark.parametrize(
    ("spec", "runs"),
    [
        ({}, True),
        ({"match": "[{mode: CLIENT}]"}, True),
        ({"match": "[{mode: SERVER}]"}, False),
        ({"match": "[{mode: CLIENT, ports: [{number: 9080}]}]"}, True),
        ({"match": "[{mode: CLIENT, ports: [{number: 80}]}]"}, False),
    ],
)
def test_a_script_runs_on_what_a_workload_sends_as_its_extension_says(spec, runs):
    assert (outbound(extension(**spec))[9080] == ["one"]) is runs


def test_a_plugin_of_other_ports_leaves_a_listener_as_it_is():
    text = extension(match="[{mode: CLIENT, ports: [{number: 80}]}]")
    plain, with_it = (judge.messages(mesh.view(mesh.objects(t)))[names.LDS] for t in ("", text))
    assert plain["0.0.0.0_9080"] == with_it["0.0.0.0_9080"]
