"""Certificates in the agents of pods and machines: when they are requested and renewed, and what is trusted."""

import asyncio
from datetime import timedelta

import pytest
from certificate_service import ME, OWN, Machine, Pod, World, csr, names_in

from lateen.agent import certificates
from lateen.agent.certificates import Certificates, Renewal, Trusted, renewal, write_files
from lateen.ca import rotation, signer
from lateen.ca.authority import Authority, parse
from lateen.ca.rotation import Pace
from lateen.control.ca_service import BURST
from lateen.kit import certs, pkcs10, tasks, times

PACE = Pace(timedelta(hours=1), timedelta(hours=24))


@pytest.fixture(autouse=True)
def often(monkeypatch):
    """Agents look at their roots more often than outside of tests."""
    monkeypatch.setattr(certificates, "LOOK_S", 0.05)


def other(world, signs=False):
    """The state of ``world`` on its way to another root, or when that one signs."""
    wanted = signer.self_signed(certs.authority("other", times.now()))
    state = rotation.step(world.authority.state, wanted, times.now(), PACE)
    state = rotation.announced(state, wanted.roots, times.now())
    return rotation.step(state, wanted, times.now() + timedelta(hours=2 * signs), PACE)


def test_an_agent_follows_the_roots_and_renews_when_another_one_signs(tmp_path):
    world = World(timedelta(seconds=40))
    wanted = signer.self_signed(certs.authority("other", times.now()))
    announced = rotation.step(world.authority.state, wanted, times.now(), PACE)
    announced = rotation.announced(announced, wanted.roots, times.now())
    signing = rotation.step(announced, wanted, times.now() + timedelta(hours=2), PACE)

    async def work():
        async with world.serving():
            pod = Pod(world, tmp_path, renewal=Renewal(0.05, 0.0))
            wait = await pod.certificates.first()
            assert wait > 30
            first, root = pod.written()
            assert root == world.authority.root
            renewing = tasks.spawn(pod.certificates.renew(wait), "renewal")
            world.authority.state = announced
            pod.root.write_text(announced.bundle)
            await pod.until(lambda _, found: found == announced.bundle)
            assert pod.written()[0] == first, "the former root signs as yet"
            pod.root.write_text("nonsense")  # nobody's roots are taken away by a bad file
            await asyncio.sleep(10 * certificates.LOOK_S)
            assert pod.written()[1] == announced.bundle
            world.authority.state = signing
            world.certificate.replace()
            pod.root.write_text(signing.bundle)
            await pod.until(lambda chain, found: found == signing.bundle and certs.anchored(chain, found))
            renewing.cancel()

    asyncio.run(work())


def test_an_agent_renews_in_time_and_reports_when_its_certificate_expires(tmp_path):
    world = World(timedelta(seconds=6))

    async def work():
        async with world.serving():
            pod = Pod(world, tmp_path, renewal=Renewal(0.5, 0.0))
            wait = await pod.certificates.first()
            assert 1 <= wait <= 3
            assert pod.certificates.end == pytest.approx(times.now().timestamp() + 6, abs=2)
            first, end = pod.written()[0], pod.certificates.end
            renewing = tasks.spawn(pod.certificates.renew(wait), "renewal")
            await pod.until(lambda chain, _: chain != first)
            assert pod.certificates.end > end
            renewing.cancel()

    asyncio.run(work())


def test_a_machine_asks_for_the_roots(tmp_path):
    world = World()

    async def work():
        async with world.serving():
            pod = Pod(world, tmp_path, asks="everything")
            wait = await pod.certificates.first()
            pod.certificates._asked = -1000.0
            world.authority.state = other(world)
            renewing = tasks.spawn(pod.certificates.renew(wait), "renewal")
            await pod.until(lambda _, found: found == world.authority.root)
            assert pod.root.read_text() == world.authority.root
            renewing.cancel()

    asyncio.run(work())


