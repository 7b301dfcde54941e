"""Conditions of AuthorizationPolicies as matchers of Envoy: headers, claims, identities, names."""

import meshes as mesh
import pytest
import re2
from authorizing import policy, unpacked
from envoy.extensions.filters.http.rbac.v3 import rbac_pb2
from envoy.extensions.filters.network.rbac.v3 import rbac_pb2 as tcp_rbac
from envoy.type.matcher.v3 import number_pb2, value_pb2

from lateen.mesh.model import Mesh
from lateen.mesh.settings import MeshConfig, Transport
from lateen.xds.authz import filters, matchers, spellings


@pytest.mark.parametrize(
    ("value", "header", "matches"),
    [
        ("b", "b", True),
        ("b", "a, b,c", True),
        ("b", "ab,c", False),
        ("b*", "a,bc", True),
        ("b*", "a,cb", False),
        ("b*", "a,bc, d", True),
        ("*b", "ab, c", True),
        ("*b", "a, bc", False),
        ("*b*", "a, xbx", True),
        ("a*c", "x, abc", True),
        ("a*c", "a, c", False),
        ("a.c", "abc", False),
        ("adm*", b"adm\xff", True),
        ("adm*", b"ok, adm\xff, b", True),
        ("*min", b"ok, \xffmin , b", True),
        ("*min", b"ok, min\xff", False),
        ("adm*", b"\xffadm", False),
    ],
)
def test_one_item_of_a_header_that_is_a_list(value, header, matches):
    found = matchers.listed_header("x", value).header.string_match.safe_regex.regex
    assert (re2.fullmatch(found, header) is not None) is matches


@pytest.mark.parametrize(
    ("value", "header", "matches"),
    [
        ("a*c", b"a\xffc", True),
        ("a*c", b"x, a\xffc , y", True),
        ("a*c", b"\xff, a, c", True),
        ("a*c", b"\xff, c, a", False),
        ("a*c", "a, c", False),
        ("a*c", "\u00ff, a, c", False),
        ("a*c", "x, abc", True),
        ("adm*", b"ok, adm\xff, b", True),
        ("a*c*", b"a\xffcd", True),
    ],
)
def test_what_is_kept_out_by_an_item_of_a_header_is_kept_out_whatever_bytes_it_has(value, header, matches):
    """And what is let in by it has no such bytes where it has a star in between."""

    def holds(principal):
        match principal.WhichOneof("identifier"):
            case "or_ids":
                return any(map(holds, principal.or_ids.ids))
            case "and_ids":
                return all(map(holds, principal.and_ids.ids))
        found = re2.fullmatch(principal.header.string_match.safe_regex.regex, header) is not None
        return found is not principal.header.invert_match

    assert holds(spellings.listed_header("x", value)) is matches
    if isinstance(header, bytes) and "*" in value.strip("*"):
        assert not holds(matchers.listed_header("x", value))


@pytest.mark.parametrize(("action", "field"), [("DENY", "values"), ("ALLOW", "notValues")])
def test_claims_that_are_no_strings_are_kept_out_as_they_are_written(action, field):
    for value, wanted in (
        ("false", value_pb2.ValueMatcher(bool_match=False)),
        ("42", value_pb2.ValueMatcher(double_match=number_pb2.DoubleMatcher(exact=42.0))),
        ("*", value_pb2.ValueMatcher(present_match=True)),
        ("a", None),
    ):
        rule = {"when": [{"key": "request.auth.claims[a][b]", field: [value]}]}
        made = filters.plain((policy(f"{action}-{value}".lower(), action, rules=[rule]),), False, spelled=True)
        (found,) = unpacked(made[0], rbac_pb2.RBAC).rules.policies.values()
        (seen,) = found.principals
        claim = (seen if field == "values" else seen.not_id).metadata.value.or_match.value_matchers
        others = [m for m in claim[1:] if m.WhichOneof("match_pattern") == "or_match"]
        assert [m for o in others for m in o.or_match.value_matchers][1:] == ([wanted] if wanted else [])
        assert ([m.list_match.one_of for m in claim[:1]] == others) is bool(wanted), "and lists of such"
    let_in = {"when": [{"key": "request.auth.claims[a]", "values": ["true"]}]}
    (allowed,) = filters.plain((policy("let-in", "ALLOW", rules=[let_in]),), False, spelled=True)
    assert "bool_match" not in str(unpacked(allowed, rbac_pb2.RBAC))


