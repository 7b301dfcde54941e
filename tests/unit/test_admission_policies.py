"""ValidatingAdmissionPolicies: what they refuse, warn of and note, with parameters, variables and conditions."""

import json
import logging
from pathlib import Path

import pytest
from apiserver import Cluster

from lateen.cluster.apiserver.custom import checking, optionals
from lateen.cluster.apiserver.policies import checks

API = "/apis/admissionregistration.k8s.io/v1"
POLICIES, BINDINGS = f"{API}/validatingadmissionpolicies", f"{API}/validatingadmissionpolicybindings"
DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
CONFIGS = "/api/v1/namespaces/default/configmaps"
RULES = [
    {"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": ["deployments"]}
]


def deployment(name="web", replicas=1, **labels):
    pods = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    spec = {"replicas": replicas, "selector": {"matchLabels": {"a": "b"}}, "template": pods}
    return {"metadata": {"name": name, "labels": labels}, "spec": spec}


def policy(*validations, rules=RULES, **more):
    found = [v if isinstance(v, dict) else {"expression": v} for v in validations]
    spec = {"matchConstraints": {"resourceRules": rules}, "validations": found}
    return {"metadata": {"name": "p"}, "spec": spec | more}


def binding(*actions, name="b", **more):
    return {"metadata": {"name": name}, "spec": {"policyName": "p", "validationActions": list(actions)} | more}


def bound(*validations, actions=("Deny",), rules=RULES, with_binding=None, **more):
    cluster = Cluster()
    cluster.must("POST", POLICIES, policy(*validations, rules=rules, **more))
    cluster.must("POST", BINDINGS, binding(*actions, **(with_binding or {})))
    return cluster


def grant_joe(cluster, group, resource):
    rbac, api_group = "/apis/rbac.authorization.k8s.io/v1", "rbac.authorization.k8s.io"
    rules = [{"apiGroups": [group], "resources": [resource], "verbs": ["*"]}]
    cluster.must("POST", f"{rbac}/clusterroles", {"metadata": {"name": "d"}, "rules": rules})
    ref = {"apiGroup": api_group, "kind": "ClusterRole", "name": "d"}
    subjects = [{"kind": "User", "name": "joe", "apiGroup": api_group}]
    body = {"metadata": {"name": "d"}, "roleRef": ref, "subjects": subjects}
    cluster.must("POST", f"{rbac}/clusterrolebindings", body)


def test_an_expression_that_fails_is_said_to_its_user_and_not_to_the_log(caplog):
    cluster = bound("object.spec.?replicas.?more.orValue(7) == 7")
    with caplog.at_level(logging.WARNING):
        code, answer = cluster.ask("POST", DEPLOYMENTS, deployment())
    assert (code, "no such overload" in answer["message"]) == (422, True), answer
    assert [r.getMessage() for r in caplog.records if r.name == "cel"] == []


def test_a_write_that_a_policy_denies_is_invalid():
    cluster = bound("object.spec.replicas <= 5")
    cluster.must("POST", DEPLOYMENTS, deployment(replicas=5))
    code, answer = cluster.ask("POST", DEPLOYMENTS, deployment("big", 6))
    assert (code, answer["reason"]) == (422, "Invalid")
    says = "ValidatingAdmissionPolicy 'p' with binding 'b' denied request: failed expression: object.spec.replicas <= 5"
    assert answer["message"] == f'deployments.apps "big" is forbidden: {says}'
    assert answer["details"]["causes"] == [{"message": says}]
    assert cluster.ask("PATCH", f"{DEPLOYMENTS}/web", {"spec": {"replicas": 6}})[0] == 422
    cluster.must("DELETE", f"{BINDINGS}/b")
    cluster.must("POST", DEPLOYMENTS, deployment("big", 6))


def test_messages_reasons_and_variables():
    rule = {
        "expression": "variables.many <= variables.limit",
        "messageExpression": "'at most ' + string(variables.limit) + ' for ' + request.userInfo.username",
        "message": "too many",
        "reason": "Forbidden",
    }
    variables = [
        {"name": "limit", "expression": "object.metadata.name.startsWith('big') ? 9 : 3"},
        {"name": "many", "expression": "object.spec.replicas + 0"},
        {"name": "wrong", "expression": "object.spec.nothing.there"},
    ]
    cluster = bound(rule, variables=variables)
    code, answer = cluster.ask("POST", DEPLOYMENTS, deployment("web", 4))
    assert (code, answer["reason"]) == (403, "Forbidden")
    assert answer["message"].endswith("denied request: at most 3 for admin")
    cluster.must("POST", DEPLOYMENTS, deployment("big", 4))
    found = cluster.must("GET", f"{POLICIES}/p")
    found["spec"]["validations"][0]["messageExpression"] = "string(object.spec.nothing)"
    cluster.must("PUT", f"{POLICIES}/p", found)
    assert cluster.ask("POST", DEPLOYMENTS, deployment("web", 4))[1]["message"].endswith("denied request: too many")


