"""A sidecar stores the claims of tokens while something reads them: from before it is there until after it is gone."""

import asyncio
import json

import judge
import meshes as mesh
import pytest
import tokens
from conversing import ack
from envoy.extensions.filters.http.jwt_authn.v3 import config_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from lateen.ads.conversation import Request
from lateen.ads.peers import Connection
from lateen.ads.session import Session
from lateen.api.mesh import ExtensionProvider
from lateen.api.mesh.providers import HttpAls, LogFormat
from lateen.control.plane import Control
from lateen.mesh.observability import Reporting
from lateen.mesh.settings import MeshConfig
from lateen.wire import names
from lateen.wire.node import NodeId
from lateen.wire.resource import Resource, ResourceSet
from lateen.wire.revision import Revision
from lateen.xds.generate import generate

SLOT, ALLOW, DENY = "istio.authentication", "istio.authorization.allow", "istio.authorization.deny"
RULE = json.dumps([{"issuer": "tests.example", "jwks": tokens.key_set("a")}])
TOKENS = f"kind: RequestAuthentication\nmetadata: {{name: tokens, namespace: %s}}\nspec: {{jwtRules: {RULE}}}"
PRINCIPAL = "{from: [{source: {requestPrincipals: ['*']}}]}"
ON_CLAIM = "[{name: '@request.auth.claims.tier', value: gold}]"
LIMIT = "{requests: 1, unit: Minute}"
LUA = "kind: TrafficExtension\nmetadata: {name: p}\nspec: {lua: {inlineCode: 'function envoy_on_request(h) end'}}"
TO_SERVICE = "targetRefs: [{group: '', kind: Service, name: ratings}]"


def policy(rule, selector="{}"):
    spec = f"{{selector: {selector}, rules: [{rule}]}}"
    return f"kind: AuthorizationPolicy\nmetadata: {{name: who}}\nspec: {spec}"


def telemetry(spec):
    return f"kind: Telemetry\nmetadata: {{name: t}}\nspec: {{{spec}}}"


def provider(messages):
    made = config_pb2.JwtAuthentication()
    assert messages[names.ECDS][SLOT].typed_config.Unpack(made)
    (found,) = made.providers.values()
    return found


def stored(*documents, config=mesh.LOGGING, name="ratings-v1", namespace="default"):
    text = "\n---\n".join((TOKENS % namespace, *documents))
    found = provider(judge.messages(mesh.view(mesh.objects(text, config), name, namespace)))
    assert found.HasField("normalize_payload_in_metadata") == bool(found.payload_in_metadata)
    return bool(found.payload_in_metadata)


READERS = {
    "a principal": policy(PRINCIPAL),
    "no principal": policy("{from: [{source: {notRequestPrincipals: ['*']}}]}"),
    "a claim": policy("{when: [{key: 'request.auth.claims[scope]', values: [read]}]}"),
    "the audience": policy("{when: [{key: request.auth.audiences, values: [books]}]}"),
    "a condition about whatever Envoy knows": policy(
        "{when: [{key: 'experimental.envoy.filters.envoy.filters.http.jwt_authn[payload]', values: [a]}]}"
    ),
    "a rate limit": f"kind: BackendTrafficPolicy\nmetadata: {{name: limit}}\nspec: {{{TO_SERVICE}, rateLimit: "
    f"{{type: Local, local: {{rules: [{{clientSelectors: [{{headers: {ON_CLAIM}}}], limit: {LIMIT}}}]}}}}}}",
    "a plugin": LUA,
    "an EnvoyFilter": "kind: EnvoyFilter\nmetadata: {name: f}\nspec: {configPatches: [{applyTo: HTTP_FILTER, match: "
    "{context: SIDECAR_INBOUND}, patch: {operation: INSERT_FIRST, value: {name: envoy.filters.http.buffer}}}]}",
    "a filter of logs": telemetry(
        "accessLogging: [{providers: [{name: envoy}], filter: {expression: \"metadata.size() > 1\"}}]"
    ),
    "a label of a metric": telemetry(
        "metrics: [{providers: [{name: prometheus}], overrides: [{match: {metric: REQUEST_COUNT}, tagOverrides: "
        "{user: {value: \"metadata.filter_metadata['envoy.filters.http.jwt_authn'].payload.sub\"}}}]}]"
    ),
}  # fmt: skip


