"""CEL rules of custom resources when the definition is written: kube-apiserver's verdicts (1.33), and its words."""

from __future__ import annotations

from typing import Any

import pytest
from apiserver import Cluster
from hypothesis import given, settings
from hypothesis import strategies as st

from lateen.cluster.apiserver.custom import checking, macros, programs, types

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
NO = "found no matching overload for"
TEXT, NUMBER = {"type": "string", "maxLength": 100}, {"type": "integer"}
FEW: dict[str, Any] = {"type": "array", "maxItems": 100}


def made(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


PROPERTIES = {
    "a": NUMBER,
    "b": NUMBER,
    "num": {"type": "number"},
    "flag": {"type": "boolean"},
    "text": TEXT,
    "dash-ed": TEXT,
    "if": TEXT,
    "time": {**TEXT, "format": "date-time"},
    "wait": {**TEXT, "format": "duration"},
    "byte": {**TEXT, "format": "byte"},
    "list": {**FEW, "items": TEXT},
    "objs": {**FEW, "items": made(n=TEXT)},
    "map": {"type": "object", "maxProperties": 100, "additionalProperties": TEXT},
    "obj": made(x=TEXT, y=NUMBER),
    "port": {"x-kubernetes-int-or-string": True, "maxLength": 100},
    "any": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
    "emb": {"type": "object", "x-kubernetes-embedded-resource": True},
}


def applied(rule: dict[str, Any], **root: Any) -> tuple[int, dict[str, Any], Cluster]:
    cluster = Cluster()
    spec = {**made(**PROPERTIES), "x-kubernetes-validations": [rule]}
    schema = {**made(spec=spec), **root}
    names = {"plural": "lamps", "singular": "lamp", "kind": "Lamp", "listKind": "LampList"}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    of = {"group": "example.com", "scope": "Namespaced", "names": names, "versions": [version]}
    return (*cluster.ask("POST", CRDS, {"metadata": {"name": "lamps.example.com"}, "spec": of}), cluster)


def refused(rule: dict[str, Any]) -> tuple[str, str]:
    """The field's last step, and what is wrong with it."""
    code, answer, _ = applied(rule)
    assert code == 422, answer
    (cause,) = answer["details"]["causes"]
    return cause["field"].rpartition(".")[2], cause["message"]


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ("self.text.startWith('a')", "20: undeclared reference to 'startWith' (in container '')"),
        ("nosuch(1)", "7: undeclared reference to 'nosuch' (in container '')"),
        ("self + 1", f"6: {NO} '_+_' applied to '(selfType, int)'"),
        ("self.nosuch == 1", "5: undefined field 'nosuch'"),
        ("self.a", "cel expression must evaluate to a bool"),
        ("self.port", "cel expression must evaluate to a bool"),
        ("self.a + self.text == 3", f"8: {NO} '_+_' applied to '(int, string)'"),
        ("self.num == 1", f"10: {NO} '_==_' applied to '(double, int)'"),
        ("self.any.foo == 1", "9: undefined field 'foo'"),
        ("self.text.nosuch == 1", "10: type 'string' does not support field selection"),
        ("self.list['a'] == 'x'", f"10: {NO} '_[_]' applied to '(list(string), string)'"),
        ("self.list.all(x, x > 1)", f"20: {NO} '_>_' applied to '(string, int)'"),
        ("self.list.exists(x, y == x)", "21: undeclared reference to 'y' (in container '')"),
        ("self.list.filter(x, x)", f"17: {NO} '_?_:_' applied to '(string, list(string), list(string))'"),
        ("self.list.exists_one(x, x)", f"21: {NO} '_?_:_' applied to '(string, int, int)'"),
        ("self.map['a'] == 1", f"15: {NO} '_==_' applied to '(string, int)'"),
        ("self.objs.all(o, o.m == 'x')", "19: undefined field 'm'"),
        ("self.text.all(x, true)", "5: expression of type 'string' cannot be range of a comprehension"),
        ("self.flag && self.a", "18: expected type 'bool' but found 'int'"),
        ("self.flag ? true : 1", f"11: {NO} '_?_:_' applied to '(bool, bool, int)'"),
        ("self.a ? true : false", f"8: {NO} '_?_:_' applied to '(int, bool, bool)'"),
        ("self.text.startsWith(1)", f"21: {NO} 'startsWith' applied to 'string.(int)'"),
        ("self.text.startsWith('a', 'b')", f"21: {NO} 'startsWith' applied to 'string.(string, string)'"),
        ("contains(self.text, 'a')", f"9: {NO} 'contains' applied to '(string, string)'"),
        ("size(1) == 1", f"5: {NO} 'size' applied to '(int)'"),
        ("has(self.nosuch)", "4: undefined field 'nosuch'"),
        ("has(self)", "5: invalid argument to has() macro"),
        ("1 in self.list", f"3: {NO} '@in' applied to '(int, list(string))'"),
        ("[1, 'a'] == []", "5: expected type 'int' but found 'string'"),
        ("{'a': 1, 'b': 'x'} == {}", "15: expected type 'int' but found 'string'"),
        ("self.dash__dash__ed == 1", f"21: {NO} '_==_' applied to '(string, int)'"),
        ("self.list == self.objs", f"11: {NO} '_==_' applied to '(list(string), list(selfType.objs.@idx))'"),
        ("self.flag == null", f"11: {NO} '_==_' applied to '(bool, null)'"),
        ("self.?a.orValue(1) == 'x'", f"20: {NO} '_==_' applied to '(int, string)'"),
        ("self.?obj.x == 'x'", f"13: {NO} '_==_' applied to '(optional_type(string), string)'"),
        ("quantity('1').isLessThan(1)", f"25: {NO} 'isLessThan' applied to 'kubernetes.Quantity.(int)'"),
        ("self.time > duration('1s')", f"11: {NO} '_>_' applied to '(timestamp, duration)'"),
        ("self.text + 'x' == 'y' && self.nosuch && foo", "31: undefined field 'nosuch'; 42: undeclared reference"),
        ("int == self.a", f"5: {NO} '_==_' applied to '(type(int), int)'"),
        ("oldSelf.hasValue()", f"17: {NO} 'hasValue' applied to 'selfType.()'"),
        ("self.list.map(x, x.size()) == ['a']", f"28: {NO} '_==_' applied to '(list(int), list(string))'"),
    ],
)  # fmt: skip
def test_a_rule_whose_types_do_not_fit_is_refused_when_it_is_written(rule: str, says: str) -> None:
    field, message = refused({"rule": rule})
    assert field == "rule"
    for part in says.split("; "):
        assert part in message