def test_warnings_reach_the_client_and_audit_the_log(caplog):
    caplog.set_level(logging.INFO, "lateen.audit")
    notes = [{"key": "replicas", "valueExpression": "'there are ' + string(object.spec.replicas)"}]
    cluster = bound("object.spec.replicas <= 5", actions=("Warn", "Audit"), auditAnnotations=notes)
    cluster.must("POST", DEPLOYMENTS, deployment(replicas=6))
    assert "Validation failed for ValidatingAdmissionPolicy 'p' with binding 'b': failed expression" in cluster.head
    assert "CREATE deployments.apps default/web by admin fails policy p (b): failed expression" in caplog.text
    assert "p/replicas of web: there are 6" in caplog.text


def test_what_cannot_be_evaluated_is_denied_or_ignored_as_the_policy_says():
    text = "object.spec.nothing.there == 1"
    code, answer = bound(text).ask("POST", DEPLOYMENTS, deployment())
    assert code == 422
    assert f"expression '{text}' resulted in error: no such key: nothing" in answer["message"]
    bound(text, failurePolicy="Ignore").must("POST", DEPLOYMENTS, deployment())


def test_conditions_selectors_and_exclusions_narrow_a_policy():
    never = "false"
    other = {"name": "not-admins", "expression": "!('system:masters' in request.userInfo.groups)"}
    bound(never, matchConditions=[other]).must("POST", DEPLOYMENTS, deployment())
    labelled = {"resourceRules": RULES, "objectSelector": {"matchLabels": {"check": "me"}}}
    cluster = bound(never, matchConstraints=labelled)
    cluster.must("POST", DEPLOYMENTS, deployment())
    assert cluster.ask("POST", DEPLOYMENTS, deployment("other", check="me"))[0] == 422
    assert cluster.ask("PATCH", f"{DEPLOYMENTS}/web", {"metadata": {"labels": {"check": "me"}}})[0] == 422
    elsewhere = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}}
    cluster = bound(never, with_binding={"matchResources": elsewhere})
    cluster.must("POST", DEPLOYMENTS, deployment())
    assert cluster.ask("POST", DEPLOYMENTS.replace("default", "kube-system"), deployment())[0] == 422
    named = [{**RULES[0], "resourceNames": ["web"]}]
    cluster = bound(never, matchConstraints={"resourceRules": RULES, "excludeResourceRules": named})
    cluster.must("POST", DEPLOYMENTS, deployment())
    assert cluster.ask("POST", DEPLOYMENTS, deployment("other"))[0] == 422


def test_parameters_are_objects_that_the_binding_names():
    kind = {"apiVersion": "v1", "kind": "ConfigMap"}
    rule = "object.spec.replicas <= int(params.data.most)"
    ref = {"name": "limits", "parameterNotFoundAction": "Deny"}
    cluster = bound(rule, paramKind=kind, with_binding={"paramRef": ref})
    code, answer = cluster.ask("POST", DEPLOYMENTS, deployment())
    assert code == 422
    assert "no params found for policy binding with `Deny` parameterNotFoundAction" in answer["message"]
    cluster.must("POST", CONFIGS, {"metadata": {"name": "limits", "labels": {"l": "x"}}, "data": {"most": "2"}})
    cluster.must("POST", DEPLOYMENTS, deployment(replicas=2))
    assert cluster.ask("POST", DEPLOYMENTS, deployment("b", replicas=3))[0] == 422
    found = cluster.must("GET", f"{BINDINGS}/b")
    found["spec"]["paramRef"] = {"selector": {"matchLabels": {"l": "x"}}, "parameterNotFoundAction": "Allow"}
    cluster.must("PUT", f"{BINDINGS}/b", found)
    assert cluster.ask("POST", DEPLOYMENTS, deployment("b", replicas=3))[0] == 422
    cluster.must("DELETE", f"{CONFIGS}/limits")
    cluster.must("POST", DEPLOYMENTS, deployment("b", replicas=3))


