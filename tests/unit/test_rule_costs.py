"""What rules of custom resources may cost, as Kubernetes estimates it when a definition is written."""

import json
import re
from pathlib import Path

import pytest
from test_custom_resources import CRDS, definition, fields

from lateen.api.crds import crds
from lateen.cluster.apiserver.custom import costs, declared, definitions, typed, types
from lateen.cluster.apiserver.custom.sizes import Sizes

from apiserver import Cluster  # isort: skip

TRY = (
    "(try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are "
    "declared)"
)
TEXT = {"type": "string"}


def texts(**more):
    return {"type": "array", "items": TEXT, **more}


def cost(rule, schema):
    own = types.of_schema(schema, "selfType", typed.escaped)
    return costs.estimate(rule, schema, {"self": own, "oldSelf": own}, Sizes(typed.escaped), False)


@pytest.mark.parametrize(("length", "each"), [(16, 11), (63, 30), (253, 106), (1024, 414)])
def test_items_cost_what_kubernetes_says_they_do(length, each):
    """Measured with the validator of apiextensions-apiserver 0.36."""
    schema = {"type": "array", "maxItems": 1000, "items": {**TEXT, "maxLength": length}}
    assert (cost("self.all(x, x.contains('gpu'))", schema) - 2) / 1000 == each


@pytest.mark.parametrize(
    ("rule", "schema", "expected"),
    [
        ("self.size() < 3", texts(), 3),
        ("self == oldSelf", {"type": "object", "properties": {}}, 2),
        ("self == oldSelf", {**TEXT, "maxLength": 100}, 42),
        ("self.startsWith('abc')", {**TEXT, "maxLength": 100}, 2),
        ("self.matches('^[a-z]+$')", {**TEXT, "maxLength": 100}, 1 + 41 * 2),
        ("'a' in self", texts(maxItems=50), 51),
        ("self.exists(x, x == 'a')", texts(maxItems=50), 2 + 50 * (4 + 1 + 1)),
        ("self.filter(x, true).size() > 0", texts(maxItems=50), 1 + 11 + 50 * 13 + 2),
        (
            "self.all(k, self[k] > 1)",
            {"type": "object", "maxProperties": 9, "additionalProperties": {"type": "integer"}},
            2 + 9 * 7,
        ),
        ("has(self.a) ? self.a.size() > 2 : true", {"type": "object", "properties": {"a": TEXT}}, 1 + 4),
        ("self.lowerAscii() == 'a'", {**TEXT, "maxLength": 10}, 1 + 4 + 1),
        ("self.all(i, v, v == 'x')", texts(maxItems=50), 2 + 50 * (3 + 2)),
        ("self.transformList(i, v, i).size() > 0", texts(maxItems=50), 1 + 11 + 50 * 13 + 2),
        ("sets.contains(self, self)", texts(maxItems=50), 2 + 50 * 50 + 1),
        ("sets.equivalent(self, ['a', 'b'])", texts(maxItems=50), 1 + 10 + 2 * 50 * 2 + 1),
        ("self.isSorted()", texts(maxItems=3) | {"items": {**TEXT, "maxLength": 5}}, 1 + 3 * 3),
    ],
)
def test_single_expressions(rule, schema, expected):
    assert cost(rule, schema) == expected


ANSWERS = json.loads((Path(__file__).parent / "rule_costs.json").read_text())
"""What kube-apiserver 1.33.13 says of rules about an object with some fields: the factor by which the estimated cost
exceeds the budget; empty where it takes the rule."""


@pytest.mark.parametrize("text", ANSWERS["rules"])
def test_rules_are_refused_with_the_factor_that_kube_apiserver_names(text):
    schema = {"type": "object", "properties": ANSWERS["properties"], "x-kubernetes-validations": [{"rule": text}]}
    causes = declared.mistakes({"type": "object", "properties": {"spec": schema}}, "")
    found = [
        re.search(r"estimated rule cost exceeds budget by factor of ((?:more than )?[\d.]+x)", c.says) for c in causes
    ]
    assert [m[1] for m in found if m] == ([ANSWERS["rules"][text]] if ANSWERS["rules"][text] else [])


