"""Requests with tokens, or claims, beside those that were verified."""

import json

import judge
import meshes as mesh
import pytest
import re2
import tokens
from authorizing import CONFIG
from envoy.extensions.filters.http.rbac.v3 import rbac_pb2

from lateen.api.config import decode
from lateen.api.security import JWTRule
from lateen.wire import names
from lateen.xds.authz.tokens import Places, places, unverified


def rules(*given):
    return places(decode(JWTRule, {"issuer": "a", **one}) for one in given)


def holds(permission, headers):
    match permission.WhichOneof("rule"):
        case "and_rules":
            return all(holds(p, headers) for p in permission.and_rules.rules)
        case "or_rules":
            return any(holds(p, headers) for p in permission.or_rules.rules)
        case "not_rule":
            return not holds(permission.not_rule, headers)
    header, value = permission.header, headers.get(permission.header.name)
    if value is None or header.present_match:
        return value is not None
    match (wanted := header.string_match).WhichOneof("match_pattern"):
        case "prefix":
            return value.startswith(wanted.prefix)
        case "contains":
            return wanted.contains in value
    return re2.fullmatch(wanted.safe_regex.regex, value) is not None


def patterns(condition):
    """Those of an expression of which one is to match."""
    call = condition.call_expr
    if call.function == "_||_":
        return [p for one in call.args for p in patterns(one)]
    assert call.function == "matches"
    return [call.args[1].const_expr.string_value]


def refused(where, **headers):
    """``headers``: of which each has one line, but for cookies, whose lines are joined by commas."""
    made, given = dict(unverified(where)), {n.replace("__", ":"): v for n, v in headers.items()}
    if cookies := made.get(names.UNVERIFIED_COOKIES):
        return any(re2.search(pattern, given["cookie"]) for pattern in patterns(cookies.condition))
    return any(holds(p, given) for p in made[names.UNVERIFIED].permissions)


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ("Bearer a.b.c", False),
        ("Basic Ym9iOngK", False),
        ("Bearerx a", False),
        ("bearer a.b.c", True),
        ("BEARER  a.b.c", True),
        ("Bearer\ta.b.c", True),
        ("Basic x,bearer a.b.c", True),
        ("Bearer a.b.c,bearer d", True),
        ("bearer a.b.c, Bearer d", True),
        ("Bearer a.b.c, Bearer d", True),
        ("BEARER", False),
        ("bearerx a", False),
    ],
)
def test_schemes_have_no_case_and_are_there_once(value, wanted):
    assert refused(rules({}), authorization=value) is wanted


@pytest.mark.parametrize("word", ["bearer", "BEARER", "Bearer"])
def test_a_scheme_that_another_rule_has_in_another_case_is_taken(word):
    prefixes = [{"name": "Authorization", "prefix": f"{word} "}, {"name": "Authorization", "prefix": "Bearer "}]
    where = rules({}, {"fromHeaders": prefixes})
    assert not refused(where, authorization=f"{word} a.b.c")
    assert not refused(where, authorization="Bearer a.b.c")
    assert refused(where, authorization="bEARER a.b.c")
    assert refused(where, authorization="beareR a.b.c")
    assert refused(where, authorization=f"{word}\ta.b.c")
    assert refused(where, authorization=f"{word} a.b.c,Bearer d")


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ("a=b; session=x", False),
        ("session=x; mysession=y", False),
        ("a=session=x; session=y", False),
        ("session=x; session=y", True),
        ("session=x;session =y", True),
        ("session=x; a=b,session=y", True),
        ("a=b; session = x", True),
    ],
)
def test_cookies_are_there_once(value, wanted):
    assert refused(rules({"fromCookies": ["session"]}), cookie=value) is wanted


