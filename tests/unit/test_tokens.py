"""End users' tokens: how key sets are fetched and refreshed, and what proxies are sent."""

import asyncio
import base64
import json
import time
from dataclasses import replace

import judge
import meshes as mesh
import pytest
import tokens
from aiohttp import web
from apiserver import Cluster
from google.protobuf import json_format
from test_cost import changed, clients, offered, sent, wide

from lateen.api import kinds
from lateen.cluster.apiserver.direct import DirectClient
from lateen.control import conditions
from lateen.control.fetching import AT_ONCE, MAX_BYTES, Fetcher, NotFetched, networks
from lateen.control.kept_keys import KeptKeys
from lateen.control.keys import Keys
from lateen.control.world import World
from lateen.kit import addresses, jwks, yamldoc
from lateen.mesh.authentication import KeySource
from lateen.mesh.model import Mesh
from lateen.mesh.views import Views
from lateen.wire import names

KEYS = KeySource("https://issuer.example/keys", False)
SET = jwks.usable(json.dumps({"keys": [tokens.jwk("a")]}))


# --- key sets --------------------------------------------------------------------------------------------------------


def test_a_key_set_is_reduced_to_what_is_public_and_usable():
    good = tokens.jwk("a")
    made = json.loads(jwks.usable(json.dumps({"keys": [{**good, "d": "AQAB", "x5c": ["?"]}, {"kty": "new"}, "x"]})))
    assert made == {"keys": [good]}
    assert jwks.examine(json.dumps({"keys": [tokens.ec_jwk("b")]})) == ([tokens.ec_jwk("b")], [])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("-----BEGIN PUBLIC KEY-----", "Expecting value"),
        ("[]", 'no list "keys"'),
        ('{"keys": []}', "there is no key in it"),
        (json.dumps({"keys": [{**tokens.jwk("a"), "alg": "HS256"}]}), 'the algorithm "HS256"'),
        (json.dumps({"keys": [{**tokens.jwk("a"), "n": "?"}]}), "not Base64"),
        (json.dumps({"keys": [{**tokens.ec_jwk("b"), "crv": "secp256k1"}]}), 'the curve "secp256k1"'),
        (json.dumps({"keys": [{**tokens.jwk("a"), "kid": "\ud800"}]}), "not Unicode"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_a_set_without_a_usable_key_is_none(text, says):
    with pytest.raises(ValueError, match=says):
        jwks.usable(text)


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("10.0.0.1", ""),
        ("2001:db8::1", ""),
        ("127.0.0.1", "of this machine itself"),
        ("169.254.169.254", "link-local"),
        ("::ffff:169.254.169.254", "link-local"),
        ("64:ff9b::a9fe:a9fe", "link-local"),
        ("2002:7f00:1::", "of this machine itself"),
        ("fe80::1%eth0", "link-local"),
        ("fd00:ec2::254", "metadata"),
        ("100.100.100.200", "metadata"),
        ("0.0.0.1", "unspecified"),
        ("::", "unspecified"),
        ("224.0.0.1", "multicast"),
        ("192.168.1.1", "192.168.0.0/16, which is blocked"),
    ],
)
def test_istiod_connects_to_no_address_that_only_it_can_reach(address, why):
    found = addresses.refused(address, networks("192.168.0.0/16"))
    assert why in found
    assert bool(why) == bool(found)


# --- fetching --------------------------------------------------------------------------------------------------------


class Server:
    """An issuer's server, on the loopback interface."""

    def __init__(self):
        self.pages = {}

    async def __aenter__(self):
        app = web.Application()
        app.router.add_get("/{path:.*}", self.answer)
        self.runner = web.AppRunner(app)
        await self.runner.setup()
        site = web.TCPSite(self.runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_):
        await self.runner.cleanup()

    async def answer(self, request):
        found = self.pages.get(request.path, 404)
        if isinstance(found, int):
            return web.Response(status=found)
        if found.startswith(("http:", "https:", "/")):
            return web.Response(status=302, headers={"Location": found})
        return web.Response(text=found)


