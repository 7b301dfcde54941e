"""The certificate authority of a running istiod: what takes effect, and what is kept over a restart."""

import asyncio
from datetime import timedelta

import pytest
from authorities import HOUR, NOW, PACE, Mesh, broken, own, pem, plugged
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import rsa

from lateen.api import kinds
from lateen.ca import rotation, signer
from lateen.ca.authority import Expired, Identity
from lateen.ca.signer import PLUGGED, RECORD, SELF_SIGNED, Unusable
from lateen.control import serving
from lateen.control.measures import Measures
from lateen.control.wanted import ASKED, DISTRUSTED
from lateen.control.world import World
from lateen.kit import certs, pkcs10, tasks, times
from lateen.kube.informer import Informer


@pytest.fixture(scope="module")
def root():
    return certs.authority("root", NOW)


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
            istiod.authority.sign(pkcs10.request(certs.new_key()), who, times.now())
        await istiod.advance()
        assert istiod.authority.sign(pkcs10.request(certs.new_key()), who, times.now())

    asyncio.run(work())


def test_a_certificate_that_could_not_be_replaced_is_replaced_later(monkeypatch):
    mesh = Mesh()

    def full(*_):
        raise OSError(24, "Too many open files")

    async def work():
        istiod = await mesh.istiod()
        me = Identity("cluster.local", "istio-system", "istiod")
        served = serving.Certificate(istiod.authority, ["localhost"], me)
        before, context = served.pair, served.mutual
        with monkeypatch.context() as m:
            m.setattr(serving, "memory_file", full)
            with pytest.raises(OSError, match="Too many open files"):
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


def test_no_gateway_can_serve_what_the_mesh_signs_with(root):
    """A Secret of type kubernetes.io/tls looks like any other certificate."""
    own = certs.intermediate(root, "istio", NOW, key=rsa.generate_private_key(65537, 2048))
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
