"""No request fails while roots, intermediates and certificates change: two real Envoys with mutual TLS, the resources
that proxies get, the files that agents write; a handshake for each request, and no retries."""

import json
import subprocess
import threading
import time
from datetime import timedelta
from http.client import HTTPConnection

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from google.protobuf import json_format
from revoking import listing

from lateen.agent.certificates import Trusted, write_secrets
from lateen.ca import rotation, signer
from lateen.ca.authority import Authority, Identity
from lateen.ca.rotation import Pace
from lateen.cluster.kubelet.images import envoy_binary
from lateen.kit import certs, pkcs10, times
from lateen.mesh.settings import Transport
from lateen.xds import sds, tls

pytestmark = pytest.mark.system

PACE = Pace(timedelta(hours=1), timedelta(hours=24))
HOST, CLIENT, SERVER, ADMIN = "127.78.0.1", 18080, 18443, 18900
NAMES = {"client": "sleep", "server": "httpbin"}
LATE_S = 0.6
"""Seconds that an Envoy gets to read a file, and requests to be made, at each step."""


def socket_of(kind, directory):
    """The TLS that istiod sends, with files of the test in the place of a pod's."""
    if kind == "server":
        made = tls.downstream(tls.ALPN_H1, Transport(aliases=("their.domain",)))
    else:
        san = f"spiffe://cluster.local/ns/default/sa/{NAMES['server']}"
        made = tls.upstream(tls.ALPN_H1, "outbound_.80_._.a", Transport(), (san,))
    return json.loads(json.dumps(json_format.MessageToDict(made)).replace(sds.DIRECTORY, str(directory)))


def manager(routes):
    types = "type.googleapis.com/envoy.extensions.filters"
    return {
        "name": "http",
        "typed_config": {
            "@type": f"{types}.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "a",
            "route_config": {"virtual_hosts": [{"name": "a", "domains": ["*"], "routes": routes}]},
            "http_filters": [{"name": "router", "typed_config": {"@type": f"{types}.http.router.v3.Router"}}],
        },
    }


def address(port):
    return {"socket_address": {"address": HOST, "port_value": port}}


def config(kind, directory):
    if kind == "server":
        chain = {
            "filters": [manager([{"match": {"prefix": "/"}, "direct_response": {"status": 200}}])],
            "transport_socket": socket_of(kind, directory),
        }
        return {"listeners": [{"name": "a", "address": address(SERVER), "filter_chains": [chain]}]}
    types = "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    once = {
        "@type": types,
        "common_http_protocol_options": {"max_requests_per_connection": 1},
        "explicit_http_config": {"http_protocol_options": {}},
    }
    cluster = {
        "name": "a",
        "load_assignment": {
            "cluster_name": "a",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(SERVER)}}]}],
        },
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": once},
        "transport_socket": socket_of(kind, directory),
    }
    chain = {"filters": [manager([{"match": {"prefix": "/"}, "route": {"cluster": "a"}}])]}
    return {
        "listeners": [{"name": "a", "address": address(CLIENT), "filter_chains": [chain]}],
        "clusters": [cluster],
    }


class Pod:
    """An Envoy, and what its agent writes."""

    def __init__(self, kind, directory, authority):
        self.kind, self.directory, self.authority = kind, directory, authority
        directory.mkdir()
        self.trusted = Trusted()
        self.renew()
        self.process = None

    def follow(self):
        """The agent sees new roots."""
        told = self.authority.told
        self.trusted = Trusted(told.root, told.crl, told.domains)
        self._write()

    def renew(self):
        """The agent gets a new certificate."""
        key, who = certs.new_key(), Identity("cluster.local", "default", NAMES[self.kind])
        self.pair = self.authority.sign(pkcs10.request(key), who, times.now()), certs.key_pem(key)
        self.follow()

    def _write(self):
        write_secrets(self.directory, *self.pair, self.trusted)

    def __enter__(self):
        port = ADMIN + list(NAMES).index(self.kind)
        bootstrap = {
            "node": {"id": self.kind, "cluster": "test"},
            "admin": {"address": address(port)},
            "static_resources": config(self.kind, self.directory),
        }
        path = self.directory / "bootstrap.json"
        path.write_text(json.dumps(bootstrap))
        command = [envoy_binary(), "-c", str(path), "--log-level", "error", "--concurrency", "1"]
        self.log = (self.directory / "log").open("w")
        self.process = subprocess.Popen(
            [*command, "--use-dynamic-base-id"], stdout=self.log, stderr=self.log
        )  # ends with the block
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.log.close()


def ask():
    connection = HTTPConnection(HOST, CLIENT, timeout=5)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status
    except OSError as e:
        return type(e).__name__
    finally:
        connection.close()


class Load:
    """Requests until the block ends."""

    def __enter__(self):
        self.answers, self.stop = [], threading.Event()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()
        return self

    def _run(self):
        while not self.stop.is_set():
            self.answers.append(ask())
            time.sleep(0.005)

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join()


