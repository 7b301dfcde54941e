"""A CA of one's own, and the way from one CA to the next: what is refused, and who trusts what when."""

import asyncio
import base64
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from apiserver import Cluster
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from lateen.api import kinds
from lateen.ca import rotation, signer
from lateen.ca.authority import Authority, Expired, Identity
from lateen.ca.rotation import Pace
from lateen.ca.signer import PLUGGED, RECORD, SELF_SIGNED, Unusable
from lateen.cluster.apiserver.direct import DirectClient
from lateen.control import serving
from lateen.control.measures import Measures
from lateen.control.roots import Roots
from lateen.control.trust import Reached, Trust
from lateen.control.wanted import ASKED, DISTRUSTED, Settings
from lateen.control.world import World
from lateen.kit import certs, tasks, times
from lateen.kube.errors import KubeError
from lateen.kube.informer import Informer
from lateen.wire.revision import Revision

NOW = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
WHO = Identity("cluster.local", "default", "bookinfo-reviews")
PACE = Pace(announce=HOUR, ttl=24 * HOUR)
KEYS = {"EC": certs.new_key, "RSA": lambda: rsa.generate_private_key(65537, 2048)}


def plugged(root, *, key=None, middle=True, now=NOW, **more):
    """The data of a Secret cacerts, under ``root``."""
    above = certs.intermediate(root, "middle", now, path_length=1) if middle else root
    own = certs.intermediate(above, "istio", now, key=key)
    chain = own.certificate + (above.certificate if middle else "") + root.certificate
    data = {"ca-cert.pem": own.certificate, "ca-key.pem": own.key, "cert-chain.pem": chain}
    return {**data, "root-cert.pem": root.certificate, **more}


@pytest.fixture(scope="module")
def root():
    return certs.authority("root", NOW)


def leads(chain, roots):
    """Whether a verifier that trusts ``roots`` accepts a certificate with its chain."""
    here, *rest = x509.load_pem_x509_certificates(chain.encode())
    for above in rest:
        here.verify_directly_issued_by(above)
        here = above
    return any(certs.issued(here, x509.load_pem_x509_certificate(r.encode())) for r in roots)


@pytest.mark.parametrize("kind", KEYS)
@pytest.mark.parametrize("middle", [True, False])
def test_certificates_under_a_ca_of_ones_own_lead_to_its_root(root, kind, middle):
    found = signer.read(plugged(root, key=KEYS[kind](), middle=middle), PLUGGED, NOW)
    ca = Authority(rotation.begin(found, NOW, PACE))
    chain = ca.sign(certs.request(certs.new_key()), WHO, NOW)
    assert len(certs.split(chain)) == (3 if middle else 2), "the root itself is not sent"
    assert leads(chain, certs.split(ca.root))
    assert leads(ca.server_pair(["istiod.istio-system.svc"], WHO, NOW).certificate, certs.split(ca.root))


@pytest.mark.parametrize("kind", KEYS)
def test_requests_may_have_keys_of_both_kinds(kind):
    key = KEYS[kind]()
    pem = Authority.create(NOW, "cluster.local").sign(certs.request(key), WHO, NOW)
    assert x509.load_pem_x509_certificate(pem.encode()).public_key() == key.public_key()


def test_a_secret_of_cert_manager_is_read(root):
    own = certs.intermediate(root, "istio", NOW)
    data = {"tls.crt": own.certificate + root.certificate, "tls.key": own.key, "ca.crt": root.certificate}
    found = signer.read(data, PLUGGED, NOW)
    assert (found.pair.certificate, found.roots, found.between) == (own.certificate, (root.certificate,), ())


def test_a_root_of_ones_own_may_sign_itself(root):
    data = {"ca-cert.pem": root.certificate, "ca-key.pem": root.key, "root-cert.pem": root.certificate}
    found = signer.read({**data, "cert-chain.pem": root.certificate}, PLUGGED, NOW)
    assert (found.chain, found.between) == ("", ())


def test_several_roots_are_trusted_and_the_one_that_has_signed_comes_first(root):
    other = certs.authority("other", NOW)
    found = signer.read(plugged(root, **{"root-cert.pem": other.certificate + root.certificate}), PLUGGED, NOW)
    assert found.roots == (root.certificate, other.certificate)


