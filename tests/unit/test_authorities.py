"""A CA of one's own, and the way from one CA to the next: what is refused, and who trusts what when."""

from datetime import timedelta

import pytest
from authorities import HOUR, NOW, PACE, broken, own, plugged, restricted
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509 import ExtendedKeyUsageOID as Use

from lateen.ca import rotation, signer
from lateen.ca.authority import Authority, Identity
from lateen.ca.rotation import Pace
from lateen.ca.signer import PLUGGED, Unusable
from lateen.kit import certs, pkcs10

WHO = Identity("cluster.local", "default", "bookinfo-reviews")
KEYS = {"EC": certs.new_key, "RSA": lambda: rsa.generate_private_key(65537, 2048)}


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
    chain = ca.sign(pkcs10.request(certs.new_key()), WHO, NOW)
    assert len(certs.split(chain)) == (3 if middle else 2), "the root itself is not sent"
    assert leads(chain, certs.split(ca.root))
    assert leads(ca.server_pair(["istiod.istio-system.svc"], WHO, NOW).certificate, certs.split(ca.root))


@pytest.mark.parametrize("kind", KEYS)
def test_requests_may_have_keys_of_both_kinds(kind):
    key = KEYS[kind]()
    pem = Authority.create(NOW, "cluster.local").sign(pkcs10.request(key), WHO, NOW)
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


def under(*path, root):
    """The data of a Secret with the first CA of a path, which may have several ways up."""
    chain = "".join(c.certificate for c in path[1:])
    data = {"ca-cert.pem": path[0].certificate, "ca-key.pem": path[0].key, "root-cert.pem": root.certificate}
    return {**data, "cert-chain.pem": chain}


def names(permitted=None, excluded=None):
    return x509.NameConstraints(permitted, excluded)


def uri(*hosts):
    return [x509.UniformResourceIdentifier(h) for h in hosts]


def dns(*hosts):
    return [x509.DNSName(h) for h in hosts]


UNKNOWN = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")
ONE = {
    "server only": (x509.ExtendedKeyUsage([Use.SERVER_AUTH]), "without both serverAuth and clientAuth"),
    "any use": (x509.ExtendedKeyUsage([Use.ANY_EXTENDED_KEY_USAGE]), "without both serverAuth and clientAuth"),
    "other URIs": (names(uri("example.com")), "does not permit spiffe://cluster.local/"),
    "below the domain": (names(uri(".cluster.local")), "does not permit spiffe://cluster.local/"),
    "not the domain": (names(None, uri(".local")), "does not permit spiffe://cluster.local/"),
    "other hosts": (names(dns("example.com")), "does not permit istiod.istio-system.svc"),
    "not the host": (names(None, dns("svc")), "does not permit istiod.istio-system.svc"),
    "unknown": (UNKNOWN, r"has the critical extension 1.2.3.4"),
    "no further CA": (x509.BasicConstraints(True, 0), "permits 0 certificate authorities below itself"),
}
MEANT = ("cluster.local", ["istiod.istio-system.svc"])


@pytest.mark.parametrize("at", ["root", "middle"])
@pytest.mark.parametrize("what", ONE)
def test_a_ca_whose_certificates_proxies_would_reject_is_refused_with_the_reason(root, what, at):
    """Else all connections would end with the first certificates under it."""
    extension, says = ONE[what]
    middle = restricted(None if at == "root" else root, extension)
    data = under(certs.intermediate(middle, "istio", NOW), middle, root=middle if at == "root" else root)
    with pytest.raises(Unusable, match=says):
        signer.read(data, PLUGGED, NOW, *MEANT)


PERMITS = [
    x509.ExtendedKeyUsage([Use.SERVER_AUTH, Use.CLIENT_AUTH]),
    names(uri("cluster.local")),
    names(uri("example.com", ".local")),
    names(dns("svc", "example.com")),
    names(None, uri("example.com")),
    names([x509.RFC822Name("example.com")]),
    x509.BasicConstraints(True, 1),
]


@pytest.mark.parametrize("extension", PERMITS, ids=repr)
def test_a_ca_that_permits_what_is_signed_is_taken(root, extension):
    middle = restricted(root, extension)
    assert signer.read(under(certs.intermediate(middle, "istio", NOW), middle, root=root), PLUGGED, NOW, *MEANT)


def test_a_weak_or_unknown_key_above_the_ca_is_refused():
    for key, says in (
        (rsa.generate_private_key(65537, 1024), "RSA key of at least 2048 bits"),
        (ec.generate_private_key(ec.BrainpoolP256R1()), "P-256, P-384 or P-521"),
    ):
        above = restricted(None, key=key)
        with pytest.raises(Unusable, match=f'"CN=restricted" must have .*{says}'):
            signer.read(under(restricted(above), root=above), PLUGGED, NOW, *MEANT)
    above = restricted(None, key=ed25519.Ed25519PrivateKey.generate())
    assert signer.read(under(restricted(above), root=above), PLUGGED, NOW, *MEANT), "Envoy and OpenSSL know it"


def test_of_several_certificates_of_one_authority_one_that_leads_to_the_root_is_chosen(root):
    """Renewed with the same key, or signed by two roots."""
    key, other = certs.new_key(), certs.authority("other", NOW)
    here, there = (certs.intermediate(above, "middle", NOW, key=key, path_length=1) for above in (root, other))
    old = certs.intermediate(root, "middle", NOW - timedelta(days=400), key=key, path_length=1)
    bottom = certs.intermediate(here, "istio", NOW)
    found = signer.read(under(bottom, old, there, here, root=root), PLUGGED, NOW)
    assert found.between == (here.certificate,)
    renewed = certs.authority("root", NOW, key=key)
    former = certs.authority("root", NOW - timedelta(days=400), 100, key=key)
    data = {**under(certs.intermediate(renewed, "istio", NOW), root=root)}
    found = signer.read({**data, "root-cert.pem": former.certificate + renewed.certificate}, PLUGGED, NOW)
    assert found.anchor == renewed.certificate


@pytest.mark.parametrize("what", bad(certs.authority("x", NOW)))
def test_a_ca_that_cannot_be_used_is_refused_with_the_reason(root, what):
    data, says = bad(root)[what]
    with pytest.raises(Unusable, match=says.replace("(", ".").replace("*", ".")):
        signer.read(data, PLUGGED, NOW)


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