def test_deletions_and_subresources_can_be_named():
    gone = [{**RULES[0], "operations": ["DELETE"]}]
    cluster = bound("object == null && oldObject.metadata.name != 'keep'", rules=gone)
    for name in ("keep", "other"):
        cluster.must("POST", DEPLOYMENTS, deployment(name))
    assert cluster.ask("DELETE", f"{DEPLOYMENTS}/keep")[0] == 422
    cluster.must("DELETE", f"{DEPLOYMENTS}/other")
    status = [{**RULES[0], "resources": ["deployments/status"]}]
    cluster = bound("object.status.replicas < 3", rules=status)
    made = cluster.must("POST", DEPLOYMENTS, deployment(replicas=9))
    assert cluster.ask("PUT", f"{DEPLOYMENTS}/web/status", {**made, "status": {"replicas": 3}})[0] == 422
    cluster.must("PUT", f"{DEPLOYMENTS}/web/status", {**made, "status": {"replicas": 2}})


def test_the_authorizer_knows_what_the_user_may_do_besides():
    text = "authorizer.group('').resource('secrets').namespace('default').check('list').allowed()"
    cluster = bound(text)
    grant_joe(cluster, "apps", "deployments")
    assert cluster.ask("POST", DEPLOYMENTS, deployment(), user="joe", groups=())[0] == 422
    cluster.must("POST", DEPLOYMENTS, deployment())
    own = "!authorizer.requestResource.check('delete').allowed()"
    assert bound(own).ask("POST", DEPLOYMENTS, deployment())[0] == 422


def test_nobody_makes_a_policy_read_what_they_may_not_read():
    cluster = Cluster()
    rbac = "/apis/rbac.authorization.k8s.io/v1"
    rules = [{"apiGroups": ["admissionregistration.k8s.io"], "resources": ["*"], "verbs": ["*"]}]
    cluster.must("POST", f"{rbac}/clusterroles", {"metadata": {"name": "d"}, "rules": rules})
    ref = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "d"}
    subjects = [{"kind": "User", "name": "joe", "apiGroup": "rbac.authorization.k8s.io"}]
    cluster.must(
        "POST", f"{rbac}/clusterrolebindings", {"metadata": {"name": "d"}, "roleRef": ref, "subjects": subjects}
    )
    body = policy("params == null", paramKind={"apiVersion": "v1", "kind": "Secret"})
    code, answer = cluster.ask("POST", POLICIES, body, user="joe", groups=())
    assert code == 403
    assert 'user joe does not have "get" permission' in answer["message"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"validations": []}, "validations or auditAnnotations must contain at least one item"),
        ({"matchConstraints": None}, "spec.matchConstraints: Required value"),
        ({"failurePolicy": "Perhaps"}, 'spec.failurePolicy: Unsupported value: "Perhaps"'),
        ({"validations": [{"expression": "object."}]}, "spec.validations[0].expression: Invalid value"),
        ({"validations": [{"expression": "params.x"}]}, "undeclared reference to 'params'"),
        ({"validations": [{"expression": "self.x"}]}, "undeclared reference to 'self'"),
        ({"validations": [{"expression": "variables.x"}]}, "undeclared reference to 'variables'"),
        ({"validations": [{"expression": "isSemver('1.0.0')"}]}, "lacks the function or macro isSemver"),
        ({"validations": [{"expression": "true", "reason": "Because"}]}, 'Unsupported value: "Because"'),
        ({"validations": [{"expression": "true", "message": "a\nb"}]}, "message must not contain line breaks"),
        ({"variables": [{"name": "a-b", "expression": "1"}]}, "name is not a valid CEL identifier"),
        ({"variables": [{"name": "a", "expression": "variables.a"}]}, "undefined field 'a'"),
        ({"matchConditions": [{"name": "x", "expression": "variables.a == 1"}]}, "undeclared reference to 'variables'"),
        ({"auditAnnotations": [{"key": "", "valueExpression": "'a'"}]}, "spec.auditAnnotations[0].key: Required value"),
    ],
)
def test_what_is_wrong_with_a_policy_is_told(change, says):
    body = policy("true")
    body["spec"] |= change
    code, answer = Cluster().ask("POST", POLICIES, body)
    assert (code, says in answer["message"]) == (422, True), answer


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"validationActions": []}, "at least one validation action is required"),
        ({"validationActions": ["Deny", "Warn"]}, "must not contain both Deny and Warn"),
        ({"policyName": ""}, "spec.policyName: Required value"),
        ({"paramRef": {"name": "a", "selector": {}, "parameterNotFoundAction": "Deny"}}, "mutually exclusive"),
        ({"paramRef": {"name": "a"}}, "spec.paramRef.parameterNotFoundAction: Required value"),
    ],
)
def test_what_is_wrong_with_a_binding_is_told(change, says):
    body = binding("Deny")
    body["spec"] |= change
    code, answer = Cluster().ask("POST", BINDINGS, body)
    assert (code, says in answer["message"]) == (422, True), answer