def bad(root):
    other = certs.authority("other", NOW)
    leaf = certs.issue(root, ["spiffe://cluster.local/ns/a/sa/b"], NOW, HOUR)
    weak = certs.intermediate(root, "weak", NOW, key=rsa.generate_private_key(65537, 1024))
    small = certs.intermediate(root, "small", NOW, key=ec.generate_private_key(ec.SECP192R1()))
    good = plugged(root)
    old = plugged(root, now=NOW - timedelta(days=400))
    return {
        "no key": ({**good, "ca-key.pem": ""}, "cacerts has no ca-key.pem"),
        "no root": ({k: v for k, v in good.items() if k != "root-cert.pem"}, "cacerts has no root-cert.pem"),
        "nonsense": ({**good, "ca-cert.pem": "nonsense"}, "cacerts/ca-cert.pem is not PEM text"),
        "nonsense as key": ({**good, "ca-key.pem": "nonsense"}, "cacerts/ca-key.pem is not the PEM text"),
        "another key": ({**good, "ca-key.pem": other.key}, "cacerts/ca-key.pem does not belong to cacerts/ca-cert.pem"),
        "another root": ({**good, "root-cert.pem": other.certificate}, "no certificate of cacerts/root-cert.pem"),
        "a gap": ({**good, "cert-chain.pem": ""}, '"CN=middle" is missing'),
        "a leaf": ({**good, "ca-cert.pem": leaf.certificate, "ca-key.pem": leaf.key}, "is not that of a CA"),
        "expired": (old, "is valid from"),
        "weak": ({**good, "ca-cert.pem": weak.certificate, "ca-key.pem": weak.key}, "RSA key of at least"),
        "small": ({**good, "ca-cert.pem": small.certificate, "ca-key.pem": small.key}, "an elliptic-curve key"),
    }  # fmt: skip


@pytest.mark.parametrize("what", bad(certs.authority("x", NOW)))
def test_a_ca_that_cannot_be_used_is_refused_with_the_reason(root, what):
    data, says = bad(root)[what]
    with pytest.raises(Unusable, match=says.replace("(", ".").replace("*", ".")):
        signer.read(data, PLUGGED, NOW)


# --- from one to the next -------------------------------------------------------------------------------------------


def own(name, now=NOW):
    return signer.self_signed(certs.authority(name, now))


def step(state, wanted, now, pace):
    """A step, of which everybody has been told at once."""
    state = rotation.step(state, wanted, now, pace)
    return rotation.announced(state, [t.root for t in state.trusted], now)


def test_a_new_root_is_published_before_it_signs_and_the_former_one_outlives_its_certificates():
    a, b = own("a"), own("b")
    start = rotation.begin(a, NOW, PACE)
    published = step(start, b, NOW, PACE)
    assert published.signer == a
    assert set(certs.split(published.bundle)) == {a.anchor, b.anchor}
    assert certs.split(published.bundle)[0] == a.anchor, "the first is that under which certificates are signed"
    early = step(published, b, NOW + HOUR * 0.9, PACE)
    assert early.signer == a
    signing = step(early, b, NOW + HOUR, PACE)
    assert signing.signer == b
    assert certs.split(signing.bundle) == (b.anchor, a.anchor)
    late = step(signing, b, NOW + 25 * HOUR, PACE)
    assert late.trusts(a.anchor), "a certificate that was signed at the last moment is valid until now"
    assert certs.split(step(late, b, NOW + 28 * HOUR, PACE).bundle) == (b.anchor,)


def test_whoever_presents_a_certificate_is_trusted_by_everybody_at_every_moment():
    """Proxies learn of roots late, and use certificates to their end."""
    lag, state, wanted = HOUR * 0.9, rotation.begin(own("0"), NOW, PACE), own("0")
    seen, held = [], []
    for minute in range(0, 60 * 24 * 6, 30):
        now = NOW + timedelta(minutes=minute)
        if minute % (60 * 40) == 60:
            wanted = own(str(minute))
        state = step(state, wanted, now, PACE)
        seen.append((now, certs.split(state.bundle)))
        held = [(end, anchor) for end, anchor in held if end > now] + [(now + PACE.ttl, state.signer.anchor)]
        known = [roots for at, roots in seen if now - lag <= at <= now]
        for _, anchor in held:
            assert all(anchor in roots for roots in known)
    assert state.signer == wanted


def test_an_intermediate_under_the_same_root_signs_at_once(root):
    first, second = (signer.read(plugged(root), PLUGGED, NOW) for _ in "ab")
    found = step(rotation.begin(first, NOW, PACE), second, NOW, PACE)
    assert (found.signer, certs.split(found.bundle)) == (second, (root.certificate,))


