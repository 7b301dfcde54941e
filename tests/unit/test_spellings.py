"""Alternative spellings of paths and hosts: what a rule denies stays denied, however a request spells it."""

from dataclasses import replace

import judge
import meshes as mesh
import pytest
import re2
from envoy.extensions.filters.http.rbac.v3 import rbac_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm

from lateen.api import kinds
from lateen.api.mesh.reading import mesh_config
from lateen.mesh.configuration import settings
from lateen.wire import names
from lateen.xds.authz import spellings

POLICY = """
kind: AuthorizationPolicy
metadata: {name: p, namespace: NAMESPACE, annotations: ANNOTATIONS}
spec: {action: ACTION, rules: [{to: [{operation: OPERATION}]}]}
"""
UNCHANGED, DECODED = 0, hcm.HttpConnectionManager.UNESCAPE_AND_FORWARD
BASE, STRICT = (True, False, UNCHANGED), (True, True, DECODED)


def policy(action="DENY", operation="{paths: [/admin]}", namespace="default", annotations="{}"):
    text = POLICY.replace("ACTION", action).replace("OPERATION", operation)
    return text.replace("NAMESPACE", namespace).replace("ANNOTATIONS", annotations)


def config(normalization=""):
    text = f"pathNormalization: {{normalization: {normalization}}}" if normalization else "{}"
    return settings(mesh_config(text), "istio-system")


def normalizations(found):
    """Listener -> how its HTTP connection managers treat paths."""
    out = {}
    for listener in judge.messages(found)[names.LDS].values():
        for chain in listener.filter_chains:
            for f in chain.filters:
                manager = hcm.HttpConnectionManager()
                if f.typed_config.Unpack(manager):
                    how = manager.normalize_path.value, manager.merge_slashes, manager.path_with_escaped_slashes_action
                    out.setdefault(listener.name, set()).add(how)
    return out


def sidecar(text="", normalization=""):
    return normalizations(mesh.view(mesh.objects(text, config(normalization))))


@pytest.mark.parametrize(
    ("chosen", "wanted"),
    [
        ("NONE", (False, False, UNCHANGED)),
        ("BASE", BASE),
        ("DEFAULT", BASE),
        ("MERGE_SLASHES", (True, True, UNCHANGED)),
        ("DECODE_AND_MERGE_SLASHES", STRICT),
    ],
)
def test_every_normalization_of_the_mesh_reaches_sidecars_and_gateways(chosen, wanted):
    found = sidecar(normalization=chosen)
    assert set(found) > {"virtualInbound", "0.0.0.0_9080"}
    assert set().union(*found.values()) == {wanted}
    gateway = normalizations(mesh.view(mesh.objects(mesh.FRONT, config(chosen)), "ingress", "istio-system"))
    assert gateway == {"0.0.0.0_8080": {wanted}}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", BASE),
        (policy(), STRICT),
        (policy("ALLOW"), STRICT),
        (policy("ALLOW", "{notPaths: [/admin]}"), STRICT),
        (policy("DENY", "{hosts: [a.test]}"), BASE),
        (policy("DENY", namespace="other"), BASE),
        (policy(annotations="{istio.io/dry-run: 'true'}"), BASE),
    ],
)
def test_paths_are_normalized_strictly_where_policies_are_about_them(text, wanted):
    found = sidecar(text)
    assert found.pop("virtualInbound") == {wanted}
    assert set().union(*found.values()) == {BASE}


def test_what_the_mesh_configuration_says_precedes_that():
    assert sidecar(policy(), "BASE")["virtualInbound"] == {BASE}


def test_a_policy_about_paths_on_a_gateway_makes_its_paths_strict():
    text = f"{mesh.FRONT}---{policy(namespace='istio-system')}"
    found = normalizations(mesh.view(mesh.objects(text, config()), "ingress", "istio-system"))
    assert found == {"0.0.0.0_8080": {STRICT}}


LIMIT = """
kind: BackendTrafficPolicy
metadata: {name: p, namespace: default}
spec: {targetRefs: [TARGET], rateLimit: {SCOPE: {rules: [{clientSelectors: [SELECTOR], limit: {requests: 5}}]}}}
"""
SERVICE = '{group: "", kind: Service, name: productpage}'


def limit(selector="{path: {value: /login}}", scope="local", target=SERVICE):
    return LIMIT.replace("SELECTOR", selector).replace("SCOPE", scope).replace("TARGET", target)


@pytest.mark.parametrize("scope", ["local", "global"])
def test_limits_about_paths_hold_for_all_their_spellings(scope):
    at_port = sidecar(limit(scope=scope))["virtualInbound"]
    assert at_port == {BASE, STRICT}  # other ports of the pod are as they were
    assert sidecar(limit("{methods: [{value: GET}]}", scope))["virtualInbound"] == {BASE}
    assert sidecar(limit(scope=scope), "BASE")["virtualInbound"] == {BASE}
    target = "{group: networking.istio.io, kind: Gateway, name: front}"
    objects = mesh.objects(f"{mesh.FRONT}---{limit(scope=scope, target=target)}", config())
    assert normalizations(mesh.view(objects, "ingress", "istio-system")) == {"0.0.0.0_8080": {STRICT}}


