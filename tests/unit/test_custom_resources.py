"""Custom resources: what their definitions say of structure, values and changes, in Kubernetes' words."""

from __future__ import annotations

import json
from typing import Any

import pytest
from apiserver import Cluster

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
LAMPS = "/apis/example.com/v1/namespaces/default/lamps"


def definition(spec: dict[str, Any], **version: Any) -> dict[str, Any]:
    schema = {"type": "object", "properties": {"spec": {"type": "object", **spec}}}
    return {
        "metadata": {"name": "lamps.example.com"},
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": {"plural": "lamps", "singular": "lamp", "kind": "Lamp", "listKind": "LampList"},
            "versions": [
                {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}, **version}
            ],
        },
    }


def defined(spec: dict[str, Any], **version: Any) -> Cluster:
    cluster = Cluster()
    cluster.must("POST", CRDS, definition(spec, **version))
    return cluster


def fields(**properties: Any) -> dict[str, Any]:
    return {"properties": properties}


def lamp(name: str = "l", **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": spec}


def refused(cluster: Cluster, **spec: Any) -> str:
    code, answer = cluster.ask("POST", LAMPS, lamp(**spec))
    assert code == 422, answer
    return str(answer["message"])


TEXT, NUMBER = {"type": "string"}, {"type": "integer"}


# --- structure -------------------------------------------------------------------------------------------------------


def test_defaults_are_filled_in_at_every_depth_and_nulls_give_way_to_them() -> None:
    inner = {"type": "object", "default": {"b": 1}, **fields(a={**TEXT, "default": "x"}, b=NUMBER)}
    cluster = defined(fields(inner=inner, size={**NUMBER, "default": 3}, note={**TEXT, "nullable": True}))
    assert cluster.must("POST", LAMPS, lamp(size=None))["spec"] == {"inner": {"a": "x", "b": 1}, "size": 3}
    assert cluster.must("POST", LAMPS, lamp("m", note=None, size=9))["spec"]["note"] is None


def test_unknown_fields_are_pruned_except_where_the_schema_keeps_them() -> None:
    keep = {"type": "object", "x-kubernetes-preserve-unknown-fields": True, **fields(known=TEXT)}
    pod = {"type": "object", "x-kubernetes-embedded-resource": True, **fields(spec=TEXT)}
    cluster = defined(fields(keep=keep, pod=pod))
    given = {"keep": {"known": "a", "other": {"b": 1}}, "pod": {"kind": "Pod", "apiVersion": "v1", "x": 1}, "no": 1}
    found = cluster.must("POST", LAMPS, lamp(**given))["spec"]
    assert found == {"keep": given["keep"], "pod": {"kind": "Pod", "apiVersion": "v1"}}
    code, answer = cluster.ask("POST", f"{LAMPS}?fieldValidation=Strict", lamp("m", no=1))
    assert (code, 'unknown field "spec.no"' in answer["message"]) == (400, True)


# --- values ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schema", "value", "says"),
    [
        (NUMBER, "3", 'spec.f: Invalid value: "string": spec.f in body must be of type integer: "string"'),
        ({**TEXT, "minLength": 2}, "a", 'spec.f: Invalid value: "a": spec.f in body should be at least 2 chars long'),
        ({**TEXT, "maxLength": 2}, "äöü", "spec.f: Too long: may not be more than 2 bytes"),
        ({**TEXT, "pattern": "^a+$"}, "b", "spec.f: Invalid value: \"b\": spec.f in body should match '^a+$'"),
        ({**TEXT, "enum": ["on", "off"]}, "", 'spec.f: Unsupported value: "": supported values: "off", "on"'),
        ({**NUMBER, "minimum": 1}, 0, "spec.f: Invalid value: 0: spec.f in body should be greater than or equal to 1"),
        ({**NUMBER, "maximum": 5}, 6, "spec.f: Invalid value: 6: spec.f in body should be less than or equal to 5"),
        ({**NUMBER, "minimum": 1, "exclusiveMinimum": True}, 1, "spec.f in body should be greater than 1"),
        ({**NUMBER, "multipleOf": 5}, 7, "spec.f in body should be a multiple of 5"),
        ({**NUMBER, "format": "int32"}, 1 << 31, "spec.f in body must be of type int32"),
        ({**TEXT, "format": "ipv4"}, "1.2.3", 'spec.f in body must be of type ipv4: "1.2.3"'),
        ({**TEXT, "format": "date-time"}, "today", "must be of type date-time"),
        ({"type": "array", "items": TEXT, "maxItems": 1}, ["a", "b"], "spec.f: Too many: 2: must have at most 1 items"),
        ({"type": "array", "items": TEXT, "minItems": 1}, [], "spec.f in body should have at least 1 items"),
        (
            {"type": "array", "items": TEXT, "x-kubernetes-list-type": "set"},
            ["a", "b", "a"],
            'spec.f[2]: Duplicate value: "a"',
        ),
        (
            {
                "type": "array",
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["n"],
                "items": {"type": "object", **fields(n=TEXT, v=TEXT), "required": ["n"]},
            },
            [{"n": "a", "v": "1"}, {"n": "a", "v": "2"}],
            'spec.f[1]: Duplicate value: {"n":"a"}',
        ),
        (
            {"type": "object", "additionalProperties": NUMBER, "maxProperties": 1},
            {"a": 1, "b": 2},
            "spec.f: Too many: 2: must have at most 1 items",
        ),
        ({"type": "object", **fields(a=TEXT), "required": ["a"]}, {}, "spec.f.a: Required value"),
        (
            {"type": "object", **fields(a=TEXT, b=TEXT), "oneOf": [{"required": ["a"]}, {"required": ["b"]}]},
            {"a": "1", "b": "2"},
            '<nil>: Invalid value: "": "spec.f" must validate one and only one schema (oneOf). Found 2 valid',
        ),
        (
            {"type": "object", **fields(a=TEXT, b=TEXT), "anyOf": [{"required": ["a"]}, {"required": ["b"]}]},
            {},
            '"spec.f" must validate at least one schema (anyOf), spec.f.a: Required value',
        ),
        (
            {"type": "object", **fields(a=TEXT), "not": {"required": ["a"]}},
            {"a": "1"},
            '"spec.f" must not validate the schema (not)',
        ),
        (
            {"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}]},
            True,
            "spec.f in body must be of type",
        ),
    ],
)
def test_a_value_that_its_schema_excludes_is_refused(schema: dict[str, Any], value: Any, says: str) -> None:
    assert says in refused(defined(fields(f=schema)), f=value)


def test_values_at_the_limits_are_taken() -> None:
    cluster = defined(
        fields(
            text={**TEXT, "minLength": 1, "maxLength": 3, "pattern": "^.*$"},
            number={"type": "number", "minimum": 0, "maximum": 1, "multipleOf": 0.5},
            port={"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}]},
            at={**TEXT, "format": "date-time"},
            what={**TEXT, "format": "nobody-knows"},
        )
    )
    given = {"text": "äöü", "number": 0.5, "port": "80%", "at": "2020-01-01T00:00:00Z", "what": "x"}
    assert cluster.must("POST", LAMPS, lamp(**given))["spec"] == given


# --- definitions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        (fields(f={"description": "d"}), "properties[f].type: Required value: must not be empty for specified object"),
        (fields(f={**NUMBER, "default": "x"}), "properties[f].default: Invalid value"),
        (fields(f={"type": "array", "items": TEXT, "uniqueItems": True}), "uniqueItems: Forbidden"),
        (
            {**fields(f=TEXT), "additionalProperties": TEXT},
            "additionalProperties: Forbidden: additionalProperties and properties are mutual exclusive",
        ),
        ({"x-kubernetes-validations": [{"rule": "self.a ="}]}, "rule: Invalid value"),
        ({"x-kubernetes-validations": [{"rule": "self.?"}]}, "a field must follow '.?'"),
        ({"x-kubernetes-validations": [{"rule": "self.?a."}]}, "a field must follow '.'"),
        ({"x-kubernetes-validations": [{"rule": "nope == 1"}]}, "undeclared reference to 'nope'"),
    ],
)
def test_a_definition_that_kubernetes_would_not_take_is_refused(spec: dict[str, Any], says: str) -> None:
    code, answer = Cluster().ask("POST", CRDS, definition(spec))
    assert code == 422
    assert says in answer["message"]


