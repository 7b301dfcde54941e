"""What gateways answer to ACME servers: names that users give are never code, and each host is answered by itself."""

import json

import pytest
from envoy.config.core.v3 import extension_pb2
from envoy.config.listener.v3 import listener_components_pb2 as lc
from envoy.extensions.filters.http.lua.v3 import lua_pb2
from envoy.service.discovery.v3 import discovery_pb2

from lateen.api import objects as o
from lateen.api import validate
from lateen.mesh import challenges
from lateen.mesh.challenges import Answer, Challenges, Shown
from lateen.xds.filters import acme

CODE = 'x",os.execute("reboot")or"'
TOKEN = "token-of-an-order"


def invalid(more):
    """The fields of a Certificate that are refused."""
    spec = {"secretName": "s", "issuerRef": {"name": "i"}, "dnsNames": ["a.test"], **more}
    meta = {"name": "c", "namespace": "default"}
    obj = {"apiVersion": "cert-manager.io/v1", "kind": "Certificate", "metadata": meta, "spec": spec}
    return [path for path, _ in validate.problems(obj)]


def code(*answers):
    wrapped = discovery_pb2.Resource.FromString(acme.extension(Challenges(tuple(answers))).wrapped)
    slot, config = extension_pb2.TypedExtensionConfig(), lua_pb2.Lua()
    assert wrapped.resource.Unpack(slot)
    assert slot.typed_config.Unpack(config)
    return config.default_source_code.inline_string


@pytest.mark.parametrize(
    "answer",
    [Answer(CODE, TOKEN, f"{TOKEN}.me"), Answer("a.test", CODE, "t.me"), Answer("a.test", TOKEN, CODE)],
)
def test_whatever_an_answer_is_none_of_it_becomes_code(answer):
    line = next(text for text in code(answer).splitlines() if text.startswith('  ["'))
    assert line.count('"') == 6
    assert "(" not in line
    assert r"x\034\044os.execute\040\034reboot" in line


def test_an_answer_that_is_plain_stays_readable():
    assert f'  ["{TOKEN}"] = {{"a.test", "{TOKEN}.me"}},' in code(Answer("a.test", TOKEN, f"{TOKEN}.me"))


@pytest.mark.parametrize(
    ("name", "host", "proof"),
    [
        (f"http.{TOKEN}", CODE, f"{TOKEN}.me"),
        (f"http.{CODE}", "a.test", f"{TOKEN}.me"),
        (f"http.{TOKEN}", "a.test", CODE),
        (f"http.{TOKEN}", "*.test", f"{TOKEN}.me"),
        (f"http.{'t' * 201}", "a.test", f"{TOKEN}.me"),
    ],
)
def test_entries_that_istiod_would_not_write_are_not_answered(name, host, proof):
    good = challenges.entry(Answer("b.test", TOKEN + "b", f"{TOKEN}b.me"))
    entries = (good, (name, json.dumps({"host": host, "proof": proof})))
    found = challenges.read(o.Credential("istio-system", "lateen-acme", entries=entries), "")
    assert [a.host for a in found.answers] == ["b.test"]


@pytest.mark.parametrize("name", [f"http.{TOKEN}", "tls.a.test"])
@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", '{"host": 7, "proof": [], "chain": {}, "key": 1}'])
def test_an_entry_that_cannot_be_read_does_not_stop_the_others(name, text):
    good = challenges.entry(Answer("b.test", TOKEN + "b", f"{TOKEN}b.me"))
    found = challenges.read(o.Credential("istio-system", "lateen-acme", entries=((name, text), good)), "")
    assert [a.host for a in found.answers] == ["b.test"]
    assert found.shown == ()


@pytest.mark.parametrize("given", [CODE, "a b.test", "under the.hood", "-"])
@pytest.mark.parametrize("field", ["commonName", "dnsNames"])
def test_a_servers_names_must_be_dns_names(field, given):
    assert [f for f in invalid({field: [given] if field == "dnsNames" else given}) if f.startswith(f"spec.{field}")]


def test_an_authority_may_have_any_name_in_one_line():
    assert not invalid({"commonName": 'The "root" (of us)', "isCA": True})
    assert invalid({"commonName": "two\nlines", "isCA": True})
    assert not invalid({"commonName": "A.test"})
    assert not invalid({"commonName": "*.test"})


def test_the_most_specific_names_have_the_proofs_whatever_their_order():
    names = ["*.test", "*.b.test", "a.b.test", "*.c.test"]
    others = [lc.FilterChain(filter_chain_match=lc.FilterChainMatch(server_names=[n])) for n in names]
    place = ("0.0.0.0", 443)
    hosts = ("a.b.test", "x.b.test", "x.c.test", "x.test", "elsewhere.example")
    found = Challenges(shown=tuple(Shown(h, "chain", "key") for h in hosts), places=(place,))
    for order in (others, others[::-1]):
        made = acme.chains(found, place, order)
        assert [c.name for c in made] == [
            "acme-tls/other",
            "acme-tls/*.b.test",
            "acme-tls/*.c.test",
            "acme-tls/*.test",
            "acme-tls/a.b.test",
        ]