LONG = "__Secure-next-auth.session-token-of-the-shop"


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (f"{LONG}=x; session=y; mobile_session=z", False),
        (f"{LONG}=x; {LONG}.0=y; {LONG}.1=z", False),
        (f"{LONG}=x; a=b; {LONG}=y", True),
        (f"{LONG} =x", True),
        ("session=x; session=y", True),
        ("mobile_session=x;mobile_session =y", True),
    ],
)
def test_several_cookies_and_those_with_long_names_are_there_once(value, wanted):
    assert (
        refused(rules({"fromCookies": ["session", LONG]}, {"fromCookies": ["mobile_session"]}), cookie=value) is wanted
    )


def test_the_rules_of_many_issuers_may_name_any_number_of_cookies():
    """Each rule names at most 16 of them."""
    many = [{"fromCookies": [f"session-{i}-{k}" for k in range(16)]} for i in range(16)]
    assert refused(rules(*many), cookie="session-15-15=x; session-15-15=y")
    assert not refused(rules(*many), cookie="session-0-0=x; session-15-15=y")


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("/?tok=x", False),
        ("/?a=tok&tok=x", False),
        ("/tok=x&tok=y", False),
        ("/?tok=x&mytok=y", False),
        ("/?tok=x&tok=y", True),
        ("/?%74ok=x&a=b&to%6B=y", True),
        ("/?a=b;tok=x", True),
        ("/?tok=x;tok=y", True),
    ],
)
def test_parameters_are_there_once(path, wanted):
    assert refused(rules({"fromParams": ["tok"]}), __path=path) is wanted


def test_headers_that_servers_take_for_those_of_claims_are_refused():
    where = rules(
        {
            "fromHeaders": [{"name": "a"}],
            "outputClaimToHeaders": [{"header": "X-User-Id", "claim": "sub"}],
            "outputPayloadToHeader": "x_all",
        }
    )
    for name in ("x_user_id", "x-user_id", "x_user-id", "x-all"):
        assert refused(where, **{name: "admin"}), name
    for name in ("x-user-id", "x_all", "x-user", "xuserid"):  # the first two are removed by Envoy
        assert not refused(where, **{name: "admin"}), name
    many = Places(written=("-".join("abcdefgh"),))
    assert refused(many, **{"_".join("abcdefgh"): "x"})
    assert len(dict(unverified(many))[names.UNVERIFIED].permissions) < 40


ASKING = """
kind: AuthorizationPolicy
metadata: {name: ask}
spec: {action: CUSTOM, provider: {name: PROVIDER}, rules: [{}]}
"""


@pytest.mark.parametrize("provider", ["http", "grpc"])
def test_headers_of_authorization_services_are_not_written_otherwise_by_clients(tmp_path, provider):
    """The service answers in x-user; of x_user it knows nothing, but the application may read that one."""
    view = mesh.view(mesh.objects(ASKING.replace("PROVIDER", provider), CONFIG))
    made = rbac_pb2.RBAC()
    judge.messages(view)[names.ECDS]["istio.authorization.deny"].typed_config.Unpack(made)
    denied = made.rules.policies[names.UNVERIFIED].permissions
    assert [p.header.name for p in denied] == (["x_user"] if provider == "http" else [])
    judge.validate(view, tmp_path)


def test_workloads_without_tokens_refuse_nothing_of_this():
    assert list(unverified(places([]))) == []


def test_workloads_with_tokens_refuse_it_and_the_rule_is_no_object(tmp_path):
    text = f"""
kind: RequestAuthentication
metadata: {{name: p}}
spec:
  jwtRules:
  - issuer: a.test
    jwks: '{tokens.key_set("a")}'
    fromCookies: [session, mobile_session, __Secure-next-auth.session-token-of-the-shop]
    fromParams: [tok, "é("]
    fromHeaders: [{{name: x-a, prefix: "A+ "}}, {{name: x-b}}]
    outputClaimToHeaders: [{{header: x-user, claim: sub}}]
"""
    view = mesh.view(mesh.objects(text))
    made = rbac_pb2.RBAC()
    judge.messages(view)[names.ECDS]["istio.authorization.deny"].typed_config.Unpack(made)
    assert set(made.rules.policies) == set(names.BUILT_IN)
    assert json.dumps("x_user") in str(made.rules.policies[names.UNVERIFIED])
    judge.validate(view, tmp_path)