@pytest.mark.parametrize("reader", READERS)
def test_claims_are_stored_for_what_reads_them(reader):
    assert stored(READERS[reader])


@pytest.mark.parametrize(
    "document",
    [
        policy("{to: [{operation: {paths: [/a]}}]}"),
        policy("{from: [{source: {principals: ['*']}}]}"),
        policy(PRINCIPAL, "{matchLabels: {app: reviews}}"),
        telemetry("accessLogging: [{filter: {expression: 'response.code >= 400'}}]"),
    ],
)
def test_claims_are_not_stored_where_nothing_reads_them(document):
    """Which is half of the filter's cost."""
    assert not stored(document)


@pytest.mark.parametrize(
    "config",
    [
        MeshConfig(
            reporting=Reporting(
                "/dev/stdout", LogFormat("%DYNAMIC_METADATA(envoy.filters.http.jwt_authn:payload:sub)%")
            )
        ),
        MeshConfig(
            reporting=Reporting(
                default_logs=("als",),
                providers=(
                    ExtensionProvider(
                        name="als", envoy_http_als=HttpAls(service="ratings.default.svc.cluster.local", port=9080)
                    ),
                ),
            )
        ),
    ],
)
def test_claims_are_stored_for_logs_that_say_them(config):
    """A logger over gRPC sends whatever metadata there is."""
    assert stored(config=config)


def test_gateways_always_store_claims():
    """Their routes may match them."""
    assert stored(name="ingress", namespace="istio-system")


# --- the order -------------------------------------------------------------------------------------------------------


class Proxy:
    """A proxy that has whatever is sent to it, except for new versions of what it ``rejects``. ``steps``: the names of
    the extensions of each response."""

    def __init__(self, offer):
        self.session, self.has, self.steps = Session(), {}, []
        self.session.offer(offer)
        asked = tuple(n for s in offer[names.ECDS] for n in s.resources)
        self.take(self.session.receive(Request(names.ECDS, subscribe=asked))[0])

    def take(self, pending, rejects=()):
        while pending:
            response = pending.pop(0)
            new = {r.name: r for r in response.resources}
            bad = [n for n in new if n in rejects and new[n] is not self.has.get(n)]
            if not bad:
                self.has |= new
            self.steps.append(sorted(new))
            pending += ack(self.session, response, f"{bad[0]}: bad value" if bad else "")[0]

    def given(self, offer, rejects=()):
        """The steps in which an offer arrives."""
        self.steps = []
        self.take(self.session.offer(offer), rejects)
        return self.steps


def offered(*documents):
    return generate(mesh.view(mesh.objects("\n---\n".join(documents)), "ratings-v1"))


NEITHER, ACCEPTED = offered(), offered(TOKENS % "default")
REQUIRED = offered(TOKENS % "default", policy(PRINCIPAL))


def test_claims_are_there_before_a_policy_reads_them_and_until_none_does():
    proxy = Proxy(ACCEPTED)
    assert len(proxy.steps) == 1, "nothing waits at first"
    assert proxy.given(REQUIRED) == [[SLOT], [ALLOW]]
    assert proxy.given(ACCEPTED) == [[ALLOW], [SLOT]]
    assert proxy.given(NEITHER) == [[DENY], [SLOT]]


def test_tokens_and_the_policy_about_them_come_and_go_in_order():
    proxy = Proxy(NEITHER)
    assert proxy.given(REQUIRED) == [[SLOT], [ALLOW, DENY]]
    assert proxy.given(NEITHER) == [[ALLOW, DENY], [SLOT]]