def test_a_root_that_is_taken_back_before_it_signed_never_signs():
    a, b = own("a"), own("b")
    state = step(rotation.begin(a, NOW, PACE), b, NOW, PACE)
    state = step(state, a, NOW + HOUR / 2, PACE)
    state = step(state, a, NOW + 2 * HOUR, PACE)
    assert state.signer == a
    assert not step(state, a, NOW + 30 * HOUR, PACE).trusts(b.anchor)


def test_shorter_certificates_do_not_shorten_the_trust_in_longer_ones():
    a, b = own("a"), own("b")
    short = Pace(announce=HOUR, ttl=HOUR)
    state = step(rotation.begin(a, NOW, PACE), b, NOW, short)
    state = step(state, b, NOW + HOUR, short)
    assert state.signer == b
    assert step(state, b, NOW + 25 * HOUR, short).trusts(a.anchor)


def test_nothing_is_waited_for_where_the_former_ca_has_expired():
    a, b = signer.self_signed(certs.authority("a", NOW, days=0.01)), own("b")
    assert step(rotation.begin(a, NOW, PACE), b, NOW + HOUR / 2, PACE).signer == b


def test_what_is_kept_is_what_was():
    state = step(rotation.begin(own("a"), NOW, PACE), own("b"), NOW, PACE)
    assert rotation.load(rotation.dump(state)) == state
    for text in ("", "{}", "[]", '{"signer": {}}', rotation.dump(state).replace("BEGIN CERT", "BEGIN X")):
        with pytest.raises(ValueError, match="cannot be read"):
            rotation.load(text)


def test_a_root_is_not_known_before_it_was_written_to_every_namespace():
    a, b = own("a"), own("b")
    state = rotation.step(rotation.begin(a, NOW, PACE), b, NOW, PACE)
    late = NOW + 20 * HOUR
    assert rotation.step(state, b, late, PACE).signer == a, "nobody has been told"
    assert rotation.due(state, b, late, PACE) == a.end, "it waits for the news, or for the end of what signs"
    told = rotation.announced(state, [b.anchor], late)
    assert rotation.announced(told, [b.anchor], late + HOUR) == told
    assert rotation.step(told, b, late + HOUR / 2, PACE).signer == a
    assert rotation.due(told, b, late, PACE) == late + HOUR
    assert rotation.step(told, b, late + HOUR, PACE).signer == b


def broken(what):
    """A record of a CA that does not sign, as a Secret that was written by hand may have it."""
    root, other = certs.authority("root", NOW), certs.authority("other", NOW)
    middle = certs.intermediate(root, "istio", NOW)
    leaf = certs.issue(root, ["a"], NOW, HOUR)
    pair, between, anchor = middle, (), root
    match what:
        case "another key":
            pair = certs.Pair(middle.certificate, other.key)
        case "no CA":
            pair = leaf
        case "another root":
            anchor = other
        case "a gap":
            between = (other.certificate,)
    found = signer.Signer(pair, between, (anchor.certificate,))
    return rotation.dump(rotation.begin(found, NOW, PACE))


@pytest.mark.parametrize("what", ["another key", "no CA", "another root", "a gap"])
def test_a_record_that_cannot_sign_is_refused(what):
    with pytest.raises(ValueError, match="cannot be used"):
        rotation.load(broken(what))
    assert rotation.load(broken("")).signer.between == ()


def test_a_record_of_a_root_that_nobody_knows_signs_nothing_yet():
    a, b = own("a"), own("b")
    present, found = rotation.begin(a, NOW, PACE), rotation.begin(b, NOW, PACE)
    taken = rotation.adopted(present, found)
    assert (taken.signer, set(certs.split(taken.bundle))) == (a, {a.anchor, b.anchor})
    assert rotation.step(taken, b, NOW + 5 * HOUR, PACE).signer == a
    assert rotation.adopted(taken, found) == found


def test_a_root_can_be_distrusted_before_its_time_unless_it_signs():
    a, b = own("a"), own("b")
    state = step(rotation.begin(a, NOW, PACE), b, NOW, PACE)
    state = step(state, b, NOW + HOUR, PACE)
    former, present = certs.fingerprint(a.anchor), certs.fingerprint(b.anchor)
    found = rotation.distrust(state, former, NOW + HOUR)
    assert not step(found, b, NOW + HOUR, PACE).trusts(a.anchor)
    for other in (present, "", "00" * 20):
        assert rotation.distrust(state, other, NOW) == state