def test_group_scope_and_kind_of_a_definition_are_immutable() -> None:
    cluster = defined({})
    for key, value in (("scope", "Cluster"), ("names", {"kind": "Light"})):
        code, answer = cluster.ask("PATCH", f"{CRDS}/lamps.example.com", {"spec": {key: value}})
        assert (code, "field is immutable" in answer["message"]) == (422, True), answer


def test_versions_are_served_under_each_name_and_the_stored_ones_are_remembered() -> None:
    crd = definition(fields(a=TEXT))
    first = crd["spec"]["versions"][0]
    crd["spec"]["versions"] += [{**first, "name": n, "storage": False} for n in ("v2", "v1beta1", "v1alpha1")]
    crd["spec"]["versions"][-1]["served"] = False
    cluster = Cluster()
    cluster.must("POST", CRDS, crd)
    cluster.must("POST", LAMPS.replace("v1", "v1beta1"), lamp(a="x"))
    for version in ("v1", "v2", "v1beta1"):
        found = cluster.must("GET", f"{LAMPS.replace('v1', version)}/l")
        assert (found["apiVersion"], found["spec"]) == (f"example.com/{version}", {"a": "x"})
    assert cluster.ask("GET", LAMPS.replace("v1", "v1alpha1"))[0] == 404
    group = cluster.must("GET", "/apis/example.com")
    assert [v["version"] for v in group["versions"]] == ["v2", "v1", "v1beta1"]
    for version in crd["spec"]["versions"]:
        version["storage"] = version["name"] == "v2"
    cluster.must("PATCH", f"{CRDS}/lamps.example.com", {"spec": {"versions": crd["spec"]["versions"]}})
    assert cluster.must("GET", f"{CRDS}/lamps.example.com")["status"]["storedVersions"] == ["v1", "v2"]