def fetched(pages, path="/keys", discovered=False, refuses=lambda _: "", timeout_s=5.0):
    """The keys, or why there are none. ``{url}`` in a page is the server's own URL."""

    async def work():
        async with Server() as server:
            server.pages = {k: v.replace("{url}", server.url) if isinstance(v, str) else v for k, v in pages.items()}
            try:
                return await Fetcher(refuses).keys(KeySource(server.url + path, discovered), timeout_s)
            except NotFetched as e:
                return str(e)

    return asyncio.run(work())


GOOD = tokens.key_set("a")
DISCOVERY = "/.well-known/openid-configuration"


def test_keys_are_fetched_by_their_url_or_by_discovery():
    assert fetched({"/keys": GOOD}) == jwks.usable(GOOD)
    assert fetched({"/old": "/keys", "/keys": GOOD}, "/old") == jwks.usable(GOOD)
    document = json.dumps({"jwks_uri": "{url}/keys"})
    assert fetched({DISCOVERY: document, "/keys": GOOD}, DISCOVERY, discovered=True) == jwks.usable(GOOD)


@pytest.mark.parametrize(
    ("pages", "discovered", "says"),
    [
        ({}, False, "answers with status 404"),
        ({"/keys": 500}, False, "answers with status 500"),
        ({"/keys": "no keys here"}, False, "not a usable key set"),
        ({"/keys": " " * (MAX_BYTES + 1)}, False, "has more than 1048576 bytes"),
        ({"/keys": "/keys"}, False, "behind more than 5 redirects"),
        ({"/keys": "http://169.254.169.254/"}, False, "does not connect to 169.254.169.254: it is link-local"),
        ({"/keys": "http://[::ffff:169.254.169.254]/"}, False, "link-local"),
        ({DISCOVERY: json.dumps({"issuer": "x"})}, True, "does not say where the keys are"),
        ({DISCOVERY: json.dumps({"jwks_uri": "file:///etc/passwd"})}, True, "not an http or https URL"),
        ({DISCOVERY: json.dumps({"jwks_uri": "http://169.254.170.2/"})}, True, "link-local"),
    ],
)
def test_what_cannot_be_fetched_is_said(pages, discovered, says):
    def refuses(address):
        return "" if address == "127.0.0.1" else addresses.refused(address)

    assert says in fetched(pages, DISCOVERY if discovered else "/keys", discovered, refuses)


def test_names_are_checked_by_what_they_stand_for():
    async def work(url):
        with pytest.raises(NotFetched) as e:
            await Fetcher().keys(KeySource(url, False))
        return str(e.value)

    for url in ("http://localhost:1/", "http://0x7f000001/"):
        assert "of this machine itself" in asyncio.run(work(url))
    for url in ("http://2130706433/", "http://127.1/"):
        assert "is not a canonical IPv4 address" in asyncio.run(work(url))


