"""What validation rejects, what it warns about, and that nothing is dropped silently."""

import typing

import msgspec
import pytest

from lateen.api import config, crds, effective, kinds, validate
from lateen.api.config import Config, fields, unwrap


def virtual_service(**http):
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "spec": {"hosts": ["reviews"], "http": [http]},
    }


ROUTE = [{"destination": {"host": "reviews"}}]


@pytest.mark.parametrize(
    ("http", "path"),
    [
        ({}, "spec.http[0]"),
        ({"route": ROUTE, "timeout": "5 parsecs"}, "spec.http[0].timeout"),
        ({"route": ROUTE, "match": [{"uri": {"regex": "("}}]}, "spec.http[0].match[0].uri.regex"),
        ({"route": ROUTE, "match": [{"uri": {"regex": "a" * 2000}}]}, "spec.http[0].match[0].uri.regex"),
        ({"route": ROUTE, "match": [{"uri": {"exact": "/", "prefix": "/"}}]}, "spec.http[0].match[0].uri"),
        ({"route": ROUTE, "redirect": {"uri": "/"}}, "spec.http[0]"),
        ({"route": [{"destination": {"host": "*"}}]}, "spec.http[0].route[0].destination.host"),
        ({"route": ROUTE, "fault": {"abort": {"httpStatus": 7}}}, "spec.http[0].fault.abort.httpStatus"),
        ({"route": [{"destination": {"host": 5}}]}, "spec.http[0].route[0].destination.host"),
    ],
)
def test_a_mistake_is_named_with_its_path(http, path):
    found = validate.problems(virtual_service(**http))
    assert path in [p for p, _ in found]


def test_a_valid_rule_has_no_problems():
    assert validate.problems(virtual_service(route=ROUTE, timeout="2.5s")) == []


def test_a_field_without_effect_is_warned_about_by_name():
    spec = {
        "hosts": ["a"],
        "tcp": [{"match": [{"sourceSubnet": "10.0.0.0/8"}], "route": [{"destination": {"host": "b"}}]}],
    }
    warnings = effective.ineffective(kinds.VIRTUAL_SERVICE, spec)
    assert warnings
    assert "spec.tcp[0].match[0].sourceSubnet" in warnings[0]


def paths(kind, at=""):
    kind = unwrap(kind)
    for name, inner in fields(kind).items():
        inner, here = unwrap(inner), f"{at}.{name}" if at else name
        item = (
            unwrap(typing.get_args(inner)[-1 if typing.get_origin(inner) is dict else 0])
            if typing.get_args(inner)
            else inner
        )
        yield here
        if isinstance(item, type) and issubclass(item, Config):
            suffix = {tuple: "[]", dict: "{}"}.get(typing.get_origin(inner), "")
            yield from paths(item, here + suffix)


@pytest.mark.parametrize("kind", kinds.owned(), ids=lambda k: k.kind)
def test_the_ledger_names_only_fields_that_exist(kind):
    known = set(paths(kind.spec))
    for path in effective.UNSUPPORTED.get(kind, ()):
        plain = path.removesuffix(".**").removesuffix("[]").removesuffix("{}")
        assert plain in known, path


@pytest.mark.parametrize("kind", kinds.owned(), ids=lambda k: k.kind)
def test_every_field_of_the_type_is_in_its_definition(kind):
    body = crds.crd(kind, experimental=True)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    assert set(body["properties"]) == {f.encode_name for f in msgspec.structs.fields(kind.spec)}


def test_the_fields_of_a_type_are_looked_up_once_however_many_objects_are_validated():
    one = virtual_service(route=ROUTE)
    validate.problems(one)
    before = config.table.cache_info().misses
    for _ in range(3):
        validate.problems(one)
    assert config.table.cache_info().misses == before


@pytest.mark.parametrize(
    ("spec", "problems"),
    [
        ({"hosts": ["a"], "http": [{"match": None, "route": ROUTE}], "tcp": None, "exportTo": None}, 0),
        ({"hosts": ["a"], "http": None}, 1),
    ],
)
def test_an_empty_field_of_a_manifest_counts_as_not_set(spec, problems):
    obj = {"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": {"name": "a"}, "spec": spec}
    found = validate.problems(obj)
    assert bool(found) is bool(problems), found
    assert not any("null`" in says for _, says in found)