# --- rules -----------------------------------------------------------------------------------------------------------


def ruled(rule: str, more: dict[str, Any] | None = None, **properties: Any) -> Cluster:
    return defined({**fields(**properties), "x-kubernetes-validations": [{"rule": rule, **(more or {})}]})


EARLY = "2020-01-01T00:00:00Z"
LIST = {"type": "array", "maxItems": 800, "items": {**TEXT, "maxLength": 20}}


@pytest.mark.parametrize(
    ("rule", "good", "wrong"),
    [
        ("self.a <= self.b", {"a": 1, "b": 2}, {"a": 3, "b": 2}),
        ("!has(self.a) || self.a > 1", {}, {"a": 1}),
        ("size(self.text) == 3 && self.text.size() < 4", {"text": "äöü"}, {"text": "abcd"}),
        ("self.text.matches('^a+$')", {"text": "aa"}, {"text": "b"}),
        ("self.list.all(x, x.startsWith('a'))", {"list": ["ab", "ac"]}, {"list": ["ab", "b"]}),
        ("self.list.all(x, self.list.exists_one(y, x == y))", {"list": ["a", "b"]}, {"list": ["a", "a"]}),
        ("self.list.isSorted()", {"list": ["a", "b"]}, {"list": ["b", "a"]}),
        ("self.text.lowerAscii() == 'abc'", {"text": "aBc"}, {"text": "x"}),
        ("self.text.split('/')[1] == 'b'", {"text": "a/b"}, {"text": "a/c"}),
        ("self.text.find('[0-9]+') == '12'", {"text": "a12b"}, {"text": "a"}),
        ("isQuantity(self.text) && quantity(self.text).isLessThan(quantity('1Gi'))", {"text": "5M"}, {"text": "2Gi"}),
        ("cidr('10.0.0.0/8').containsIP(ip(self.text))", {"text": "10.1.2.3"}, {"text": "11.1.1.1"}),
        ("isURL(self.text) && url(self.text).getHost() == 'a:1'", {"text": "http://a:1/x"}, {"text": "http://b/"}),
        ("self.__if__ == 'x' && self.dash__dash__ed == 'y'", {"if": "x", "dash-ed": "y"}, {"if": "z", "dash-ed": "y"}),
        ("self.time < timestamp('2021-01-01T00:00:00Z')", {"time": EARLY}, {"time": "2022-01-01T00:00:00Z"}),
        ("self.wait > duration('5m')", {"wait": "1h"}, {"wait": "10s"}),
        ("self.port == 80 || self.port == 'http'", {"port": "http"}, {"port": 81}),
        ("self.text == 'size(x)'", {"text": "size(x)"}, {"text": "x"}),
    ],
)  # fmt: skip
def test_rules_are_evaluated(rule: str, good: dict[str, Any], wrong: dict[str, Any]) -> None:
    properties: dict[str, Any] = {"a": NUMBER, "b": NUMBER, "text": TEXT, "list": LIST, "if": TEXT, "dash-ed": TEXT}
    properties["time"] = {**TEXT, "format": "date-time"}
    properties["wait"] = {**TEXT, "format": "duration"}
    properties["port"] = {"x-kubernetes-int-or-string": True}
    cluster = ruled(rule, {"message": "must be better"}, **properties)
    cluster.must("POST", LAMPS, lamp(**good))
    code, answer = cluster.ask("POST", LAMPS, lamp("other", **wrong))
    assert code == 422
    assert 'spec: Invalid value: "object": must be better' in answer["message"]


