"""Certificate authorities for tests, of one's own and of a mesh in a cluster."""

import base64
from datetime import UTC, datetime, timedelta

from apiserver import Cluster
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from lateen.api import kinds
from lateen.ca import rotation, signer
from lateen.ca.rotation import Pace
from lateen.ca.signer import PLUGGED, RECORD, SELF_SIGNED
from lateen.cluster.apiserver.direct import DirectClient
from lateen.control.roots import Roots
from lateen.control.trust import Reached
from lateen.control.wanted import Settings
from lateen.kit import certs

NOW = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
PACE = Pace(announce=HOUR, ttl=24 * HOUR)


def plugged(root, *, key=None, middle=True, now=NOW, **more):
    """The data of a Secret cacerts, under ``root``."""
    above = certs.intermediate(root, "middle", now, path_length=1) if middle else root
    own = certs.intermediate(above, "istio", now, key=key)
    chain = own.certificate + (above.certificate if middle else "") + root.certificate
    data = {"ca-cert.pem": own.certificate, "ca-key.pem": own.key, "cert-chain.pem": chain}
    return {**data, "root-cert.pem": root.certificate, **more}


def restricted(issuer, *extensions, key=None):
    """A CA with further extensions, self-signed or by ``issuer``, without its chain."""
    key = key or certs.new_key()
    above = x509.load_pem_x509_certificate(issuer.certificate.encode()) if issuer else None
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "restricted")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(above.subject if above else name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW)
        .not_valid_after(NOW + timedelta(days=300))
    )
    if not any(isinstance(e, x509.BasicConstraints) for e in extensions):
        extensions = (x509.BasicConstraints(True, None), *extensions)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=not isinstance(extension, x509.ExtendedKeyUsage))
    signing = serialization.load_pem_private_key(issuer.key.encode(), None) if issuer else key
    made = builder.sign(signing, None if isinstance(signing, ed25519.Ed25519PrivateKey) else hashes.SHA256())
    return certs.Pair(made.public_bytes(serialization.Encoding.PEM).decode(), certs.key_pem(key))


def own(name, now=NOW):
    return signer.self_signed(certs.authority(name, now))


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