# --- in a cluster ---------------------------------------------------------------------------------------------------


def pem(data):
    return {k: base64.b64encode(v.encode()).decode() for k, v in data.items()}


class Mesh:
    """An API server, and istiods of which the first leads."""

    def __init__(self):
        self.cluster = Cluster()
        self.client = DirectClient(self.cluster.api, "istiod")
        self.cluster.must("POST", "/api/v1/namespaces", {"metadata": {"name": "istio-system"}})

    async def istiod(self, leader=True, announce=timedelta(0), **more):
        settings = Settings(pace=Pace(announce=announce, ttl=HOUR), **more)
        found = Roots(self.client, "istio-system", "cluster.local", settings, lambda: leader)
        await found.start()
        return found

    async def told(self, istiod):
        """What trust tells an istiod that leads, and its next step."""
        istiod.distributed(istiod.authority.told, Reached())
        await istiod.advance()

    async def secret(self, name):
        return await self.client.get(kinds.SECRET, "istio-system", name)

    async def put(self, name, data):
        body = {"metadata": {"name": name, "namespace": "istio-system"}, "data": pem(data)}
        if before := await self.secret(name):
            return await self.client.update(kinds.SECRET, {**before, "data": pem(data)})
        return await self.client.create(kinds.SECRET, {"apiVersion": "v1", "kind": "Secret", **body})

    async def events(self, *istiods):
        """What informers would tell."""
        for name in (PLUGGED, SELF_SIGNED, RECORD):
            for istiod in istiods:
                istiod.secret(name, await self.secret(name))


def test_istiods_that_start_together_have_one_root():
    mesh = Mesh()

    async def work():
        a, b = await asyncio.gather(mesh.istiod(), mesh.istiod(leader=False))
        assert a.authority.root == b.authority.root
        again = await mesh.istiod()
        assert again.authority.state == a.authority.state

    asyncio.run(work())


def test_a_ca_of_ones_own_takes_effect_without_a_restart_and_a_bad_one_does_not():
    mesh = Mesh()

    async def work():
        leader, follower = await mesh.istiod(), await mesh.istiod(leader=False)
        former, told = leader.authority.root, []
        follower.changed.append(lambda: told.append(follower.authority.root))
        root = certs.authority("mine", times.now())
        await mesh.put(PLUGGED, {**plugged(root, now=times.now()), "ca-key.pem": "nonsense"})
        await mesh.events(leader, follower)
        await leader.advance()
        assert leader.authority.root == former
        assert "cacerts/ca-key.pem is not the PEM text" in leader.problem
        await mesh.put(PLUGGED, plugged(root, now=times.now()))
        await mesh.events(leader, follower)
        await leader.advance()
        assert leader.authority.state.signer.anchor == certs.split(former)[0]
        await mesh.events(leader, follower)
        await mesh.told(leader)
        await mesh.events(leader, follower)
        for istiod in (leader, follower):
            assert istiod.authority.state.signer.anchor == root.certificate
            assert set(certs.split(istiod.authority.root)) == {root.certificate, former}
        assert told
        assert not leader.problem
        await mesh.client.delete(kinds.SECRET, "istio-system", PLUGGED)
        await mesh.events(leader, follower)
        await leader.advance()
        assert leader.authority.state.signer.anchor == root.certificate
        assert "Secret cacerts is gone" in leader.problem
        again = await mesh.istiod()
        assert again.authority.state.signer.anchor == root.certificate

    asyncio.run(work())


def test_nothing_is_signed_under_a_root_of_which_proxies_do_not_know():
    """Such as that of a Secret restored from a backup."""

    mesh = Mesh()

    async def work():
        istiod = await mesh.istiod(announce=HOUR)
        former = istiod.authority.state.signer
        made = certs.authority("another", times.now())
        await mesh.put(SELF_SIGNED, {"ca-cert.pem": made.certificate, "ca-key.pem": made.key})
        again = await mesh.istiod(announce=HOUR)
        await again.advance()
        assert again.authority.state.signer == former
        assert made.certificate in certs.split(again.authority.root)

    asyncio.run(work())