def test_a_rule_says_what_its_definition_says() -> None:
    assert "failed rule: self.a == 1" in refused(ruled("self.a == 1", a=NUMBER), a=2)
    made = ruled("self.a == 1", {"messageExpression": "'not %d'.format([self.a])", "message": "no"}, a=NUMBER)
    assert 'Invalid value: "object": not 2' in refused(made, a=2)
    reason = ruled("self.a == 1", {"reason": "FieldValueForbidden", "fieldPath": ".a", "message": "no"}, a=NUMBER)
    assert "spec.a: Forbidden: no" in refused(reason, a=2)
    assert "no such key: b evaluating rule" in refused(ruled("self.b == 1", a=NUMBER, b=NUMBER), a=2)


def test_rules_about_changes_hold_for_updates_alone() -> None:
    cluster = ruled("self.a >= oldSelf.a", {"message": "only grows"}, a=NUMBER)
    cluster.must("POST", LAMPS, lamp(a=5))
    cluster.must("PATCH", f"{LAMPS}/l", {"spec": {"a": 6}})
    code, answer = cluster.ask("PATCH", f"{LAMPS}/l", {"spec": {"a": 5}})
    assert (code, "only grows" in answer["message"]) == (422, True)
    optional = {"optionalOldSelf": True, "message": "once"}
    cluster = ruled("oldSelf.hasValue() ? self.a == oldSelf.value().a : self.a == 1", optional, a=NUMBER)
    assert "once" in refused(cluster, a=2)
    cluster.must("POST", LAMPS, lamp(a=1))
    assert cluster.ask("PATCH", f"{LAMPS}/l", {"spec": {"a": 2}})[0] == 422


def test_items_of_a_list_are_compared_by_their_keys_whatever_their_order() -> None:
    rule = [{"rule": "self.v == oldSelf.v", "message": "v is immutable"}]
    short = {**TEXT, "maxLength": 20}
    item = {"type": "object", **fields(n=short, v=short), "required": ["n"], "x-kubernetes-validations": rule}
    by_name = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["n"]}
    cluster = defined(fields(list={"type": "array", "maxItems": 100, "items": item, **by_name}))
    cluster.must("POST", LAMPS, lamp(list=[{"n": "a", "v": "1"}, {"n": "b", "v": "2"}]))
    cluster.must("PATCH", f"{LAMPS}/l", {"spec": {"list": [{"n": "b", "v": "2"}, {"n": "c", "v": "9"}]}})
    code, answer = cluster.ask("PATCH", f"{LAMPS}/l", {"spec": {"list": [{"n": "c", "v": "8"}]}})
    assert (code, "spec.list[0]" in answer["message"], "v is immutable" in answer["message"]) == (422, True, True)


def test_a_rule_that_would_take_too_long_is_stopped_before_it_starts() -> None:
    cluster = ruled("self.list.all(x, self.list.all(y, true))", list=LIST)
    assert "running out of cost budget" in refused(cluster, list=[str(n) for n in range(800)])