def test_the_place_of_a_mistake_is_shown() -> None:
    rule = "self.a == 1 &&\n  self.list.all(x, x > 1)"
    says = "ERROR: <input>:2:22: found no matching overload for '_>_' applied to '(string, int)'\n"
    assert f"compilation failed: {says} |   self.list.all(x, x > 1)\n | {'.' * 21}^" in refused({"rule": rule})[
        1
    ].replace("\\n", "\n")


@pytest.mark.parametrize(
    "rule",
    [
        "self.a < 1.5",
        "self.num > 1",
        "self.list.all(x, x == 'a')",
        "self.map.a == 'x'",
        "self.port == 1",
        "self.port + 1 == 2",
        "self.wait > duration('1s')",
        "self.byte == b'x'",
        "'a' in self.map",
        "{'a': 1} == {}",
        "self == oldSelf",
        "type(self.a) == int",
        "dyn(self.a) == 'x'",
        "self.a in [1, 2]",
        "self.obj == null",
        "self.port == null",
        "self.list + ['a'] == ['b']",
        "self.time - self.time > duration('1s')",
        "self.map.nosuch.size() == 1",
        "self.list.isSorted()",
        "self.map.size() == 1",
        "self.wait.getSeconds() == 1",
        "self.a % 2 == 0",
        "bool(self.text)",
        "self.emb.metadata.name == 'x'",
        "self.emb.kind == 'x'",
        "self.time == null",
        "self.port.all(x, x)",
        "self.list.all(self, self == 'x')",
        "self.list == []",
        "self.list.exists(x, x in [])",
        "self.?obj.x.orValue('x') == 'x'",
        "self.map[?'a'].hasValue()",
        "has(self.map.z)",
        "string(ip('1.2.3.4')) == '1'",
        "string(cidr('1.2.3.4/8')) == '1'",
        "string(self.port) == '1'",
        "string(self.flag) == ''",
        "string(self.byte) == ''",
        "string(self.time) == ''",
        "int(self.time) == 1",
        "timestamp(self.text) == self.time",
        "bytes(self.text) == self.byte",
        "size(self.byte) == 1",
        "self.text.format([]) == ''",
        "url('x').getQuery()['a'] == ['x']",
        "cidr(self.text).ip() == ip('x')",
        "cidr(self.text).containsIP(self.text)",
        "cidr(self.text).containsCIDR(self.text)",
        "quantity('1').add(1) == quantity('1')",
        "self.wait + self.time == self.time",
        "self.flag < true",
        "1 < 2u",
        "(self.flag ? self.obj : null) == null",
        "size(self.list.filter(x, x.size() > 2)) > 1.5",
        "matches(self.text, 'a')",
        "has(self.a)",
        "self.time.getHours('UTC') == 1",
        "self.wait.getHours() == 1",
        "self.a == -1",
        "-self.a < - 1",
        "self.time.getDayOfWeek() == 1",
        "self.objs.map(o, o.n).exists(n, n.size() > 1)",
        "'%s %d'.format([self.text, self.a]) == ''",
        "sets.contains(self.list, ['a'])",
        "self.list.all(i, v, i > 0 && v == 'x')",
        "self.map.transformList(k, v, v.size() > 1, k).exists(x, x == 'a')",
        "self.objs.transformMap(i, o, o.n)[0].size() > 1",
    ],
)  # fmt: skip
def test_a_rule_whose_types_fit_is_taken(rule: str) -> None:
    code, answer, _ = applied({"rule": rule})
    assert code == 201, answer