def test_a_machine_renews_by_its_certificate_when_its_token_has_expired(tmp_path):
    world = World()

    async def work():
        async with world.serving():
            machine = Machine(world, tmp_path)
            first = await machine.expired()
            await machine.certificates.get()
            assert machine.written()[0] != first
            assert names_in(machine.written()[0])[0] == [OWN]
            world.authority.state = other(world, signs=True)
            world.certificate.replace()
            machine.root.write_text(world.authority.root)
            await machine.certificates.get()
            assert certs.anchored(machine.written()[0], world.authority.root), "under the new root, by the former one"
            world.authority.state = rotation.begin(world.authority.state.signer, times.now(), PACE)
            world.certificate.replace()
            await machine.certificates.get()

    asyncio.run(work())


def test_a_machine_gets_so_many_certificates_whatever_token_it_invents(tmp_path):
    world = World()

    async def work():
        async with world.serving():
            machine = Machine(world, tmp_path)
            await machine.expired()

            async def ask():
                for i in range(BURST + 10):
                    machine.token.write_text(f"invented-{i}")
                    await machine.certificates.get()

            with pytest.raises(OSError, match="too many requests"):
                await ask()

    asyncio.run(work())


@pytest.mark.parametrize("what", ["a pod's", "of another account", "of a group that is gone"])
def test_only_a_registered_machine_renews_by_its_certificate(tmp_path, what):
    """Any other certificate that was stolen is worth nothing once it has expired, and the token of a deleted pod is
    none, also where machines run under the same account."""
    world = World()

    async def work():
        async with world.serving():
            if what == "of another account":
                world.machines = {("default", "group", "other"), ("other", "group", "default")}
            pod = Machine(world, tmp_path, world.of_web if what == "a pod's" else "")
            await pod.expired()
            if what == "of a group that is gone":
                world.machines = {("default", "another", "default")}
            with pytest.raises(OSError, match="the token is not valid"):
                await pod.certificates.get()

    asyncio.run(work())


def test_a_machine_is_not_locked_out_by_a_certificate_that_istiod_does_not_accept_any_more(tmp_path):
    world = World()

    async def work():
        async with world.serving():
            machine = Machine(world, tmp_path)
            await machine.certificates.first()
            for spoilt in (
                certs.issue(certs.authority("x", times.now()), [OWN], times.now(), timedelta(hours=1)),
                None,
            ):
                if spoilt:
                    write_files(tmp_path, spoilt.certificate, spoilt.key, Trusted(world.authority.root))
                else:
                    (tmp_path / "key.pem").write_text("nonsense")
                await machine.certificates.get()
                assert certs.anchored(machine.written()[0], world.authority.root)
            machine.token.unlink()
            await machine.certificates.get()  # by the certificate alone
            (tmp_path / "cert-chain.pem").unlink()
            with pytest.raises(
                OSError, match=r"the token .*/token, by which istiod knows who asks, cannot be read: No"
            ):
                await machine.certificates.get()

    asyncio.run(work())


def test_a_machine_of_a_renamed_trust_domain_renews(tmp_path):
    world = World()
    old = OWN.replace("cluster.local", "old.domain")

    async def work():
        async with world.serving():
            machine = Machine(world, tmp_path)
            await machine.expired()
            key = certs.new_key()
            signed = world.authority.sign(pkcs10.request(key), parse(old), times.now(), group="group")
            write_files(tmp_path, signed, certs.key_pem(key), Trusted(world.authority.root))
            with pytest.raises(OSError, match="the token is not valid"):
                await machine.certificates.get()
            world.aliases = ("old.domain",)
            await machine.certificates.get()
            assert names_in(machine.written()[0])[0] == [OWN]

    asyncio.run(work())


def test_what_is_trusted_may_be_an_intermediate(tmp_path):
    """As in Envoy, on both sides."""
    root = certs.authority("root", times.now())
    middle = certs.intermediate(root, "middle", times.now(), path_length=None)
    world = World()
    world.authority.state = rotation.begin(signer.Signer(middle, (), (middle.certificate,)), times.now(), rotation.PACE)

    async def work():
        async with world.serving():
            machine = Machine(world, tmp_path)
            await machine.expired()
            await machine.certificates.get()

    asyncio.run(work())