def test_a_rule_that_cannot_be_evaluated_is_named_when_it_is_defined() -> None:
    cluster = Cluster()
    cluster.must(
        "POST",
        CRDS,
        definition({**fields(a=NUMBER), "x-kubernetes-validations": [{"rule": "strings.quote('a') != ''"}]}),
    )
    assert "this rule is not evaluated here, which lacks the function or macro quote: strings.quote(" in cluster.head
    cluster.must("POST", LAMPS, lamp(a=1))


# --- what a newer schema refuses -------------------------------------------------------------------------------------


LOOSE = {name: {"x-kubernetes-preserve-unknown-fields": True} for name in ("a", "b", "o", "l", "m", "r")}
ITEM = {"type": "object", **fields(n=TEXT, v={**TEXT, "maxLength": 2}, w=TEXT), "required": ["n"]}
STRICT = {
    "a": {**NUMBER, "minimum": 10},
    "b": TEXT,
    "o": {"type": "object", **fields(x={**TEXT, "enum": ["q"]}, y=TEXT, z=TEXT), "required": ["z"]},
    "l": {"type": "array", "items": {**TEXT, "maxLength": 1}},
    "m": {"type": "array", "items": ITEM, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["n"]},
    "r": {"type": "object", **fields(k=NUMBER), "x-kubernetes-validations": [{"rule": "self.k > 5"}]},
}
STORED = {"a": 1, "b": "x", "o": {"x": "bad", "y": "1"}, "l": ["long"], "r": {"k": 1}}
KEYED = [{"n": "1", "v": "long", "w": "1"}, {"n": "2", "v": "ok"}]


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ({"b": "y"}, []),
        ({"a": 1}, []),
        ({"a": 2}, ["spec.a"]),
        ({"a": None}, []),
        ({"o": {"y": "2"}}, ["spec.o.z"]),
        ({"o": {"y": "2", "z": "1"}}, []),
        ({"o": {"x": "worse"}}, ["spec.o.x", "spec.o.z"]),
        ({"l": ["long", "b"]}, ["spec.l[0]"]),
        ({"m": [{**KEYED[0], "w": "2"}, KEYED[1]]}, []),
        ({"m": KEYED[::-1]}, []),
        ({"m": [{"n": "3", "v": "long"}]}, ["spec.m[0].v"]),
        ({"r": {"k": 2}}, ["spec.r"]),
    ],
)
def test_an_update_need_not_mend_what_it_leaves_as_it_is(change: dict[str, Any], wrong: list[str]) -> None:
    """As kube-apiserver 1.33.13 answers."""
    cluster = defined(fields(**LOOSE))
    cluster.must("POST", LAMPS, lamp(**STORED, m=KEYED))
    versions = definition(fields(**STRICT))["spec"]["versions"]
    cluster.must("PATCH", f"{CRDS}/lamps.example.com", {"spec": {"versions": versions}})
    answer = cluster.ask("PATCH", f"{LAMPS}/l", {"spec": change})[1]
    named = {c["field"] for c in answer.get("details", {}).get("causes", [])}
    assert sorted(named - {"<nil>"}) == wrong, "which says that rules were not asked"
    assert cluster.ask("POST", LAMPS, lamp("new", **STORED))[0] == 422
    cluster.must("PATCH", f"{LAMPS}/l", {"metadata": {"labels": {"a": "b"}}})


def ratcheted(loose: dict[str, Any], strict: dict[str, Any], **spec: Any) -> Cluster:
    """A lamp that has been stored before its schema became strict."""
    cluster = defined(fields(**loose))
    cluster.must("POST", LAMPS, lamp(**spec))
    versions = definition(fields(**strict))["spec"]["versions"]
    cluster.must("PATCH", f"{CRDS}/lamps.example.com", {"spec": {"versions": versions}})
    return cluster