def test_a_root_that_is_about_to_expire_is_replaced_by_the_leader_alone():
    mesh = Mesh()

    async def work():
        soon = certs.authority("old", times.now() - timedelta(days=9), days=10)
        await mesh.put(SELF_SIGNED, {"ca-cert.pem": soon.certificate, "ca-key.pem": soon.key})
        follower, leader = await mesh.istiod(leader=False), await mesh.istiod()
        await leader.advance()
        await mesh.events(leader, follower)
        await mesh.told(leader)
        await mesh.events(leader, follower)
        for istiod in (leader, follower):
            assert istiod.authority.state.signer.anchor != certs.split(soon.certificate)[0]
            assert istiod.authority.state.trusts(soon.certificate)
        before = leader.authority.state
        await leader.advance()
        assert leader.authority.state.signer == before.signer

    asyncio.run(work())


def test_a_new_root_can_be_asked_for_once_and_leads_back_from_a_ca_of_ones_own():
    mesh = Mesh()

    async def work():
        root = certs.authority("mine", times.now())
        await mesh.put(PLUGGED, plugged(root, now=times.now()))
        istiod = await mesh.istiod()
        await mesh.client.delete(kinds.SECRET, "istio-system", PLUGGED)
        change = {"metadata": {"annotations": {ASKED: "now"}}}
        await mesh.client.patch(kinds.SECRET, "istio-system", RECORD, change)
        istiod.secret(PLUGGED, None)
        await mesh.events(istiod)
        await istiod.advance()
        await mesh.told(istiod)
        found = istiod.authority.state
        assert (found.signer.source, found.follows, istiod.problem) == (SELF_SIGNED, SELF_SIGNED, "")
        assert found.trusts(root.certificate)
        await mesh.events(istiod)
        await istiod.advance()
        assert istiod.authority.state.signer == found.signer
        change = {"metadata": {"annotations": {DISTRUSTED: certs.fingerprint(root.certificate)}}}
        await mesh.client.patch(kinds.SECRET, "istio-system", RECORD, change)
        await mesh.events(istiod)
        await istiod.advance()
        assert certs.split(istiod.authority.root) == found.signer.roots
        notes = (await mesh.secret(RECORD))["metadata"].get("annotations") or {}
        assert not {ASKED, DISTRUSTED} & notes.keys(), "what was done is not asked for any more"
        again = await mesh.istiod()
        await again.advance()
        assert again.authority.state == istiod.authority.state
        await mesh.put(PLUGGED, plugged(root, now=times.now()))
        await mesh.events(again)
        await again.advance()
        await mesh.told(again)
        await mesh.client.delete(kinds.SECRET, "istio-system", PLUGGED)
        again.secret(PLUGGED, None)
        await mesh.client.patch(kinds.SECRET, "istio-system", RECORD, {"metadata": {"annotations": {ASKED: "2"}}})
        await mesh.events(again)
        await again.advance()
        await mesh.told(again)
        assert again.authority.state.trusts(root.certificate), "it was distrusted once, not for ever"

    asyncio.run(work())


def test_an_istiod_that_was_stopped_halfway_makes_one_root_for_one_request():
    mesh = Mesh()

    async def work():
        istiod = await mesh.istiod()
        await mesh.client.patch(kinds.SECRET, "istio-system", RECORD, {"metadata": {"annotations": {ASKED: "now"}}})
        await mesh.events(istiod)
        assert await istiod._wanted.make_root("now")
        made = (await mesh.secret(SELF_SIGNED))["data"]
        again = await mesh.istiod()
        await again.advance()
        assert (await mesh.secret(SELF_SIGNED))["data"] == made

    asyncio.run(work())


def test_a_record_that_somebody_has_spoilt_is_not_taken_and_is_written_anew():
    mesh = Mesh()

    async def work():
        leader, follower = await mesh.istiod(), await mesh.istiod(leader=False)
        present = leader.authority.state
        for record in (broken("another key"), broken("a gap"), "nonsense"):
            await mesh.put(RECORD, {"state.json": record})
            await mesh.events(leader, follower)
            assert leader.authority.state == follower.authority.state == present
            await leader.advance()
            found = await mesh.secret(RECORD)
            assert rotation.load(signer.decoded(found)["state.json"]) == present
        another = rotation.begin(own("restored", times.now()), times.now(), PACE)
        await mesh.put(RECORD, {"state.json": rotation.dump(another)})
        await mesh.events(leader, follower)
        await leader.advance()
        assert leader.authority.state.signer == present.signer
        assert leader.authority.state.trusts(another.signer.anchor)

    asyncio.run(work())