def test_the_policy_of_the_gateway_api_against_downgrades():
    """As its CRDs bring it (v1.4)."""
    text = """object.spec.group != 'gateway.networking.k8s.io' || (
        has(object.metadata.annotations) && object.metadata.annotations.exists(k, k == 'bundle') &&
        !matches(object.metadata.annotations['bundle'], 'v1.[0-3].\\\\d+') &&
        !matches(object.metadata.annotations['bundle'], 'v0'))"""
    group = {"apiGroups": ["apiextensions.k8s.io"], "apiVersions": ["v1"], "resources": ["*"]}
    cluster = bound(text, rules=[group | {"operations": ["CREATE", "UPDATE"]}])
    names = {"plural": "gateways", "kind": "Gateway"}
    schema = {"openAPIV3Schema": {"type": "object"}}
    versions = [{"name": "v1", "served": True, "storage": True, "schema": schema}]
    spec = {"group": "gateway.networking.k8s.io", "scope": "Namespaced", "names": names, "versions": versions}
    crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    for bundle, code in (("v1.2.0", 422), ("v1.6.1", 201)):
        notes = {"bundle": bundle, "api-approved.kubernetes.io": "https://x"}
        meta = {"name": "gateways.gateway.networking.k8s.io", "annotations": notes}
        got, answer = cluster.ask("POST", crds, {"metadata": meta, "spec": spec})
        assert got == code, answer


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("object.?spec.?replicas.orValue(7) == 1", 201),
        ("object.?spec.?strategy.?nothing.there.orValue(7) == 7", 201),
        ("object.metadata.labels[?'x'].hasValue()", 422),
        ("object.spec.template.spec.containers.all(c, c.?securityContext.?runAsNonRoot.orValue(false))", 422),
        ("object.spec.template.spec.containers[?0].name.value() == 'c'", 201),
        ("[1, 2].exists(i, object.?spec.?replicas.orValue(0) == i) ? true : 'a.?b' == ''", 201),
    ],
)
def test_fields_may_be_optional(text, wanted):
    assert bound(text).ask("POST", DEPLOYMENTS, deployment())[0] == wanted


def test_optional_fields_are_rewritten_and_nothing_else():
    for plain in ("a ? b : c", "a.b[0] == '.?'", "has(a.b) && a.matches('x.?')"):
        assert optionals.rewritten(plain).replace(" ", "") == plain.replace(" ", "")
    with pytest.raises(ValueError, match="compilation failed"):
        optionals.rewritten("(a.?b")


@pytest.mark.parametrize("text", ["object.?", "object.?a.", "object.?a .", "object[?", "object.?1 == 2", "object.?)"])
def test_a_field_that_is_not_named_is_refused(text):
    answer = Cluster().ask("POST", POLICIES, policy(text))
    assert (answer[0], answer[1]["reason"]) == (422, "Invalid")


@pytest.mark.parametrize("opened", ["(", "[", "{1: "])
def test_brackets_are_not_opened_without_end(opened):
    text = "object.?a == " + opened * 2000 + "1" + {"(": ")", "[": "]"}.get(opened, "}") * 2000
    answer = Cluster().ask("POST", POLICIES, policy(text))
    assert (answer[0], answer[1]["reason"]) == (422, "Invalid")


def test_each_variable_is_compiled_as_often_however_many_there_are(monkeypatch):
    compiled, real = [], checking.checked
    monkeypatch.setattr(checking, "checked", lambda *given: compiled.append(given[0]) or real(*given))
    for count in (50, 100):
        compiled.clear()
        names = [{"name": f"v{i}", "expression": f"variables.v{i - 1}" if i else "1"} for i in range(count)]
        found = checks.policy(policy(f"variables.v{count - 1} == 1", variables=names))
        assert found == []
        assert len(compiled) == 2 * count + 1