def test_one_and_true_are_different_values() -> None:
    cluster = defined(fields(a=NUMBER, free={"type": "object", "x-kubernetes-preserve-unknown-fields": True}))
    cluster.must("POST", LAMPS, lamp(a=1, free={"x": 1}))
    code, answer = cluster.ask("PATCH", f"{LAMPS}/l", {"metadata": {"labels": {"a": "b"}}, "spec": {"a": True}})
    assert (code, 'must be of type integer: "boolean"' in answer["message"]) == (422, True)
    after = cluster.must("PATCH", f"{LAMPS}/l", {"spec": {"free": {"x": True}}})
    assert after["spec"]["free"]["x"] is True
    assert after["metadata"]["generation"] == 2


def test_whoever_applies_true_conflicts_with_who_holds_one() -> None:
    cluster = defined(fields(free={"type": "object", "x-kubernetes-preserve-unknown-fields": True}))

    def applied(manager: str, value: Any) -> int:
        body = {"apiVersion": "example.com/v1", "kind": "Lamp", **lamp(free={"x": value})}
        path = f"{LAMPS}/l?fieldManager={manager}"
        return cluster.ask("PATCH", path, json.dumps(body).encode(), content="application/apply-patch+yaml")[0]

    assert applied("a", 1) == 201
    assert [applied("b", value) for value in (1, 1.0, True)] == [200, 200, 409]


def test_a_key_that_begins_like_one_that_stays_is_judged_by_itself() -> None:
    texts = {"type": "object", "additionalProperties": {**TEXT, "maxLength": 3}}
    cluster = ratcheted({"m": LOOSE["m"]}, {"m": texts}, m={"app": "too long"})
    cluster.must("PATCH", f"{LAMPS}/l", {"spec": {"m": {"app.kubernetes.io/name": "abc"}}})
    for wrong in ("app.b", "app[0]"):
        code, answer = cluster.ask("PATCH", f"{LAMPS}/l", {"spec": {"m": {wrong: "abcd"}}})
        assert (code, [c["field"] for c in answer["details"]["causes"]]) == (422, [f"spec.m.{wrong}"])


def test_an_item_that_is_there_twice_is_one_too_many() -> None:
    cluster = ratcheted({"m": LOOSE["m"]}, {"m": STRICT["m"]}, m=KEYED)
    code, answer = cluster.ask("PATCH", f"{LAMPS}/l", {"spec": {"m": [KEYED[0], KEYED[0]]}})
    assert (code, [c["field"] for c in answer["details"]["causes"]]) == (422, ["spec.m[1]"])


def test_faults_beyond_what_an_answer_can_say_are_faults_all_the_same() -> None:
    texts, many = {"type": "object", "additionalProperties": {**TEXT, "maxLength": 1}}, 4000
    cluster = ratcheted({"m": LOOSE["m"]}, {"m": texts}, m={f"a{n}": "long" for n in range(many)})
    cluster.must("PATCH", f"{LAMPS}/l", {"spec": {"m": {"z": "1"}}})
    code, answer = cluster.ask("PATCH", f"{LAMPS}/l", {"spec": {"m": {"z": "longer"}}})
    assert (code, [c["field"] for c in answer["details"]["causes"]]) == (422, ["spec.m.z"])
    code, answer = cluster.ask("PATCH", f"{LAMPS}/l", {"spec": {"m": {f"b{n}": "long" for n in range(many)}}})
    assert (code, len(answer["details"]["causes"])) == (422, 1000)
    for wrong in ("long", 1):
        inner = {"type": "object", "additionalProperties": texts}
        cluster = defined(fields(m=inner))
        code, answer = cluster.ask("POST", LAMPS, lamp(m={"k" * 100_000: {f"b{n}": wrong for n in range(100)}}))
        causes = answer["details"]["causes"]
        assert (code, len(causes), max(len(c["field"]) for c in causes) < 2000) == (422, 100, True)


# --- the end of a definition -----------------------------------------------------------------------------------------