def test_a_slow_server_is_given_up():
    async def work():
        async def silent(_, writer):
            await asyncio.sleep(60)

        server = await asyncio.start_server(silent, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(NotFetched, match=r"did not answer within 0\.2 s"):
            await Fetcher(lambda _: "").keys(KeySource(f"http://127.0.0.1:{port}/", False), 0.2)
        server.close()

    asyncio.run(work())


# --- keeping them up to date -----------------------------------------------------------------------------------------


def test_keys_stay_while_their_server_fails_and_go_with_their_policy():
    async def work():
        answers = [NotFetched("down"), "first", NotFetched("down again"), "second"]
        asked = asyncio.Event()
        seen = []

        async def fetch(source, timeout_s):
            if not answers:
                asked.set()
                await asyncio.Event().wait()
            answer = answers.pop(0)
            seen.append(world.objects.token_keys.get(source))
            if isinstance(answer, Exception):
                raise answer
            return answer

        world = World("istio-system", lambda: None)
        keys = Keys(world, fetch, refresh_s=0, again_s=0)
        keys.follow({KEYS: 3.0})
        assert keys.pending()
        await keys.first(5)
        assert not keys.pending()
        await asyncio.wait_for(asked.wait(), 5)
        assert seen == [None, "", "first", "first"]
        assert (world.objects.token_keys, keys.problems) == ({KEYS: "second"}, {})
        keys.follow({})
        assert world.objects.token_keys == {}

    asyncio.run(work())


def test_many_servers_that_do_not_answer_do_not_hold_up_those_of_others():
    silent = {KeySource(f"https://silent.example/{i}", False): 0.0 for i in range(5 * AT_ONCE)}

    async def work():
        at_once, failed = asyncio.Semaphore(AT_ONCE), set()

        async def fetch(source, _):
            async with at_once:
                if source == KEYS:
                    return "good"
                if source not in failed:
                    failed.add(source)
                    raise NotFetched("does not answer")
                await asyncio.Event().wait()
                return ""

        world = World("istio-system", lambda: None)
        keys = Keys(world, fetch, again_s=0)
        keys.follow(silent)
        await keys.first(5)
        for _ in range(100):
            await asyncio.sleep(0)
        keys.follow({**silent, KEYS: 0.0})
        await keys.first(5)
        assert world.objects.token_keys[KEYS] == "good"
        keys.follow({})

    asyncio.run(work())


def test_keys_are_kept_over_a_restart_for_a_day():
    cluster = Cluster()
    cluster.must("POST", "/api/v1/namespaces", {"metadata": {"name": "istio-system"}})
    client, now, answers = DirectClient(cluster.api, "istiod"), [time.time()], {KEYS: SET}

    async def fetch(source, _):
        if source not in answers:
            raise NotFetched("down")
        return answers[source]

    async def istiod(leads=True):
        """One that has started; what it knows, and what keeps it."""
        world = World("istio-system", lambda: None)
        keys = Keys(world, fetch, again_s=60)
        kept = KeptKeys(client, "istio-system", lambda: keys.latest, lambda: leads, lambda: now[0])
        keys.former = await kept.read()
        keys.follow({KEYS: 0})
        await keys.first(5)
        return world.objects.token_keys[KEYS], keys, kept

    async def work():
        found, keys, kept = await istiod()
        assert found == SET
        await kept.keep()
        keys.follow({})
        answers.clear()
        for _ in range(2):  # also over the next restart
            found, keys, kept = await istiod()
            assert found == SET
            assert "down" in keys.problems[KEYS]
            await kept.keep()
            keys.follow({})
        secret = await client.get(kinds.SECRET, "istio-system", "lateen-jwks")
        good = secret["data"]
        now[0] += 25 * 3600
        found, keys, _ = await istiod()
        assert found == "", "nobody has confirmed them for a day"
        keys.follow({})
        now[0] -= 25 * 3600
        unusable = {"url": KEYS.url, "discovered": False, "keys": "{}", "at": now[0]}
        for spoilt in ("nonsense", '[{"url": "x"}]', json.dumps([unusable])):
            data = {"keys.json": base64.b64encode(spoilt.encode()).decode()}
            secret = await client.update(kinds.SECRET, {**secret, "data": data})
            found, keys, kept = await istiod()
            assert found == ""
            keys.follow({})
        await client.update(kinds.SECRET, {**secret, "data": good})
        found, keys, kept = await istiod()
        keys.follow({})
        await kept.keep()
        secret = await client.get(kinds.SECRET, "istio-system", "lateen-jwks")
        assert base64.b64decode(secret["data"]["keys.json"]) == b"[]", "what is not followed is not kept"

    asyncio.run(work())


@pytest.mark.parametrize(
    ("kept", "found"),
    [
        ({}, True),
        ({"keys": '{"authorization_endpoint": "https://a.test/a"}'}, False),
        ({"keys": '{"authorization_endpoint": "https://a.test/a", "token_endpoint": "https://a b"}'}, False),
        ({"keys": "[]"}, False),
        ({"endpoints": False}, False),
    ],
)
def test_the_endpoints_of_a_provider_are_kept_over_a_restart(kept, found):
    cluster = Cluster()
    cluster.must("POST", "/api/v1/namespaces", {"metadata": {"name": "istio-system"}})
    client = DirectClient(cluster.api, "istiod")
    source = KeySource("https://a.test/.well-known/openid-configuration", True, endpoints=True)
    ends = '{"authorization_endpoint": "https://a.test/a", "token_endpoint": "https://a.test/t"}'

    async def work():
        answers = [ends]

        async def fetch(*_):
            if not answers:
                raise NotFetched("down")
            return answers.pop()

        async def istiod():
            world = World("istio-system", lambda: None)
            keys = Keys(world, fetch, again_s=60)
            memory = KeptKeys(client, "istio-system", lambda: keys.latest, lambda: True)
            keys.former = await memory.read()
            keys.follow({source: 0})
            await keys.first(5)
            return world.objects.token_keys[source], keys, memory

        there, keys, memory = await istiod()
        assert there == ends
        await memory.keep()
        keys.follow({})
        secret = await client.get(kinds.SECRET, "istio-system", "lateen-jwks")
        (entry,) = json.loads(base64.b64decode(secret["data"]["keys.json"]))
        data = {"keys.json": base64.b64encode(json.dumps([entry | kept]).encode()).decode()}
        await client.update(kinds.SECRET, {**secret, "data": data})
        there, keys, _ = await istiod()
        assert there == (ends if found else "")
        keys.follow({})

    asyncio.run(work())


def test_the_policy_says_why_its_tokens_are_rejected():
    async def work():
        async def fetch(_, __):
            raise NotFetched("https://issuer.example/keys answers with status 500")

        world = World("istio-system", lambda: None)
        keys = Keys(world, fetch)
        policy = mesh.objects(policy_of("productpage")).request_authentications["default", "of-productpage"]
        assert keys.missing(policy) == [
            "the keys of a.example cannot be fetched: not tried yet; its tokens are rejected"
        ]
        keys.follow({KEYS: 0})
        await keys.first(5)
        status = conditions.fetched(conditions.FETCHED[kinds.REQUEST_AUTHENTICATION], keys.missing(policy))
        keys.follow({})
        assert (status["status"], status["reason"]) == ("False", "FetchFailed")
        assert "answers with status 500; its tokens are rejected" in status["message"]

    asyncio.run(work())


# --- what proxies get ------------------------------------------------------------------------------------------------


def policy_of(app, **rule):
    rules = json.dumps([{"issuer": "a.example", "jwksUri": KEYS.url} | rule])
    return f"""
kind: RequestAuthentication
metadata: {{name: of-{app}}}
spec:
  selector: {{matchLabels: {{app: {app}}}}}
  jwtRules: {rules}
"""


def slot(objects, pod="productpage-v1"):
    found = judge.messages(Views(Mesh(objects)).of(objects.pods["default", pod], "sidecar"))
    return json_format.MessageToDict(
        found[names.ECDS]["istio.authentication"].typed_config, preserving_proto_field_name=True
    )


def test_only_the_workloads_of_a_policy_get_it():
    found = mesh.objects(policy_of("productpage"))
    assert list(slot(found)["providers"]) == ["origins-0"]
    assert "providers" not in slot(found, "ratings-v1")


def test_an_issuer_without_keys_is_asked_for_at_the_black_hole():
    """So that its tokens are rejected, whoever has signed them."""
    found = mesh.objects(policy_of("productpage"))
    assert slot(found)["providers"]["origins-0"]["remote_jwks"]["http_uri"]["cluster"] == "BlackHoleCluster"
    known = replace(found, token_keys={KEYS: GOOD})
    assert slot(known)["providers"]["origins-0"]["local_jwks"] == {"inline_string": GOOD}
    assert "jwt_cache_config" in slot(known)["providers"]["origins-0"], "signatures are verified once"


def test_places_in_common_are_one_question_and_others_another():
    rules = [
        {"issuer": "a.example"},
        {"issuer": "b.example"},
        {"issuer": "c.example", "fromHeaders": [{"name": "x-c"}]},
        {"issuer": "d.example", "fromHeaders": [{"name": "X-C"}], "presence": "REQUIRED"},
    ]
    text = f"kind: RequestAuthentication\nmetadata: {{name: a}}\nspec: {{jwtRules: {json.dumps(rules)}}}"
    found = slot(mesh.objects(text))
    preflights, others = found["rules"]
    assert [m["name"] for m in preflights["match"]["headers"]] == [":method", "origin", "access-control-request-method"]
    first, second = others["requires"]["requires_all"]["requirements"]
    assert [r.get("provider_name") for r in first["requires_any"]["requirements"]] == ["origins-0", "origins-1", None]
    assert second == {
        "requires_any": {"requirements": [{"provider_name": "origins-2"}, {"provider_name": "origins-3"}]}
    }


def test_clients_of_a_gateway_cannot_choose_a_route_by_what_a_token_would_say(tmp_path):
    """Envoy removes such headers only once it has chosen a route, and chooses again only for a valid token."""
    out = [{"header": "X-Role", "claim": "role"}, {"header": "x-token", "claim": "a"}]
    rule = {"issuer": "i", "jwks": GOOD, "outputClaimToHeaders": out, "outputPayloadToHeader": "x-payload"}
    rule["fromHeaders"] = [{"name": "x-token"}]
    policy = {"kind": "RequestAuthentication", "metadata": {"name": "a", "namespace": "istio-system"}}
    server = {"hosts": ["*"], "port": {"number": 8080, "name": "http", "protocol": "HTTP"}}
    gateway = {"kind": "Gateway", "metadata": {"name": "g", "namespace": "istio-system"}}
    documents = [
        policy | {"spec": {"jwtRules": [rule]}},
        gateway | {"spec": {"selector": {"istio": "ingressgateway"}, "servers": [server]}},
    ]
    seen = mesh.view(mesh.objects("---\n".join(map(yamldoc.dump, documents))), "ingress", "istio-system")
    managers = [
        json_format.MessageToDict(f.typed_config)
        for listener in judge.messages(seen)[names.LDS].values()
        for chain in listener.filter_chains
        for f in chain.filters
        if f.name.endswith("http_connection_manager")
    ]
    assert managers
    for manager in managers:
        (early,) = manager["earlyHeaderMutationExtensions"]
        assert early["typedConfig"]["mutations"] == [{"remove": "x-payload"}, {"remove": "x-role"}]
    judge.validate(seen, tmp_path)


def test_a_policy_and_its_keys_change_one_resource_of_its_workloads():
    found = wide()
    views, pods = Views(Mesh(found)), clients(found)
    before = offered(views, pods)
    doc = next(mesh.yamldoc.objects(policy_of("web")))
    doc["metadata"]["namespace"] = "n3"
    with_policy = mesh.add(found, doc, 1)
    for now in (with_policy, replace(with_policy, token_keys={KEYS: GOOD})):
        views.advance(now)
        after = offered(views, pods)
        assert sent(before, after) == {names.ECDS}
        concerned = [p for p, b, a in zip(pods, before, after, strict=True) if changed([b], [a])]
        assert {p.namespace for p in concerned} == {"n3"}
        before = after
    assert {r.origin for s in before for r in s[names.ECDS][0].resources.values()} == {
        (),
        (str(kinds.REQUEST_AUTHENTICATION.ref("n3", "of-web")),),
    }
    views.advance(replace(with_policy, token_keys={KEYS: GOOD, KeySource("https://other.example", False): GOOD}))
    assert changed(before, offered(views, pods)) == set()
