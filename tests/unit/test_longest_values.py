"""The longest texts that validation takes are taken by Envoy, too, which refuses large regular expressions, and with
them everything else of their kind at a proxy."""

import judge
import meshes as mesh
import pytest
from rules import said

from lateen.api.validate.scalars import MAX_COMPARED
from lateen.api.validate.security import MAX_PLACE, MAX_PLACES
from lateen.api.validate.security_policy import MAX_ORIGIN
from lateen.kit import yamldoc

SERVICE = [{"group": "", "kind": "Service", "name": "productpage"}]


def denied(**rule):
    return "AuthorizationPolicy", {"action": "DENY", "rules": [rule]}


def looked_for(**places):
    return "RequestAuthentication", {"jwtRules": [{"issuer": "a", **places}]}


def secured(**part):
    return "SecurityPolicy", {"targetRefs": SERVICE, **part}


def header(value):
    rule = {"action": "Deny", "principal": {"headers": [{"name": "a-b-c", "values": [value]}]}}
    return secured(authorization={"rules": [rule]})


def limited(scope, **selector):
    rule = {"clientSelectors": [selector], "limit": {"requests": 1, "unit": "Hour"}}
    return "BackendTrafficPolicy", {"targetRefs": SERVICE, "rateLimit": {scope: {"rules": [rule]}}}


TEXTS = {
    "a host": lambda n: denied(to=[{"operation": {"hosts": ["." * n]}}]),
    "a path": lambda n: denied(to=[{"operation": {"paths": [("/{*}" * n)[:n].rstrip("{*")]}}]),
    "a namespace": lambda n: denied(**{"from": [{"source": {"namespaces": ["*." * (n // 2) + "a" * (n % 2)]}}]}),
    "a principal": lambda n: denied(**{"from": [{"source": {"principals": ["*" + "." * (n - 1)]}}]}),
    "a header": lambda n: denied(when=[{"key": "request.headers[a-b-c]", "values": ["." * n]}]),
    "an item of a header": lambda n: denied(
        when=[{"key": "request.experimental.inline.headers[a]", "values": ["." * n]}]
    ),
    "a header of a SecurityPolicy": lambda n: header("." * n),
    "the host of a limit": lambda n: limited("local", headers=[{"name": "host", "value": "." * n}]),
    "the host of a limit of all": lambda n: limited("global", headers=[{"name": "host", "value": "." * n}]),
    "the path of a limit": lambda n: limited("global", path={"value": "/" + "." * (n - 1)}),
}
LONGEST = {
    **{what: (made, MAX_COMPARED) for what, made in TEXTS.items()},
    "cookies": (lambda n: looked_for(fromCookies=[f"{i:02d}" + "." * (n - 2) for i in range(MAX_PLACES)]), MAX_PLACE),
    "parameters": (lambda n: looked_for(fromParams=[f"{i:02d}" + "." * (n - 2) for i in range(MAX_PLACES)]), MAX_PLACE),
    "an origin": (
        lambda n: secured(cors={"allowOrigins": ["https://*." + "a" * (n - len("https://*."))]}),
        MAX_ORIGIN,
    ),
}


@pytest.mark.parametrize("what", LONGEST)
def test_what_is_as_long_as_it_may_be_is_taken_by_envoy_and_longer_ones_are_refused(what, tmp_path):
    made, most = LONGEST[what]
    kind, spec = made(most)
    assert said(kind, spec)[0] == []
    document = {"kind": kind, "metadata": {"name": "p"}, "spec": spec}
    judge.validate(mesh.view(mesh.objects(yamldoc.dump(document))), tmp_path)
    errors, _ = said(*made(most + 4))
    assert any("must have at most" in e for e in errors)