class Mesh:
    def __init__(self, tmp_path, first):
        self.now = times.now().replace(microsecond=0)
        self.authority = Authority(rotation.begin(first, self.now, PACE))
        self.server = Pod("server", tmp_path / "server", self.authority)
        self.client = Pod("client", tmp_path / "client", self.authority)

    def step(self, wanted, hours=0.0):
        """What istiod does then. Certificates are those of now; only the rotation's clock goes on."""
        self.now += timedelta(hours=hours)
        state = rotation.step(self.authority.state, wanted, self.now, PACE)
        self.authority.state = rotation.announced(state, wanted.roots, self.now)

    def each(self, *doings):
        for doing in doings:
            doing()
            time.sleep(LATE_S)


@pytest.fixture
def mesh(tmp_path):
    root = certs.authority("first", times.now())
    made = Mesh(tmp_path, signer.self_signed(root))
    with made.server, made.client:
        deadline = time.monotonic() + 20
        while ask() != 200:
            assert time.monotonic() < deadline, (tmp_path / "client" / "log").read_text()
            time.sleep(0.1)
        yield made


def under(root, key=None):
    middle = certs.intermediate(root, "middle", times.now(), path_length=1)
    own = certs.intermediate(middle, "istio", times.now(), key=key)
    data = {"ca-cert.pem": own.certificate, "ca-key.pem": own.key, "root-cert.pem": root.certificate}
    return signer.read({**data, "cert-chain.pem": middle.certificate}, signer.PLUGGED, times.now())


def test_roots_intermediates_and_certificates_change_without_a_failed_request(mesh):
    plugged = certs.authority("plugged", times.now())
    second, third = under(plugged), under(plugged, rsa.generate_private_key(65537, 2048))
    client, server = mesh.client, mesh.server
    with Load() as load:
        mesh.each(client.renew, server.renew)
        mesh.step(second)  # another root is published; proxies learn of it one after the other
        mesh.each(server.follow, client.follow)
        mesh.step(second, 1)  # it signs: first for one of them, then for the other
        mesh.each(client.renew, server.renew)
        mesh.step(third)  # another intermediate, with an RSA key, signs at once
        mesh.each(server.renew, client.renew)
        mesh.step(third, 27)  # the former root is not trusted any more
        mesh.each(client.follow, server.follow)
    assert len(mesh.authority.state.trusted) == 1
    assert mesh.authority.state.signer == third
    assert len(load.answers) > 100
    assert set(load.answers) == {200}, load.answers


def test_a_certificate_or_an_authority_that_is_revoked_is_refused(mesh):
    root = certs.authority("plugged", times.now())
    own = certs.intermediate(root, "istio", times.now())

    def plugged(pair, crl):
        data = {"ca-cert.pem": pair.certificate, "ca-key.pem": pair.key, "root-cert.pem": root.certificate}
        return signer.read({**data, "ca-crl.pem": crl}, signer.PLUGGED, times.now())

    client, server = mesh.client, mesh.server
    mesh.authority.state = rotation.begin(plugged(own, listing(root)), mesh.now, PACE)
    mesh.each(client.renew, server.renew)
    assert client.trusted.crl
    assert ask() == 200, "lists that revoke nobody refuse nobody"
    mesh.step(plugged(own, listing(root) + listing(own, client.pair[0])))
    mesh.each(server.follow, client.follow)
    assert ask() == 503
    mesh.each(client.renew)
    assert ask() == 200, "with another certificate"
    second = certs.intermediate(root, "second", times.now())
    revoking = plugged(second, listing(root, own.certificate))
    mesh.step(revoking)  # first everybody gets a list of the next one
    mesh.each(server.follow, client.follow)
    assert ask() == 200
    mesh.step(revoking, 1)
    mesh.each(server.renew, client.follow)
    assert ask() == 503, "what the former intermediate has signed"
    mesh.each(client.renew)
    assert ask() == 200


def test_each_trust_domain_has_its_own_roots(mesh):
    """Whoever vouches for another domain does not vouch for the mesh's own."""
    theirs = Authority.create(times.now(), "their.domain")
    mesh.authority.domains = (("cluster.local", ()), ("their.domain", (theirs.root,)))
    client, server = mesh.client, mesh.server
    mesh.each(server.follow, client.follow)
    assert ask() == 200

    def by_them(domain):
        key = certs.new_key()
        signed = theirs.sign(pkcs10.request(key), Identity(domain, "default", NAMES["client"]), times.now())
        client.pair = signed, certs.key_pem(key)
        client.follow()

    mesh.each(lambda: by_them("their.domain"))
    assert ask() == 200
    mesh.each(lambda: by_them("cluster.local"))
    assert ask() == 503
    mesh.each(client.renew)
    assert ask() == 200


def test_without_the_overlap_requests_would_fail(mesh):
    """That the test above can fail."""
    other = signer.self_signed(certs.authority("other", times.now()))
    mesh.authority.state = rotation.begin(other, mesh.now, PACE)
    with Load() as load:
        mesh.each(mesh.client.renew, mesh.server.renew)
    assert 503 in load.answers
    assert ask() == 200