@pytest.mark.parametrize(
    ("value", "path", "matches"),
    [
        ("/users/{*}", "/users/joe", True),
        ("/users/{*}", "/users/a=b", True),
        ("/users/{*}", "/users/a|b*", True),
        ("/users/{*}", "/users/\u00ff", True),
        ("/users/{*}", b"/users/\xff", True),
        ("/users/{*}", "/users/", False),
        ("/users/{*}", "/users/a/b", False),
        ("/users/{*}/keys", "/users/a=b/keys", True),
        ("/users/{*}/keys", "/users/a/b/keys", False),
        ("/users/{*}/keys", b"/users/\xff/b/keys", True),  # rather too much than a byte with which nothing matches
        ("/users/{*}/keys", b"/users/\xff/b", False),
        ("/files/{**}", "/files/a=b/\u00ff", True),
        ("/files/{**}", b"/files/\xff/{}", True),
        ("/{*}/x/{**}.jpg", "/=/x/a/b.jpg", True),
        ("/{*}/x/{**}.jpg", "/=/x/a/bjpg", False),
        ("/users/*", "/users/a=b", True),
    ],
)
def test_a_template_that_keeps_out_takes_whatever_characters_a_path_has(value, path, matches):
    def holds(permission):
        match permission.WhichOneof("rule"):
            case "or_rules":
                return any(map(holds, permission.or_rules.rules))
            case "and_rules":
                return all(map(holds, permission.and_rules.rules))
            case "not_rule":
                return not holds(permission.not_rule)
        given = permission.url_path.path
        if given.prefix:
            return path.startswith(given.prefix)
        return re2.fullmatch(given.safe_regex.regex, path) is not None

    assert holds(spellings.path(value)) is matches


@pytest.mark.parametrize(
    ("action", "operation", "wanted"),
    [
        ("DENY", {"paths": ["/a/{*}"]}, False),
        ("DENY", {"notPaths": ["/a/{*}"]}, True),
        ("ALLOW", {"paths": ["/a/{*}"]}, True),
        ("ALLOW", {"notPaths": ["/a/{*}"]}, False),
    ],
)
def test_a_template_that_lets_in_takes_what_envoy_takes(action, operation, wanted):
    name = f"{action}-{next(iter(operation))}".lower()
    made = filters.plain((policy(name, action, rules=[{"to": [{"operation": operation}]}]),), False, spelled=True)
    assert ("uri_template" in str(unpacked(made[0], rbac_pb2.RBAC))) is wanted


@pytest.mark.parametrize("name", [":authority", "host", "Host"])
def test_a_host_that_is_kept_out_as_a_header_is_kept_out_in_all_its_spellings(name):
    found = spellings.header(name, "admin.test").header.string_match.safe_regex.regex
    for host in ("admin.test", "ADMIN.test.", "x@admin.test:80", "%61dmin.test"):
        assert re2.fullmatch(found, host), host
    assert not re2.fullmatch(found, "other.test")


@pytest.mark.parametrize("value", ["evil", "*"])
def test_a_header_that_is_kept_out_is_so_with_underscores_for_dashes(value):
    for make in (spellings.header, spellings.header_with):
        names = [p.header.name for p in make("x-a-role", value).or_ids.ids]
        assert names == ["x-a-role", "x-a_role", "x_a-role", "x_a_role"]
    assert spellings.header("role", value).header.name == "role"


def test_a_path_that_is_kept_out_as_a_header_is_kept_out_with_any_query():
    exact, path = spellings.header(":path", "/admin").or_ids.ids
    assert exact.header.string_match.exact == path.url_path.path.exact == "/admin"


@pytest.mark.parametrize(
    "rule", [{"from": [{"source": {"namespaces": ["b"]}}]}, {"when": [{"key": "source.namespace", "values": ["b"]}]}]
)
def test_a_subject_that_looks_like_an_identity_is_in_no_namespace(rule):
    """A client of a gateway whose certificate has no identity is known by its subject."""
    (made,) = filters.plain((policy(f"in-{next(iter(rule))}", "ALLOW", rules=[rule]),), False, spelled=True)
    (found,) = unpacked(made, rbac_pb2.RBAC).rules.policies.values()
    pattern = found.principals[0].authenticated.principal_name.safe_regex.regex
    assert re2.fullmatch(pattern, "spiffe://cluster.local/ns/b/sa/c")
    assert not re2.fullmatch(pattern, "CN=a/ns/b/c")


def test_anything_is_also_what_is_no_text():
    for value in ("*", "\n", "a\nb", b"\xff", "\u00ff"):
        assert re2.fullmatch(matchers.ANYTHING, value)
    assert not re2.fullmatch(matchers.ANYTHING, "")


@pytest.mark.parametrize(
    ("value", "identity", "matches"),
    [
        ("*.test", "spiffe://a.test/ns/n/sa/s", True),
        ("*.test", "spiffe://a.other/ns/x.test/sa/s", False),
        ("td-*", "spiffe://td-1/ns/n/sa/s", True),
        ("td-*", "spiffe://td/ns/n/sa/s", False),
    ],
)
def test_a_trust_domain_with_a_wildcard_at_an_end(value, identity, matches):
    found = matchers.trust_domain(value).authenticated.principal_name.safe_regex.regex
    assert (re2.fullmatch(found, identity) is not None) is matches