def test_objects_with_finalizers_keep_their_definition_until_they_are_gone() -> None:
    """An operator still has to clean up after them."""
    cluster = defined(fields(a=NUMBER))
    cluster.must("POST", LAMPS, {**lamp("held"), "metadata": {"name": "held", "finalizers": ["example.com/lamp"]}})
    cluster.must("POST", LAMPS, lamp("free"))
    cluster.must("DELETE", f"{CRDS}/lamps.example.com")
    meta = cluster.must("GET", f"{CRDS}/lamps.example.com")["metadata"]
    assert meta["finalizers"] == ["customresourcecleanup.apiextensions.k8s.io"]
    said = {c["type"]: c for c in cluster.must("GET", f"{CRDS}/lamps.example.com")["status"]["conditions"]}
    assert said["Terminating"]["message"] == "CustomResource deletion is in progress"
    (left,) = cluster.must("GET", LAMPS)["items"]
    assert (left["metadata"]["name"], "deletionTimestamp" in left["metadata"]) == ("held", True)
    code, answer = cluster.ask("POST", LAMPS, lamp("new"))
    says = "create not allowed while custom resource definition is terminating"
    assert (code, answer["message"]) == (405, says)
    cluster.must("PATCH", f"{CRDS}/lamps.example.com", {"metadata": {"labels": {"a": "b"}}})
    assert cluster.must("GET", f"{CRDS}/lamps.example.com")["status"]["conditions"][-1]["type"] == "Terminating"
    cluster.must("PATCH", f"{LAMPS}/held", {"metadata": {"finalizers": None}})
    assert cluster.ask("GET", f"{CRDS}/lamps.example.com")[0] == 404


def test_a_definition_may_have_finalizers_of_others_beside() -> None:
    cluster = defined(fields(a=NUMBER))
    cluster.must("PATCH", f"{CRDS}/lamps.example.com", {"metadata": {"finalizers": ["example.com/lamps"]}})
    cluster.must("POST", LAMPS, {**lamp(), "metadata": {"name": "l", "finalizers": ["example.com/lamp"]}})
    cluster.must("DELETE", f"{CRDS}/lamps.example.com")
    cluster.must("PATCH", f"{CRDS}/lamps.example.com", {"metadata": {"finalizers": None}})
    assert cluster.must("GET", f"{LAMPS}/l")["metadata"]["deletionTimestamp"]
    cluster.must("PATCH", f"{LAMPS}/l", {"metadata": {"finalizers": None}})
    assert cluster.ask("GET", f"{CRDS}/lamps.example.com")[0] == 404


@pytest.mark.parametrize(
    ("more", "says"),
    [({}, "example.com/v1 Lamp is deprecated"), ({"deprecationWarning": "use lanterns"}, "use lanterns")],
)
def test_whoever_uses_a_deprecated_version_is_warned(more: dict[str, Any], says: str) -> None:
    cluster = defined(fields(a=NUMBER), deprecated=True, **more)
    for asked in (("GET", LAMPS), ("POST", LAMPS, lamp()), ("GET", f"{LAMPS}/l"), ("DELETE", f"{LAMPS}/l")):
        cluster.must(*asked)
        assert f'Warning: 299 - "{says}"' in cluster.head


def test_an_object_in_an_object_says_what_it_is() -> None:
    made = {"type": "object", "x-kubernetes-embedded-resource": True, "x-kubernetes-preserve-unknown-fields": True}
    cluster = defined(fields(template=made))
    assert "spec.template.kind: Required value: must not be empty" in refused(cluster, template={"apiVersion": "v1"})
    cluster.must("POST", LAMPS, lamp(template={"apiVersion": "v1", "kind": "Pod"}))


@pytest.mark.parametrize("subresource", [True, False])
def test_a_change_of_the_status_is_counted_where_that_is_no_subresource(subresource: bool) -> None:
    status = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    body = definition(fields(size=NUMBER), **({"subresources": {"status": {}}} if subresource else {}))
    body["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"] = status
    cluster = Cluster()
    cluster.must("POST", CRDS, body)
    cluster.must("POST", LAMPS, lamp(size=1))

    def generation(path: str, change: dict[str, Any]) -> Any:
        return cluster.must("PATCH", path, change)["metadata"]["generation"]

    at = f"{LAMPS}/l/status" if subresource else f"{LAMPS}/l"
    assert generation(at, {"status": {"lit": True}}) == (1 if subresource else 2)
    assert generation(f"{LAMPS}/l", {"metadata": {"labels": {"a": "b"}}}) == (1 if subresource else 2)
    assert generation(f"{LAMPS}/l", {"spec": {"size": 2}}) == (2 if subresource else 3)