@pytest.mark.parametrize(
    ("value", "host", "matches"),
    [
        ("admin.test", "admin.test", True),
        ("admin.test", "ADMIN.test", True),
        ("admin.test", "admin.test:8080", True),
        ("admin.test", "admin.test.", True),
        ("admin.test", "admin.test.:80", True),
        ("admin.test", "admin.test:", True),
        ("admin.test", "x@admin.test", True),
        ("admin.test", "%61dmin.test", True),
        ("admin.test:80", "admin%2etest:81", True),
        ("admin.test", "admin-test", False),
        ("admin.test", "admin.test.other", False),
        ("admin.test", "an-admin.test", False),
        ("*.test", "a.test:1", True),
        ("*.test", "a.test.", True),
        ("*.test", "a.other", False),
        ("admin.*", "admin.a:1", True),
        ("admin.test:80", "admin.test.:80", True),
        ("admin.test:80", "admin.test:81", False),
        ("admin.test:*", "admin.test.:81", True),
        ("[::1]", "[::1]:80", True),
        ("[::1]:80", "[::1]:80", True),
        ("[::1]:80", "[::1]:81", False),
    ],
)
def test_a_host_is_the_same_with_a_port_and_a_dot(value, host, matches):
    found = spellings.host(value).header.string_match.safe_regex.regex
    assert (re2.fullmatch(found, host) is not None) is matches


def rules(text, slot):
    held = judge.messages(mesh.view(mesh.objects(text)))[names.ECDS][f"istio.authorization.{slot}"].typed_config
    out = rbac_pb2.RBAC()
    held.Unpack(out)
    return out.rules


def spelled(permissions):
    """Whether the host of a rule stands for its other spellings."""
    text = str(permissions)
    assert "a.test" in text.replace("\\", "")
    return "safe_regex" in text


@pytest.mark.parametrize(
    ("action", "operation", "wanted"),
    [
        ("DENY", "{hosts: [a.test]}", True),
        ("DENY", "{notHosts: [a.test]}", False),
        ("ALLOW", "{hosts: [a.test]}", False),
        ("ALLOW", "{notHosts: [a.test]}", True),
    ],
)
def test_spellings_count_where_they_mean_less_access(action, operation, wanted):
    found = rules(policy(action, operation), action.lower())
    assert spelled(found.policies["ns[default]-policy[p]-rule[0]"].permissions) is wanted


@pytest.mark.parametrize("text", ["", policy(), policy("ALLOW")])
def test_several_host_lines_are_always_refused(text):
    found = rules(text, "deny")
    assert found.action == found.DENY
    assert "," in str(found.policies["several-hosts"].permissions)


def test_envoy_accepts_the_spellings(tmp_path):
    text = policy("DENY", "{hosts: [a.test, '*.b', 'c.*', 'd:80', '*', '[::1]:1'], paths: [/x]}")
    judge.validate(mesh.view(mesh.objects(text, config())), tmp_path)


def test_pods_of_a_headless_service_are_called_by_every_spelling():
    """As ``db-0.db``: what matches no virtual host is passed through, without mutual TLS."""
    found = mesh.objects()
    reviews = replace(found.services["default", "reviews"], address="None", addresses=())
    found = found.put(kinds.SERVICE, ("default", "reviews"), reviews)
    resources = judge.messages(mesh.view(found))
    domains = next(h.domains for n, h in resources[names.VHDS].items() if "reviews" in n)
    spelled = ["reviews", "reviews.default", "reviews.default.svc", "reviews.default.svc.cluster.local"]
    assert {f"*.{name}" for name in spelled} <= set(domains)


@pytest.mark.parametrize(
    ("action", "field", "wanted"),
    [("DENY", "values", True), ("DENY", "notValues", False), ("ALLOW", "values", False), ("ALLOW", "notValues", True)],
)
def test_a_server_name_is_the_same_in_any_case_and_with_a_dot_where_that_means_less_access(action, field, wanted):
    text = policy(action).replace(
        "to: [{operation: {paths: [/admin]}}]", f"when: [{{key: connection.sni, {field}: [A.test, '*.B']}}]"
    )
    said = str(rules(text, action.lower()).policies["ns[default]-policy[p]-rule[0]"].permissions)
    assert said.count("requested_server_name") == 2
    assert said.count("(?i)") == (2 if wanted else 0)
    found = spellings.sni("*.Test").requested_server_name.safe_regex.regex
    assert [re2.fullmatch(found, name) is not None for name in ("a.test", "a.test.", "a.test.b")] == [True, True, False]