def test_a_change_that_is_taken_back_while_it_is_on_its_way():
    proxy = Proxy(ACCEPTED)
    first = proxy.session.offer(REQUIRED)
    assert proxy.session.offer(ACCEPTED) == []
    proxy.steps = []
    proxy.take(first)
    assert proxy.steps == [[SLOT], [ALLOW], [SLOT]]
    assert proxy.has == {n: r for s in ACCEPTED[names.ECDS] for n, r in s.resources.items()}


def test_a_rejected_version_that_has_waited_is_replaced_by_its_predecessor():
    proxy = Proxy(ACCEPTED)
    before = proxy.has[ALLOW]
    assert proxy.given(REQUIRED, {ALLOW})[:2] == [[SLOT], [ALLOW]]
    assert proxy.steps[2:] == [[ALLOW]]
    assert proxy.has[ALLOW] is before
    assert proxy.given(REQUIRED) == [], "what was rejected is not offered again"


OTHERS = offered(TOKENS.replace("tests.example", "other.example") % "default", policy(PRINCIPAL))
UNREAD = offered(TOKENS.replace("tests.example", "other.example") % "default", policy("{to: [{operation: {}}]}"))


def test_a_policy_waits_while_the_claims_that_it_reads_are_rejected():
    """Judged without claims, a request would pass each DENY policy about them."""
    proxy = Proxy(ACCEPTED)
    assert proxy.given(REQUIRED, {SLOT}) == [[SLOT], [SLOT]], "the second is the previous version"
    assert proxy.has == {n: r for s in ACCEPTED[names.ECDS] for n, r in s.resources.items()}
    assert proxy.session.missing(names.ECDS) == ({ALLOW}, {SLOT}), "the policy's status does not say that it is there"
    assert proxy.session.synced(names.ECDS) == "ERROR"
    assert proxy.session.flush() == [], "no empty response asks for an answer"
    assert proxy.given(OTHERS) == [[SLOT], [ALLOW]], "once the proxy takes another version"
    assert proxy.session.missing(names.ECDS) == (set(), set())
    assert proxy.session.synced(names.ECDS) == "SYNCED"


def test_what_others_wait_for_is_named_until_it_is_mended():
    """A rejection that came later, and is over, does not hide it."""
    proxy = Proxy(ACCEPTED)
    proxy.given(REQUIRED, {SLOT})
    plain = offered(TOKENS % "default", policy(PRINCIPAL), policy("{to: [{operation: {}}]}").replace("who", "more"))
    assert proxy.given(plain, {ALLOW}) == []
    said = proxy.session.rejections[names.ECDS]
    assert (said.resources, said.origins) == ((SLOT,), ("RequestAuthentication default/tokens",))


def test_a_policy_that_waits_can_be_taken_back():
    proxy = Proxy(ACCEPTED)
    before = dict(proxy.has)
    proxy.given(REQUIRED, {SLOT})
    proxy.given(ACCEPTED)
    assert proxy.has == before
    assert proxy.session.missing(names.ECDS) == (set(), set())


def test_no_policy_waits_for_a_rejected_version_that_changes_nothing_about_claims():
    """Such as another key: its predecessor stores claims, too."""
    proxy = Proxy(REQUIRED)
    assert proxy.given(OTHERS, {SLOT}) == [[SLOT], [SLOT]]
    more = offered(TOKENS.replace("tests.example", "other.example") % "default", policy(f"{PRINCIPAL}, {{}}"))
    assert proxy.given(more) == [[ALLOW]]


def test_claims_are_stored_while_the_proxy_keeps_a_policy_that_reads_them():
    proxy = Proxy(REQUIRED)
    assert proxy.given(UNREAD, {ALLOW}) == [[ALLOW], [ALLOW]]
    assert proxy.session.missing(names.ECDS) == ({SLOT}, {ALLOW})
    assert proxy.has == {n: r for s in REQUIRED[names.ECDS] for n, r in s.resources.items()}