@pytest.mark.parametrize(
    ("value", "iss", "sub"),
    [
        ("a/b", {"exact": "a"}, {"exact": "b"}),
        ("https://a/b", {"exact": "https://a"}, {"exact": "b"}),
        ("a", {"exact": "a"}, {"exact": ""}),
        ("*", {"safe_regex": matchers.ANYTHING}, {"safe_regex": matchers.ANYTHING}),
        ("*/b", {"safe_regex": matchers.ANYTHING}, {"exact": "b"}),
        ("*a/b*", {"suffix": "a"}, {"exact": "b*"}),
        ("*b", {"safe_regex": matchers.ANYTHING}, {"suffix": "b"}),
        ("a/*", {"exact": "a"}, {"safe_regex": matchers.ANYTHING}),
        ("a/b*", {"exact": "a"}, {"prefix": "b"}),
        ("a*", {"prefix": "a"}, {"safe_regex": matchers.ANYTHING}),
        ("a*/b", {"exact": "a*"}, {"exact": "b"}),
    ],
)
def test_the_principal_of_a_token_is_an_issuer_and_a_subject(value, iss, sub):
    parts = matchers.request_principal(value).and_ids.ids
    found = []
    for part in parts:
        text = part.metadata.value.string_match
        kind = text.WhichOneof("match_pattern")
        found.append({kind: text.safe_regex.regex if kind == "safe_regex" else getattr(text, kind)})
    assert found == [iss, sub]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("old/ns/a/sa/b", ["new/ns/a/sa/b", "old/ns/a/sa/b"]),
        ("cluster.local/ns/a/sa/b", ["new/ns/a/sa/b", "old/ns/a/sa/b"]),
        ("other/ns/a/sa/b", ["other/ns/a/sa/b"]),
        ("*/ns/a/sa/b", ["*/ns/a/sa/b"]),
        ("*ld/ns/a/sa/b", ["new/ns/a/sa/b", "*ld/ns/a/sa/b"]),
        ("old/*", ["old/*"]),
        ("ol*/ns/a/sa/b", ["new/ns/a/sa/b", "old/ns/a/sa/b"]),
        ("*/sa/b", ["*/sa/b"]),
    ],
)
def test_identities_of_one_trust_domain_of_the_mesh_are_of_all(value, expected):
    assert matchers.in_every_domain([value], ("new", "old")) == expected


def test_a_trust_domain_of_the_mesh_stands_for_its_aliases():
    rule = {"from": [{"source": {"trustDomains": ["old", "other"], "notTrustDomains": ["new"]}}]}
    (found,) = filters.plain((policy("a", "ALLOW", rules=[rule]),), False, ("new", "old"))
    (held,) = unpacked(found, rbac_pb2.RBAC).rules.policies.values()
    some, none = held.principals[0].and_ids.ids
    prefixes = [i.authenticated.principal_name.prefix for i in some.or_ids.ids]
    assert prefixes == ["spiffe://new/", "spiffe://old/", "spiffe://other/"]
    assert [i.authenticated.principal_name.prefix for i in none.not_id.or_ids.ids] == prefixes[:2]


def test_any_trust_domain_is_an_identity_of_spiffe():
    assert matchers.trust_domain("*").authenticated.principal_name.prefix == "spiffe://"


def test_cluster_local_is_the_trust_domain_of_a_mesh_without_aliases():
    """As in Istio, ``cluster.local`` in a principal stands for whatever domain the mesh has."""
    config = MeshConfig(transport=Transport(trust_domain="corp.test"))
    allow = (
        "kind: AuthorizationPolicy\nmetadata: {name: a}\n"
        "spec: {rules: [{from: [{source: {principals: [cluster.local/ns/default/sa/sleep]}}]}]}"
    )
    objects = mesh.objects(allow, config)
    held = Mesh(objects).access("default", objects.pods[("default", "productpage-v1")].label_map)
    (found,) = filters.of_workload(held, held.policies, tcp=False)
    (made,) = unpacked(found, rbac_pb2.RBAC).rules.policies.values()
    (one,) = made.principals
    assert one.authenticated.principal_name.exact == "spiffe://corp.test/ns/default/sa/sleep"


def test_metadata_of_filters_are_looked_at_on_tcp_too():
    key = "experimental.envoy.filters.network.mysql_proxy[db.table]"
    rule = {"when": [{"key": key, "values": ["[update]"]}]}
    (found,) = filters.plain((policy("a", "ALLOW", rules=[rule]),), True)
    (held,) = unpacked(found, tcp_rbac.RBAC).rules.policies.values()
    (one,) = held.permissions[0].and_rules.rules
    assert one.metadata.filter == "envoy.filters.network.mysql_proxy"
    assert one.metadata.value.list_match.one_of.string_match.exact == "update"


@pytest.mark.parametrize("name", ["a.b", "a[b", "a(b", "a$b", "a+b", "a\\b"])
def test_names_are_compared_literally(name):
    """Whatever a name contains is no regular expression."""
    for made, text in (
        (matchers.account(f"default/{name}", "default"), f"spiffe://td/ns/default/sa/{name}"),
        (matchers.namespace(name), f"spiffe://td/ns/{name}/sa/x"),
        (matchers.identity(f"*/ns/default/sa/{name}"), f"spiffe://td/ns/default/sa/{name}"),
    ):
        pattern = made.authenticated.principal_name.safe_regex.regex
        assert re2.fullmatch(pattern, text)
        assert not re2.fullmatch(pattern, text.replace(name, "axb"))