def test_an_istiod_whose_ca_has_expired_starts_and_gets_the_next_one():
    mesh = Mesh()

    async def work():
        old = signer.self_signed(certs.authority("old", times.now() - timedelta(days=9), days=8))
        await mesh.put(SELF_SIGNED, {"ca-cert.pem": old.pair.certificate, "ca-key.pem": old.pair.key})
        await mesh.put(RECORD, {"state.json": rotation.dump(rotation.begin(old, times.now(), PACE))})
        istiod = await mesh.istiod()
        serving.Certificate(istiod.authority, ["localhost"], Identity("cluster.local", "istio-system", "istiod"))
        who = Identity("cluster.local", "default", "default")
        with pytest.raises(Expired, match="Secret istio-ca-secret has expired"):
            istiod.authority.sign(certs.request(certs.new_key()), who, times.now())
        await istiod.advance()
        assert istiod.authority.sign(certs.request(certs.new_key()), who, times.now())

    asyncio.run(work())


def test_a_certificate_that_could_not_be_replaced_is_replaced_later(monkeypatch):
    mesh = Mesh()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    async def work():
        istiod = await mesh.istiod()
        me = Identity("cluster.local", "istio-system", "istiod")
        served = serving.Certificate(istiod.authority, ["localhost"], me)
        before, context = served.pair, served.mutual
        with monkeypatch.context() as m:
            m.setattr(serving.tempfile, "NamedTemporaryFile", full)
            with pytest.raises(OSError, match="No space"):
                served.replace()
        assert (served.pair, served.mutual) == (before, context)  # so that the next look finds it due again
        served.replace()
        assert served.pair != before

    asyncio.run(work())


def test_whatever_is_in_a_secret_the_rotation_goes_on(root, monkeypatch):
    """Libraries have their own ideas of what is wrong with an odd certificate."""
    mesh = Mesh()

    def odd(*_):
        raise UnsupportedAlgorithm("of the moon")

    async def work():
        istiod = await mesh.istiod()
        await mesh.put(PLUGGED, plugged(root, now=times.now()))
        await mesh.events(istiod)
        with monkeypatch.context() as m:
            m.setattr(signer, "_path", odd)
            await istiod.advance()
        assert "the certificates of Secret cacerts cannot be used: of the moon" in istiod.problem
        broken = {"metadata": {"name": PLUGGED, "namespace": "istio-system"}, "data": {"ca-cert.pem": "abcde"}}
        istiod.secret(PLUGGED, broken)
        await istiod.advance()
        assert "the data of Secret cacerts is not base64" in istiod.problem

    asyncio.run(work())


def test_one_that_cannot_take_the_news_keeps_it_from_nobody_else():
    mesh = Mesh()

    async def work():
        istiod, told = await mesh.istiod(), []
        istiod.changed += [lambda: 1 / 0, lambda: told.append(1)]
        istiod.also(certs.authority("other", times.now()).certificate)
        assert told
        seen = []

        def fails(_kind, key, *_):
            seen.append(key)
            raise ValueError

        informer = Informer(mesh.client, kinds.SECRET, fails, "istio-system")
        running = tasks.spawn(informer.run(), "informer")
        await informer.synced.wait()
        await mesh.put("later", {"a": "b"})
        async with asyncio.timeout(5):
            while ("istio-system", "later") not in seen:
                await asyncio.sleep(0.01)
        running.cancel()

    asyncio.run(work())


def test_a_bad_ca_from_the_beginning_is_said_and_nothing_is_made_up():
    mesh = Mesh()

    async def work():
        await mesh.put(PLUGGED, {"ca-cert.pem": "x"})
        with pytest.raises(Unusable, match=r"cacerts has no ca-key\.pem"):
            await mesh.istiod()
        assert await mesh.secret(SELF_SIGNED) is None

    asyncio.run(work())


class Failing:
    """A client whose requests to create something in one namespace fail."""

    def __init__(self, client, namespace, code=503):
        self._client, self.namespace, self._code = client, namespace, code

    def __getattr__(self, name):
        return getattr(self._client, name)

    async def create(self, kind, obj):
        if obj["metadata"].get("namespace") == self.namespace:
            raise KubeError(self._code, "", "not there")
        return await self._client.create(kind, obj)