def test_an_agent_outlives_a_full_disk(tmp_path):
    world = World(timedelta(seconds=6))
    full = []

    def write(*what):
        if full:
            raise OSError(28, "No space left on device")
        write_files(*what)

    async def work():
        async with world.serving():
            pod = Pod(world, tmp_path)
            pod.certificates = Certificates(pod.certificates._istiod, tmp_path, write)
            wait = await pod.certificates.first()
            first = pod.written()[0]
            full.append(True)
            renewing = tasks.spawn(pod.certificates.renew(wait), "renewal")
            world.authority.state = other(world)
            pod.root.write_text(world.authority.root)
            await asyncio.sleep(10 * certificates.LOOK_S)
            assert not renewing.done()
            full.clear()
            await pod.until(lambda chain, root: chain != first and root == world.authority.root)
            renewing.cancel()

    asyncio.run(work())


@pytest.mark.parametrize(
    "what", ["of another root", "of a root that is not trusted any more", "of another trust domain"]
)
def test_certificates_of_others_are_shown_in_vain(tmp_path, what):
    world = World()

    async def work():
        async with world.serving():
            machine = Machine(world, tmp_path)
            await machine.expired()
            ca = certs.authority("x", times.now()) if what == "of another root" else world.authority.state.signer.pair
            name = OWN.replace("cluster.local", "evil") if what.endswith("domain") else OWN
            pair = certs.issue(ca, [name], times.now(), timedelta(hours=1))
            write_files(tmp_path, pair.certificate, pair.key, Trusted(world.authority.root))
            if what.endswith("any more"):
                world.authority.state = rotation.begin(
                    signer.self_signed(certs.authority("y", times.now())), times.now(), PACE
                )
                world.certificate.replace()
                machine.root.write_text(world.authority.root)
            with pytest.raises(OSError):  # noqa: PT011 - the handshake fails, or istiod refuses
                await machine.certificates.get()
            assert names_in(machine.written()[0])[0] == [name]
            assert machine.written()[0] == pair.certificate

    asyncio.run(work())


def test_istiod_has_a_new_certificate_as_soon_as_another_ca_signs():
    world = World()

    async def work():
        async with world.serving():
            before = world.certificate.pair
            world.authority.state = other(world, signs=True)
            world.certificate.replace()
            assert world.certificate.pair != before
            code, answer = await world.ask(world.of_web, {"csr": csr()})
            assert code == 200
            assert certs.anchored(answer["certificate"], world.authority.root)

    asyncio.run(work())


def test_settings_of_renewal_are_istios():
    assert renewal({}) == Renewal(0.5, 0.01)
    given = {"SECRET_GRACE_PERIOD_RATIO": "0.25", "SECRET_GRACE_PERIOD_RATIO_JITTER": "0"}
    pair = Authority.create(times.now(), "cluster.local").server_pair(["a"], ME, times.now(), timedelta(hours=4))
    assert renewal(given).wait(pair.certificate) == pytest.approx(3 * 3600, abs=5)
    for wrong in ("2", "-1", "half"):
        with pytest.raises(ValueError, match="SECRET_GRACE_PERIOD_RATIO"):
            renewal({"SECRET_GRACE_PERIOD_RATIO": wrong})


def test_a_machine_whose_token_is_of_no_use_is_told_what_to_do(tmp_path):
    world = World()

    async def work():
        async with world.serving():
            with pytest.raises(OSError, match=r"not valid for the audience .*replace its file istio-token by that of"):
                await Machine(world, tmp_path, token="expired").certificates.get()
            pod = Pod(world, tmp_path)
            pod.token.write_text("expired")
            with pytest.raises(OSError, match="not valid for the audience") as caught:
                await pod.certificates.get()  # its token is renewed by Kubernetes
            assert "istio-token" not in str(caught.value)

    asyncio.run(work())


@pytest.mark.parametrize(("days", "says"), [(2, "certificate is not yet valid"), (-30, "certificate has expired")])
def test_a_clock_that_differs_from_istiods_is_named(tmp_path, monkeypatch, days, says):
    now = times.now
    monkeypatch.setattr(times, "now", lambda: now() + timedelta(days=days))
    world = World()

    async def work():
        async with world.serving():
            monkeypatch.setattr(times, "now", now)
            today = f"{now():%Y-%m-%d}"
            with pytest.raises(OSError, match=f"istiod's certificate: {says}, by the clock here, which says {today}"):
                await Pod(world, tmp_path).certificates.get()

    asyncio.run(work())