def test_what_no_kubernetes_has_is_refused() -> None:
    assert "1:9: undeclared reference to 'bind' (in container '')" in refused({"rule": "cel.bind(x, self.a, x > 0)"})[1]


def test_the_types_of_an_index_and_its_value_are_known() -> None:
    says = refused({"rule": "self.list.all(i, v, i == v)"})[1]
    assert f"1:23: {NO} '_==_' applied to '(int, string)'" in says
    assert "1:18: duplicate variable name: i" in refused({"rule": "self.list.all(i, i, true)"})[1]
    says = refused({"rule": "self.list.transformMapEntry(i, v, v).size() > 1"})[1]
    assert f"1:28: {NO} 'cel.@mapInsert' applied to '(map(dyn, dyn), string)'" in says


def test_what_kubernetes_has_and_the_library_lacks_is_named_in_a_warning() -> None:
    _, _, cluster = applied({"rule": "format.uuid().validate(self.text).hasValue()"})
    assert "this rule is not evaluated here, which lacks the function or macro uuid" in cluster.head


@pytest.mark.parametrize(
    ("expression", "says"),
    [
        ("1", "messageExpression must evaluate to a string"),
        ("self.a", "messageExpression must evaluate to a string"),
        ("self.nosuch", "messageExpression compilation failed: ERROR: <input>:1:5: undefined field 'nosuch'"),
        ("nosuch", "messageExpression compilation failed: ERROR: <input>:1:1: undeclared reference to 'nosuch'"),
        ("  ", "Required value: messageExpression must be non-empty if specified"),
    ],
)
def test_a_message_that_is_no_text_is_refused(expression: str, says: str) -> None:
    field, message = refused({"rule": "self.a == 1", "messageExpression": expression})
    assert (field, says in message) == ("messageExpression", True), message


@pytest.mark.parametrize(
    "path",
    [".nosuch", "nosuch", ".obj.z", ".list[0]", ".any.x", ".", ".objs[0].n", ".a.b", ".port.x", ".obj.x ", "a.b"],
)
def test_a_path_that_leads_to_no_field_is_refused(path: str) -> None:
    assert refused({"rule": "self.a == 1", "fieldPath": path}) == (
        "fieldPath",
        f'Invalid value: "{path}": fieldPath must be a valid path',
    )