def test_every_namespace_gets_the_roots_and_gets_them_back():
    mesh = Mesh()

    async def work():
        istiod = await mesh.istiod(announce=timedelta(0))
        root = certs.authority("mine", times.now())
        await mesh.put(PLUGGED, plugged(root, now=times.now()))
        await mesh.events(istiod)
        await istiod.advance()
        spaces, _ = await mesh.client.list(kinds.NAMESPACE)
        client = Failing(mesh.client, "default")
        trust = Trust(client, Revision(), lambda: istiod.authority.told, lambda: spaces, istiod.distributed)
        running = tasks.spawn(trust.run(), "trust")
        trust.wake()
        async with asyncio.timeout(20):
            while not istiod.status()["problem"]:
                await asyncio.sleep(0.01)
        assert "namespace default: not there" in istiod.status()["problem"]
        await istiod.advance()
        assert istiod.authority.state.signer.anchor != root.certificate, "proxies of default would refuse it"
        client.namespace = ""
        async with asyncio.timeout(20):
            while istiod.status()["problem"]:
                await asyncio.sleep(0.01)
        await istiod.advance()
        assert istiod.authority.state.signer.anchor == root.certificate
        for n in spaces:
            found = await mesh.client.get(kinds.CONFIG_MAP, n["metadata"]["name"], "istio-ca-root-cert")
            assert set(certs.split(found["data"]["root-cert.pem"])) == set(certs.split(istiod.authority.root))
        trust.wake()
        async with asyncio.timeout(20):
            while trust.altered(("x", "istio-ca-root-cert"), found):
                found = await mesh.client.get(kinds.CONFIG_MAP, "default", "istio-ca-root-cert")
                await asyncio.sleep(0.01)
        assert trust.altered(("x", "istio-ca-root-cert"), None)
        assert not trust.altered(("x", "other"), None)
        running.cancel()
        gone = {"metadata": {"name": "gone"}}
        assert await trust.everywhere([gone]) == Reached(), "a namespace that is gone is not waited for"

    asyncio.run(work())


def test_a_namespace_that_refuses_the_roots_holds_up_nobody_else():
    """A tenant's immutable ConfigMap (the API's 422), or its quota (403)."""
    mesh = Mesh()

    async def work():
        istiod = await mesh.istiod(announce=timedelta(0))
        old = istiod.authority.state.signer.anchor
        meta = {"name": "istio-ca-root-cert", "namespace": "default"}
        fixed = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"root-cert.pem": old}}
        await mesh.client.create(kinds.CONFIG_MAP, {**fixed, "immutable": True})
        root = certs.authority("mine", times.now())
        await mesh.put(PLUGGED, plugged(root, now=times.now()))
        await mesh.events(istiod)
        await istiod.advance()
        spaces, _ = await mesh.client.list(kinds.NAMESPACE)
        trust = Trust(mesh.client, Revision(), lambda: istiod.authority.told, lambda: spaces, istiod.distributed)
        istiod.distributed(istiod.authority.told, await trust.everywhere(spaces))
        assert "namespace default: " in istiod.status()["problem"]
        assert "immutable" in istiod.status()["problem"]
        await istiod.advance()
        assert istiod.authority.state.signer.anchor == root.certificate
        denied = Failing(mesh.client, "other", 403)
        trust = Trust(
            denied, Revision(), lambda: istiod.authority.told, lambda: spaces, istiod.distributed, own="other"
        )
        found = await trust.namespace({"metadata": {"name": "other"}})
        assert found == Reached(), "it is gone"
        denied.namespace = "kube-public"
        trust = Trust(denied, Revision(), lambda: istiod.authority.told, lambda: spaces, istiod.distributed)
        await mesh.client.create(kinds.NAMESPACE, {"metadata": {"name": "kube-public"}})
        assert (await trust.namespace({"metadata": {"name": "kube-public"}})).refused
        trust = Trust(
            denied, Revision(), lambda: istiod.authority.told, lambda: spaces, istiod.distributed, own="kube-public"
        )
        assert (await trust.namespace({"metadata": {"name": "kube-public"}})).problem, "istiod itself may not write"

    asyncio.run(work())