def test_a_proxy_that_reconnects_gets_them_in_order():
    has = {n: r.version for s in ACCEPTED[names.ECDS] for n, r in s.resources.items()}
    session = Session()
    session.offer(REQUIRED)
    pending, _ = session.receive(Request(names.ECDS, subscribe=tuple(has), initial=has))
    assert [[r.name for r in p.resources] for p in pending] == [[SLOT]]
    assert [[r.name for r in p.resources] for p in ack(session, pending[0])[0]] == [[ALLOW]]


OF_RATINGS = "spiffe://cluster.local/ns/default/sa/sa-ratings"
OF_INGRESS = "spiffe://cluster.local/ns/istio-system/sa/sa-istio-ingressgateway"


def test_listeners_that_drain_can_read_them_until_the_proxy_connects_again():
    """Their plugins go on running for as long as connections that they had are open."""

    async def work():
        control = Control(None, "istio-system", Revision())
        connection, later = (
            Connection(NodeId("sidecar", "10.244.0.6", "ratings-v1", "default", ""), OF_RATINGS, "") for _ in "ab"
        )
        given = []
        for documents in ((), (LUA,), ()):
            control.world.objects = mesh.objects("\n---\n".join((TOKENS % "default", *documents)))
            async with asyncio.timeout(10):
                await control._settled()
            given.append(control.offering.to(connection))
        given.append(control.offering.to(later))
        ingress = NodeId("router", "10.244.0.99", "ingress", "istio-system", "")
        assert control.offering.to(Connection(ingress, OF_INGRESS, ""))
        return [provider(judge.decoded(found)) for found in given]

    assert [bool(found.payload_in_metadata) for found in asyncio.run(work())] == [False, True, True, False]


READS = st.tuples(st.booleans(), st.booleans(), st.booleans(), st.booleans())


def _mesh(reads):
    """Two readers, and the slot, which has claims if one of them reads."""
    claims = any(reads)
    made = [Resource(n, f"{n}{r}", b"", (), 0) for n, r in zip("ab", reads, strict=True)]
    made.append(Resource("jwt", f"jwt{claims}", b"", (), -1 if claims else 1))
    return {names.ECDS: (ResourceSet({r.name: r for r in made}),)}


@settings(max_examples=200, deadline=None)
@given(st.lists(READS, min_size=1, max_size=12))
def test_no_reader_is_ever_without_claims(history):
    """Whatever changes while a response is on its way, and whatever is rejected. The third of each step says whether it
    is answered first, the fourth whether the proxy rejects what differs from what it has."""
    session, has, accepted = Session(), {}, set()
    session.offer(_mesh(history[0][:2]))
    pending, _ = session.receive(Request(names.ECDS, subscribe=("a", "b", "jwt")))

    def answer(rejects=False):
        response = pending.pop(0)
        new = [r.name for r in response.resources if has and has[r.name] != r.version and r.version not in accepted]
        if rejects and new:
            pending.extend(ack(session, response, " ".join(f"{n}: bad" for n in new))[0])
            return
        first = not has
        for some in (response.resources, response.resources[::-1]):  # Envoy applies them in any order
            applied = dict(has)
            for r in some:
                applied[r.name] = r.version
                assert first or applied["jwt"] == "jwtTrue" or not {"aTrue", "bTrue"} & set(applied.values())
        has.update(applied)
        accepted.update(applied.values())
        pending.extend(ack(session, response)[0])

    answer()
    for *reads, answered, rejects in history:
        if answered and pending:
            answer(rejects)
        pending += session.offer(_mesh(reads))
    while pending:
        answer()
    waiting, refused = session.missing(names.ECDS)
    wanted = {n: r.version for n, r in _mesh(history[-1][:2])[names.ECDS][0].resources.items()}
    assert {n for n, version in wanted.items() if has[n] != version} == waiting | refused
    assert refused or not waiting