def test_a_variable_knows_those_before_it_and_no_others():
    names = [{"name": "a", "expression": "variables.b"}, {"name": "b", "expression": "'x'"}]
    assert [c.path for c in checks.policy(policy("variables.b == 'x'", variables=names))] == [
        "spec.variables[0].expression"
    ]
    assert [c.path for c in checks.policy(policy("variables.b == 1", variables=names[1:]))] == [
        "spec.validations[0].expression"
    ]


def test_conditions_of_webhooks_decide_whether_they_are_called():
    cluster = Cluster()
    hook = {
        "name": "a.b.c",
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        "clientConfig": {"url": "https://127.0.0.1:1/"},
        "rules": [
            {"operations": ["CREATE"], "apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments"]}
        ],
        "matchConditions": [{"name": "named", "expression": "object.metadata.name == 'web'"}],
    }
    hooks = f"{API}/validatingwebhookconfigurations"
    cluster.must("POST", hooks, {"metadata": {"name": "w"}, "webhooks": [hook]})
    assert cluster.ask("POST", DEPLOYMENTS, deployment("web"))[0] == 500
    cluster.must("POST", DEPLOYMENTS, deployment("other"))
    hook["matchConditions"][0]["expression"] = "object.metadata.nothing == 1"
    cluster.must("PATCH", f"{hooks}/w", {"webhooks": [hook]})
    assert "no such key: nothing" in cluster.ask("POST", DEPLOYMENTS, deployment("third"))[1]["message"]
    cluster.must("PATCH", f"{hooks}/w", {"webhooks": [hook | {"failurePolicy": "Ignore"}]})
    cluster.must("POST", DEPLOYMENTS, deployment("third"))


