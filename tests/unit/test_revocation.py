"""Revocation lists of the mesh: which are in effect, and what becomes of those that would refuse everybody."""

import asyncio
import ssl
from datetime import timedelta

import pytest
from authorities import Mesh
from certificate_service import Machine, Pod, World
from revoking import listing

from lateen.agent.certificates import Trusted
from lateen.api import kinds
from lateen.ca import revocation, rotation, signer
from lateen.ca.rotation import Pace
from lateen.ca.signer import PLUGGED
from lateen.control.trust import Reached, Trust
from lateen.kit import certs, tasks, times
from lateen.wire.revision import Revision

HOUR = timedelta(hours=1)
PACE = Pace(announce=HOUR, ttl=24 * HOUR)
ROOT = certs.authority("root", times.now())
MIDDLE = certs.intermediate(ROOT, "middle", times.now(), path_length=1)
OWN = certs.intermediate(MIDDLE, "istio", times.now())
OTHER = certs.authority("other", times.now())
LISTS = listing(ROOT) + listing(MIDDLE)


def plugged(crl="", own=OWN):
    found = {"ca-cert.pem": own.certificate, "ca-key.pem": own.key, "cert-chain.pem": MIDDLE.certificate}
    return {**found, "root-cert.pem": ROOT.certificate, "ca-crl.pem": crl}


def read(crl="", own=OWN):
    return signer.read(plugged(crl, own), PLUGGED, times.now())


def issuers(crl):
    return sorted(revocation._read(one).issuer.rfc4514_string() for one in revocation.split(crl))


def test_there_is_a_list_of_every_ca_on_the_way_to_the_root():
    """The user gives those of the CAs whose keys istiod does not have."""
    crl, problem = rotation.revoked(rotation.begin(read(LISTS), times.now(), PACE))
    assert (issuers(crl), problem) == (["CN=istio", "CN=middle", "CN=root"], "")
    own = LISTS + listing(OWN, certs.issue(OWN, ["a"], times.now(), HOUR).certificate)
    crl, _ = rotation.revoked(rotation.begin(read(own), times.now(), PACE))
    assert issuers(crl) == ["CN=istio", "CN=middle", "CN=root"], "the user's own instead of an empty one"
    assert revocation.count(revocation.split(crl)) == 1
    assert rotation.revoked(rotation.begin(read(), times.now(), PACE)) == ("", "")


def test_lists_that_leave_out_a_ca_that_is_trusted_refuse_nobody():
    state = rotation.begin(read(LISTS), times.now(), PACE)
    crl, problem = rotation.revoked(state, [OTHER.certificate])
    assert not crl
    assert 'not in effect: there is none of the certificate authority "CN=other"' in problem
    everything = rotation.begin(read(LISTS + listing(OTHER)), times.now(), PACE)
    assert "CN=other" in issuers(rotation.revoked(everything, [OTHER.certificate])[0])


def test_lists_hold_at_every_moment_between_two_authorities():
    """From istiod's own root to one of the user's, and to the next intermediate, which revokes the former one."""
    now = times.now().replace(microsecond=0)
    ours = signer.self_signed(certs.authority("ours", times.now()))
    state = rotation.step(rotation.begin(ours, now, PACE), read(LISTS), now, PACE)
    assert rotation.revoked(state) == ("", ""), "not wanted before the CA that it came with is"
    state = rotation.announced(state, [ROOT.certificate], now)
    state = rotation.step(state, read(LISTS), now + HOUR, PACE)
    crl, problem = rotation.revoked(state)
    assert (issuers(crl), problem) == (["CN=istio", "CN=middle", "CN=ours", "CN=root"], "")
    second = certs.intermediate(MIDDLE, "second", now)
    new = read(listing(ROOT) + listing(MIDDLE, OWN.certificate), second)
    former = state.signer
    state = rotation.step(state, new, now + HOUR, PACE)
    crl, problem = rotation.revoked(state)
    assert "CN=second" in issuers(crl)
    state = rotation.step(state, new, now + 3 * HOUR, PACE)
    assert state.signer == former, "whoever has no list of the second one would refuse what it signs"
    assert revocation.count(revocation.split(crl)) == 0, "what still signs is not revoked yet"
    state = rotation.announced(state, [ROOT.certificate], now + 3 * HOUR, crl)
    assert rotation.due(state, new, now + 3 * HOUR, PACE) == now + 4 * HOUR
    state = rotation.step(state, new, now + 4 * HOUR, PACE)
    assert state.signer == new
    crl, problem = rotation.revoked(state)
    assert not problem
    assert issuers(crl) == ["CN=istio", "CN=middle", "CN=ours", "CN=root", "CN=second"]
    assert revocation.count(revocation.split(crl)) == 1
    assert rotation.load(rotation.dump(state)) == state
    state = rotation.step(state, new, now + 40 * HOUR, PACE)
    assert issuers(rotation.revoked(state)[0]) == ["CN=middle", "CN=root", "CN=second"]
    state = rotation.step(state, read("", second), now + 40 * HOUR, PACE)
    assert rotation.revoked(state) == ("", ""), "who takes the lists away revokes nothing any more"