def refused(spec):
    code, answer = Cluster().ask("POST", CRDS, definition(spec))
    assert (code, answer["reason"]) == (422, "Invalid")
    return {c["field"].removeprefix("spec.versions[0].schema."): c["message"] for c in answer["details"]["causes"]}


def rule(text, **more):
    return {"x-kubernetes-validations": [{"rule": text, **more}]}


def test_a_rule_about_lists_without_limits_is_refused_and_taken_with_them():
    at = "openAPIV3Schema.properties[spec].properties[tags]"
    causes = refused(fields(tags=texts() | rule("self.all(x, x.contains('gpu'))")))
    assert causes == {
        f"{at}.x-kubernetes-validations[0].rule": (
            "Forbidden: contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema"
        ),
        "openAPIV3Schema": (
            "Forbidden: x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema exceeds budget "
            f"by factor of more than 100x {TRY}"
        ),
    }
    spec = fields(tags=texts() | rule("self.all(x, x.contains('gpu'))"))
    answer = Cluster().ask("POST", CRDS, definition(spec))[1]
    assert f"rule: Forbidden: estimated rule cost exceeds budget by factor of more than 100x {TRY}" in answer["message"]
    limited = {**texts(maxItems=1000), "items": {**TEXT, "maxLength": 63}}
    Cluster().must("POST", CRDS, definition(fields(tags=limited | rule("self.all(x, x.contains('gpu'))"))))


def test_a_rule_costs_as_often_as_its_values_can_be_there():
    inner = {"type": "object", "properties": {"n": {**TEXT, "maxLength": 1000}}} | rule("self.n.contains('abc')")
    causes = refused(fields(l={"type": "array", "maxItems": 50_000, "items": inner}))
    factor = 50_000 * (2 + 400) / costs.RULE
    assert list(causes.values()) == [f"Forbidden: estimated rule cost exceeds budget by factor of {factor:.1f}x {TRY}"]


def test_a_message_that_may_be_endless_is_refused():
    spec = fields(a={"type": "integer"}) | rule("self.a > 1", messageExpression="'a is ' + string(self.a)")
    message = refused(spec)
    assert any(k.endswith("messageExpression") for k in message)
    assert refused(spec)["openAPIV3Schema"].startswith("Forbidden: x-kubernetes-validations estimated rule cost total")


def test_a_definition_that_is_there_already_is_not_lost_for_its_costs():
    spec = fields(tags=texts() | rule("self.all(x, x.contains('gpu'))"))
    old = definition(spec)
    new = {**old, "spec": {**old["spec"], "names": {**old["spec"]["names"], "shortNames": ["lp"]}}}
    assert definitions.check(new, set())
    assert not definitions.check(new, set(), old)


@pytest.mark.parametrize("experimental", [False, True])
def test_the_definitions_of_istio_and_of_the_gateway_api_are_within_the_budget(experimental):
    assert [c for crd in crds(experimental) for c in definitions.check(crd, set())] == []


def test_long_and_deep_rules_are_estimated_without_end_of_the_stack():
    deep = " + ".join(["self.size()"] * 3000) + " > 0"
    assert cost(deep, TEXT) >= 0


class Counted(dict):
    """A schema that counts how often its fields are gone through."""

    looks = 0

    def get(self, key, default=None):
        Counted.looks += key in ("properties", "required")
        return super().get(key, default)


def looks(rules, times):
    Counted.looks = 0
    texts_of = {f"p{i}": {**TEXT, "maxLength": 5} for i in range(20)}
    item = Counted(type="object", properties=texts_of, required=list(texts_of))
    schema = Counted(type="object", properties={"l": {"type": "array", "items": item}, **texts_of})
    schema["x-kubernetes-validations"] = [{"rule": " && ".join(["size(self.l) < 9", "self.p7 == 'a'"] * times)}] * rules
    assert declared.mistakes(schema, "openAPIV3Schema") == []
    return Counted.looks


def test_a_schema_is_gone_through_once_however_often_rules_look_something_up_in_it():
    assert looks(rules=1, times=1) == looks(rules=8, times=20)


def test_a_schema_that_is_in_effect_already_is_not_estimated(monkeypatch):
    monkeypatch.setattr(costs, "estimate", None)
    schema = fields(tags=texts() | rule("self.all(x, x.contains('gpu'))"))
    assert declared.mistakes(schema, "openAPIV3Schema", known=True) == []