def test_each_revision_tells_its_own_namespaces():
    """Two that trust different roots of others would overwrite each other's for ever."""
    mesh = Mesh()

    async def work():
        istiod = await mesh.istiod()
        common = istiod.authority.told
        others = {r: certs.authority(r, times.now()).certificate for r in ("default", "canary")}
        spaces = [
            {"metadata": {"name": "old", "labels": {}}},
            {"metadata": {"name": "new", "labels": {"istio.io/rev": "canary"}}},
            {"metadata": {"name": "tagged", "labels": {"istio.io/rev": "prod"}}},
            {"metadata": {"name": "stale", "labels": {"istio.io/rev": "uninstalled"}}},
        ]
        for s in spaces:
            await mesh.client.create(kinds.NAMESPACE, s)
        tag = {"name": "prod", "labels": {"istio.io/tag": "prod", "istio.io/rev": "canary"}}
        await mesh.client.create(kinds.MUTATING_WEBHOOK, {"metadata": tag, "webhooks": []})
        running = ("default", "canary")

        def trust(revision):
            told = replace(common, root=common.own + others[revision])
            return Trust(
                mesh.client,
                Revision(revision),
                lambda: told,
                lambda: spaces,
                istiod.distributed,
                running=lambda: running,
            )

        first, second = trust("default"), trust("canary")
        reached = await first.everywhere(spaces)
        assert "namespace new: the revision canary has not told it yet" in reached.problem
        for _ in range(2):
            assert await second.everywhere(spaces) == Reached()
            assert await first.everywhere(spaces) == Reached()
            for name, revision in (("old", "default"), ("new", "canary"), ("tagged", "canary"), ("stale", "default")):
                found = await mesh.client.get(kinds.CONFIG_MAP, name, "istio-ca-root-cert")
                assert found["data"]["root-cert.pem"] == common.own + others[revision], name
        running = ("default",)
        assert await first.everywhere(spaces) == Reached()
        found = await mesh.client.get(kinds.CONFIG_MAP, "new", "istio-ca-root-cert")
        assert others["default"] in found["data"]["root-cert.pem"], "canary is gone"

    asyncio.run(work())


def test_an_immutable_config_map_in_a_namespace_of_another_revision_is_not_waited_for():
    """Whoever owns a namespace would stop the rotation for the mesh by it."""
    mesh = Mesh()

    async def work():
        istiod = await mesh.istiod()
        told = istiod.authority.told
        space = {"metadata": {"name": "new", "labels": {"istio.io/rev": "canary"}}}
        await mesh.client.create(kinds.NAMESPACE, space)
        trust = Trust(
            mesh.client,
            Revision(),
            lambda: told,
            lambda: [space],
            istiod.distributed,
            running=lambda: ("default", "canary"),
        )
        meta = {"name": "istio-ca-root-cert", "namespace": "new"}
        fixed = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"root-cert.pem": "x"}}
        await mesh.client.create(kinds.CONFIG_MAP, fixed)
        assert (await trust.everywhere([space])).problem, "canary can write this one"
        await mesh.client.patch(kinds.CONFIG_MAP, "new", "istio-ca-root-cert", {"immutable": True})
        reached = await trust.everywhere([space])
        assert not reached.problem
        assert "namespace new: the ConfigMap istio-ca-root-cert is immutable" in reached.refused
        await mesh.client.delete(kinds.CONFIG_MAP, "new", "istio-ca-root-cert")
        fixed["data"]["root-cert.pem"] = told.own
        await mesh.client.create(kinds.CONFIG_MAP, {**fixed, "immutable": True})
        assert await trust.everywhere([space]) == Reached(), "it has what it needs"

    asyncio.run(work())


def test_no_gateway_can_serve_what_the_mesh_signs_with(root):
    """A Secret of type kubernetes.io/tls looks like any other certificate."""
    own = certs.intermediate(root, "istio", NOW)
    data = pem({"tls.crt": own.certificate, "tls.key": own.key, "ca.crt": root.certificate})
    world = World("istio-system", lambda: None)
    for name in ("cacerts", "istio-ca-secret", "lateen-ca", "shop"):
        secret = {"metadata": {"name": name, "namespace": "istio-system"}, "type": "kubernetes.io/tls", "data": data}
        world.changed(kinds.SECRET, ("istio-system", name), None, secret)
    assert list(world.objects.credentials) == [("istio-system", "shop")]


def test_keys_are_in_no_status_and_no_log(caplog):
    mesh = Mesh()

    async def work():
        istiod = await mesh.istiod()
        await istiod.advance()
        measures = Measures()
        istiod.measure(measures)
        return str(istiod.status()) + measures.registry.text() + repr(istiod.authority.state)

    text = asyncio.run(work()) + caplog.text
    assert "PRIVATE KEY" not in text
    assert "citadel_server_root_cert_expiry_timestamp" in text