@pytest.mark.parametrize("path", [".a", ".obj.x", ".list", ".map.a", ".map['a']", "['a']", ".dash-ed", ".obj['x']"])
def test_a_path_that_leads_to_a_field_is_taken(path: str) -> None:
    code, answer, _ = applied({"rule": "self.a == 1", "fieldPath": path})
    assert code == 201, answer


def test_the_root_has_a_name_and_no_labels() -> None:
    rules = [{"rule": "self.metadata.name == self.kind"}]
    assert applied({"rule": "true"}, **{"x-kubernetes-validations": rules})[0] == 201
    rules = [{"rule": "self.metadata.labels == {}"}]
    code, answer, _ = applied({"rule": "true"}, **{"x-kubernetes-validations": rules})
    assert (code, "undefined field 'labels'" in answer["message"]) == (422, True)


LISTS = {**FEW, "items": {**TEXT, "x-kubernetes-validations": [{"rule": "self == oldSelf"}]}}
UNTYPED = {"x-kubernetes-preserve-unknown-fields": True, "x-kubernetes-validations": [{"rule": "self == 1"}]}


@pytest.mark.parametrize(
    ("field", "at", "says"),
    [
        (LISTS, ".items.x-kubernetes-validations[0].rule", "uncorrelatable portion of the schema within"),
        ({**FEW, "items": LISTS}, ".items.items.x-kubernetes-validations[0].rule", "properties[t]"),
        (UNTYPED, ".x-kubernetes-validations", "unable to convert structural schema to CEL declarations"),
    ],
)
def test_a_rule_about_values_that_it_cannot_see_is_refused(field: dict[str, Any], at: str, says: str) -> None:
    code, answer, _ = applied({"rule": "true"}, properties={"spec": made(t=field)})
    (cause,) = answer["details"]["causes"]
    assert (code, cause["field"].partition("properties[t]")[2], says in cause["message"]) == (422, at, True), cause


def test_items_that_have_a_key_have_old_values() -> None:
    item = {**made(n=TEXT), "required": ["n"], "x-kubernetes-validations": [{"rule": "self.n == oldSelf.n"}]}
    keyed = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["n"]}
    by_name = {
        "type": "object",
        "maxProperties": 100,
        "additionalProperties": {**TEXT, "x-kubernetes-validations": [{"rule": "self == oldSelf"}]},
    }
    spec = made(t={**FEW, "items": item, **keyed}, m=by_name)
    assert applied({"rule": "true"}, properties={"spec": spec})[0] == 201


def test_every_function_that_is_evaluated_is_known_to_the_checker() -> None:
    named = {name for name, _ in types.overloads()} | types.UNTYPED
    assert set(programs.FUNCTIONS) - named == {"optSelect", "optIndex", *macros.FUNCTIONS}


def test_an_optional_old_value_has_a_type_of_its_own() -> None:
    rule = {"rule": "oldSelf.hasValue() ? oldSelf.value().a == self.a : true", "optionalOldSelf": True}
    assert applied(rule)[0] == 201
    says = refused({**rule, "rule": "oldSelf.a == self.a"})[1]
    assert f"11: {NO} '_==_' applied to '(optional_type(int), int)'" in says
    unused = {"rule": "self.a == 1", "optionalOldSelf": False}
    assert refused(unused) == ("optionalOldSelf", "Invalid value: false: may not be set if oldSelf is not used in rule")


WORDS = (
    """self .a .list .all(x, [ ] ( ) { } , : ? .? [? 'a' 1 1.5 + == && in ! - has size .size() null true x // ` " ☃"""
)


@given(st.lists(st.sampled_from([*WORDS.split(), " ", "\n"]), max_size=12).map("".join))
@settings(max_examples=300, deadline=None)
def test_whatever_is_written_is_judged(expression: str) -> None:
    kind, wrong = checking.checked(expression, {"self": types.Type("selfType", fields={}.get)})
    assert isinstance(kind, types.Type)
    assert not wrong or wrong.startswith("ERROR: <input>:")


@pytest.mark.parametrize(
    "text", ["(" * 500 + "1" + ")" * 500, "1" + " + 1" * 5000, "!" * 5000 + "true", "x" + ".a" * 5000]
)
def test_long_expressions_are_judged_as_far_as_they_are_read(text: str) -> None:
    assert checking.checked(text, {"x": types.DYN})[1] == ""