@pytest.mark.parametrize("upgrade", ["websocket", "SPDY/3.1"])
def test_commands_in_pods_can_be_denied(upgrade):
    rule = [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CONNECT"], "resources": ["pods/exec"]}]
    cluster = bound("object.command[0] != 'sh' && request.subResource == 'exec'", rules=rule)
    pod = {"metadata": {"name": "web"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    cluster.must("POST", "/api/v1/namespaces/default/pods", pod)
    path = "/api/v1/namespaces/default/pods/web/exec?command=sh&command=-c&command=id&stdout=true"
    headers = {"Upgrade": upgrade, "X-Stream-Protocol-Version": "v4.channel.k8s.io"}
    method = "GET" if upgrade == "websocket" else "POST"
    code, answer = cluster.ask(method, path, headers=headers)
    assert (code, "denied request: failed expression: object.command[0]" in answer["message"]) == (422, True)


@pytest.mark.parametrize(
    ("change", "field", "says"),
    [
        ({"validations": [{"expression": "object.a +"}]}, "validations[0].expression", "compilation failed: "),
        ({"validations": [{"expression": "object.spec"}]}, "validations[0].expression", "must evaluate to bool"),
        (
            {"validations": [{"expression": "request.nmae == 'x'"}]},
            "validations[0].expression",
            "compilation failed: ERROR: <input>:1:8: undefined field 'nmae'\n | request.nmae == 'x'\n | .......^",
        ),
        (
            {"validations": [{"expression": "request.name == 1"}]},
            "validations[0].expression",
            "compilation failed: ERROR: <input>:1:14: found no matching overload for '_==_' applied to '(string, int)'",
        ),
        (
            {"validations": [{"expression": "true", "messageExpression": "1"}]},
            "validations[0].messageExpression",
            "must evaluate to string",
        ),
        (
            {"auditAnnotations": [{"key": "a", "valueExpression": "1"}]},
            "auditAnnotations[0].valueExpression",
            "must evaluate to one of [string null_type]",
        ),
        (
            {"matchConditions": [{"name": "a", "expression": "'a'"}]},
            "matchConditions[0].expression",
            "must evaluate to bool",
        ),
        (
            {"validations": [{"expression": "params.a == 1"}]},
            "validations[0].expression",
            "compilation failed: ERROR: <input>:1:1: undeclared reference to 'params' (in container '')",
        ),
        (
            {"variables": [{"name": "a", "expression": "1"}], "validations": [{"expression": "variables.a == 'x'"}]},
            "validations[0].expression",
            "compilation failed: ERROR: <input>:1:13: found no matching overload for '_==_' applied to '(int, string)'",
        ),
        (
            {"variables": [{"name": "a", "expression": "variables.b"}, {"name": "b", "expression": "1"}]},
            "variables[0].expression",
            "compilation failed: ERROR: <input>:1:10: undefined field 'b'",
        ),
        (
            {"validations": [{"expression": "authorizer.group('').check('get').allowed()"}]},
            "validations[0].expression",
            "compilation failed: ERROR: <input>:1:27: found no matching overload for 'check' applied to 'kubernetes.",
        ),
        (
            {"validations": [{"expression": "namespaceObject.spec.replicas == 1"}]},
            "validations[0].expression",
            "compilation failed: ERROR: <input>:1:21: undefined field 'replicas'",
        ),
    ],
)
def test_expressions_that_do_not_compile_are_refused(change, field, says):
    code, answer = Cluster().ask("POST", POLICIES, policy("true", **change))
    assert code == 422
    (cause,) = answer["details"]["causes"]
    assert cause["field"] == f"spec.{field}"
    assert cause["message"].partition('": ')[2].startswith(says)


def warned(*validations, **more):
    made = Cluster().must("POST", POLICIES, policy(*validations, **more))
    return made["status"]["typeChecking"]


def test_the_status_warns_of_what_the_kinds_of_the_rules_do_not_have():
    expression = "object.spec.replcas > 1 && object.spec.replicas < 5"
    assert warned(expression) == {
        "expressionWarnings": [
            {
                "fieldRef": "spec.validations[0].expression",
                "warning": (
                    "apps/v1, Kind=Deployment: ERROR: <input>:1:12: undefined field 'replcas'\n"
                    f" | {expression}\n | ...........^\n"
                ),
            }
        ]
    }
    several = [RULES[0] | {"apiGroups": ["", "apps"], "resources": ["deployments", "pods", "pods/exec"]}]
    (found,) = warned("object.spec.template.metadata.name != 'a'", rules=several)["expressionWarnings"]
    assert found["warning"].startswith("/v1, Kind=Pod: ERROR: <input>:1:12: undefined field 'template'")
    assert "Deployment" not in found["warning"]
    message = {"expression": "object.spec.replicas < 5", "messageExpression": "'at most ' + string(object.spec.most)"}
    assert warned(message)["expressionWarnings"][0]["fieldRef"] == "spec.validations[0].messageExpression"


@pytest.mark.parametrize(
    "expression",
    [
        "object.spec.template.spec.containers.all(c, c.image.startsWith('a') && !has(c.livenessProbe.exec))",
        "object.metadata.labels.exists(k, k == 'a') && object.metadata.creationTimestamp < timestamp(0)",
        "object.spec.strategy.rollingUpdate.maxSurge == 1",
        "oldObject == null || object.spec.replicas >= oldObject.spec.replicas",
        "authorizer.requestResource.check('delete').allowed() && namespaceObject.metadata.labels['a'] == 'b'",
        "request.userInfo.groups.exists(g, g == 'a') && request.options.anything == 1",
        "dyn(object).anything == 1",
    ],
)
def test_what_the_kinds_have_is_not_warned_of(expression):
    assert warned(expression) == {}


def test_rules_with_wildcards_have_no_types():
    assert warned("object.nothing == 1", rules=[RULES[0] | {"apiGroups": ["*"]}]) == {}
    assert warned("object.nothing == 1", rules=[RULES[0] | {"resources": ["*"]}]) == {}


def test_parameters_have_types_as_well():
    (found,) = warned("params.dta == {}", paramKind={"apiVersion": "v1", "kind": "ConfigMap"})["expressionWarnings"]
    assert "undefined field 'dta'" in found["warning"]


ANSWERS = json.loads((Path(__file__).parent / "policy_expressions.json").read_text())
"""What kube-apiserver 1.33.13 refuses of policies, and what its controller writes into their statuses."""


def told(answer):
    return sorted(f"{c['field']}: {c['message']}" for c in answer.get("details", {}).get("causes", []))


def test_expressions_are_refused_in_the_words_of_kube_apiserver():
    cluster = Cluster()
    for case in ANSWERS["refused"]:
        spec = {"matchConstraints": {"resourceRules": RULES}, **case["spec"]}
        answer = cluster.ask("POST", f"{POLICIES}?dryRun=All", {"metadata": {"name": "p"}, "spec": spec})[1]
        assert told(answer) == case["causes"]


def test_statuses_warn_in_the_words_of_kubernetes():
    cluster = Cluster()
    for case in ANSWERS["warned"]:
        spec = dict(case["spec"])
        spec["matchConstraints"] = {"resourceRules": spec.pop("resourceRules")}
        made = cluster.must("POST", f"{POLICIES}?dryRun=All", {"metadata": {"name": "p"}, "spec": spec})
        assert made["status"]["typeChecking"].get("expressionWarnings", []) == case["warnings"]