@pytest.mark.parametrize(
    ("crl", "says"),
    [
        ("nonsense", "it is not PEM text of revocation lists"),
        (LISTS + "nonsense", "it is not PEM text of revocation lists"),
        (listing(ROOT), 'there is none of the certificate authority "CN=middle"'),
        (listing(ROOT) + listing(OTHER), "CN=middle"),
        (listing(MIDDLE) + listing(ROOT, now=times.now() - timedelta(days=90)), 'the list of "CN=root" has expired'),
        (listing(MIDDLE) + listing(ROOT, now=times.now() + timedelta(days=1)), "on, not now"),
        (LISTS * 1000, "more than a ConfigMap holds"),
    ],
    ids=["nonsense", "nonsense at the end", "one missing", "of another CA", "expired", "of tomorrow", "too many"],
)
def test_lists_that_cannot_be_used_keep_nobody_from_a_new_certificate_authority(crl, says):
    mesh = Mesh()

    async def work():
        await mesh.put(PLUGGED, plugged(LISTS))
        istiod = await mesh.istiod()
        former = istiod.authority.lists[0]
        assert former
        assert istiod.status()["revocation"]["lists"] == 3
        second = certs.intermediate(MIDDLE, "second", times.now())
        await mesh.put(PLUGGED, plugged(crl, second))
        await mesh.events(istiod)
        await istiod.advance()
        await mesh.told(istiod)
        assert istiod.authority.state.signer.pair.certificate == second.certificate
        assert "cacerts/ca-crl.pem is not used: " in istiod.status()["problem"]
        assert says in istiod.status()["problem"]
        assert {"CN=middle", "CN=root"} < set(issuers(istiod.authority.lists[0])), "the former lists stay"

    asyncio.run(work())


def test_a_list_that_is_about_to_expire_is_warned_about():
    mesh = Mesh()

    async def work():
        await mesh.put(PLUGGED, plugged(listing(ROOT, days=6) + listing(MIDDLE)))
        istiod = await mesh.istiod()
        assert "a revocation list expires at" in istiod.status()["problem"]

    asyncio.run(work())


def test_lists_are_told_to_every_namespace_and_taken_back():
    mesh = Mesh()

    async def work():
        await mesh.put(PLUGGED, plugged(LISTS))
        istiod = await mesh.istiod()
        spaces, _ = await mesh.client.list(kinds.NAMESPACE)
        trust = Trust(mesh.client, Revision(), lambda: istiod.authority.told, lambda: spaces, istiod.distributed)
        assert await trust.everywhere(spaces) == Reached()
        found = await mesh.client.get(kinds.CONFIG_MAP, "default", "istio-ca-crl")
        assert found["data"] == {"ca-crl.pem": istiod.authority.lists[0]}
        assert not trust.altered(("default", "istio-ca-crl"), found)
        assert trust.altered(("default", "istio-ca-crl"), None)
        await mesh.put(PLUGGED, plugged())
        await mesh.events(istiod)
        await istiod.advance()
        assert await trust.everywhere(spaces) == Reached()
        assert not (await mesh.client.get(kinds.CONFIG_MAP, "default", "istio-ca-crl")).get("data")

    asyncio.run(work())


def test_istiod_knows_nobody_by_a_certificate_that_is_revoked(tmp_path):
    world = World()
    world.authority.state = rotation.begin(read(LISTS), times.now(), PACE)

    async def work():
        async with world.serving():
            machine = Machine(world, tmp_path)
            shown = await machine.expired()
            assert (tmp_path / "mounted.pem").exists()
            await machine.certificates.get()
            shown = machine.written()[0]
            world.authority.state = rotation.begin(read(LISTS + listing(OWN, shown)), times.now(), PACE)
            world.certificate.replace()
            with pytest.raises(OSError):  # noqa: PT011 - in words of the TLS library
                await machine.certificates.get()
            assert machine.written()[0] == shown

    asyncio.run(work())


def test_an_agent_renews_what_is_revoked(tmp_path):
    """The certificate itself, or the authority above it."""
    world = World()
    world.authority.state = rotation.begin(read(LISTS), times.now(), PACE)

    async def work():
        async with world.serving():
            pod = Pod(world, tmp_path)
            wait = await pod.certificates.first()
            first = pod.written()[0]
            renewing = tasks.spawn(pod.certificates.renew(wait), "renewal")
            (tmp_path / "crl").mkdir()
            for crl in (listing(OWN, first), listing(ROOT) + listing(MIDDLE, OWN.certificate)):
                before = pod.written()[0]
                (tmp_path / "crl" / "ca-crl.pem").write_text(LISTS + crl + listing(OWN))
                # istiod is under the same authority here; else it would be under the next one by now.
                pod.certificates._istiod._context = lambda _: ssl.create_default_context(cadata=ROOT.certificate)
                await pod.until(lambda chain, _, before=before: chain != before)
            renewing.cancel()

    asyncio.run(work())


def test_an_agent_takes_lists_that_it_can_read_only():
    Trusted(ROOT.certificate, LISTS).check()
    for bad in (Trusted(""), Trusted(ROOT.certificate, "-----END X509 CRL-----"), Trusted(ROOT.certificate, "", "[]")):
        with pytest.raises(ValueError):  # noqa: PT011 - it is not what they say
            bad.check()
