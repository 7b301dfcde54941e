"""Certificates from a socket (as SPIRE's agent serves them) or from mounted files, in the place of istiod's. The server
is a fake of the same service, over a real gRPC library."""

import asyncio
import base64
import json
from datetime import timedelta

import grpc
import pytest
from envoy.extensions.transport_sockets.tls.v3 import secret_pb2
from envoy.extensions.transport_sockets.tls.v3 import tls_spiffe_validator_config_pb2 as validator_pb2
from envoy.service.discovery.v3 import discovery_pb2

from lateen.agent import bootstrap
from lateen.agent import options as options_of
from lateen.agent import proxy as proxy_of
from lateen.agent.certificates import Trusted, write_all, write_client, write_secrets
from lateen.agent.workload_api import METHOD, SECRET, Mounted, Socket
from lateen.kit import certs, tasks, times
from lateen.wire.node import NodeId

OWN = "spiffe://cluster.local/ns/shop/sa/cart"


class FromIstiod:
    """The certificate for istiod: there, and never renewed."""

    end = 0.0

    async def first(self):
        return 3600.0

    async def renew(self, wait):
        assert wait == 3600.0
        await asyncio.Event().wait()


class Spire(grpc.GenericRpcHandler):
    """Answers with what it has, and again whenever that has changed."""

    def __init__(self, path):
        self.path, self.root = path, certs.authority("spire", times.now())
        self.acknowledged, self.asked, self.changed = [], [], asyncio.Event()
        self.others, self.validates, self.refuses = {}, False, ""
        self.issue()

    def issue(self):
        self.pair = certs.issue(self.root, [OWN], times.now(), timedelta(hours=1))
        self.changed.set()
        self.changed = asyncio.Event()

    def service(self, details):
        if details.method != METHOD:
            return None
        return grpc.stream_stream_rpc_method_handler(
            self.stream, discovery_pb2.DiscoveryRequest.FromString, discovery_pb2.DiscoveryResponse.SerializeToString
        )

    async def stream(self, requests, context):
        if self.refuses:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, self.refuses)
        first = await anext(aiter(requests))
        self.asked.append((list(first.resource_names), first.type_url, first.node.id))
        version = 0
        while True:
            version, changed = version + 1, self.changed
            yield self.answer(str(version))
            request = await anext(aiter(requests))
            self.acknowledged.append((request.version_info, request.response_nonce))
            await changed.wait()

    def answer(self, version):
        own, roots = secret_pb2.Secret(name="default"), secret_pb2.Secret(name="ROOTCA")
        own.tls_certificate.certificate_chain.inline_bytes = self.pair.certificate.encode()
        own.tls_certificate.private_key.inline_bytes = self.pair.key.encode()
        if self.validates:
            validator = validator_pb2.SPIFFECertValidatorConfig()
            for name, root in {"cluster.local": self.root, **self.others}.items():
                domain = validator.trust_domains.add(name=name)
                domain.trust_bundle.inline_bytes = root.certificate.encode()
            roots.validation_context.custom_validator_config.name = "envoy.tls.cert_validator.spiffe"
            roots.validation_context.custom_validator_config.typed_config.Pack(validator)
        else:
            roots.validation_context.trusted_ca.inline_bytes = self.root.certificate.encode()
        out = discovery_pb2.DiscoveryResponse(version_info=version, nonce=f"n{version}", type_url=SECRET)
        for secret in (own, roots):
            out.resources.add().Pack(secret)
        return out

    async def __aenter__(self):
        self.server = grpc.aio.server()
        self.server.add_generic_rpc_handlers((self,))
        self.server.add_insecure_port(f"unix:{self.path}")
        await self.server.start()
        return self

    async def __aexit__(self, *_):
        await self.server.stop(0)


def written(directory, name):
    found = directory / f"sds-{name}.json"
    return json.loads(found.read_text())["resources"][0] if found.exists() else {}


def certificate(directory):
    inline = written(directory, "default").get("tls_certificate", {}).get("certificate_chain", {})
    return base64.b64decode(inline.get("inline_bytes", "")).decode()


def roots(directory, name):
    inline = written(directory, name).get("validation_context", {}).get("trusted_ca", {})
    return base64.b64decode(inline.get("inline_bytes", "")).decode()


async def until(test):
    async with asyncio.timeout(20):
        while not test():
            await asyncio.sleep(0.05)


@pytest.fixture
def place(tmp_path):
    (tmp_path / "proxy").mkdir()
    return tmp_path


class Broken(Mounted):
    async def _follow(self):
        raise RuntimeError("a bug")


def test_a_proxy_does_not_wait_for_ever_for_a_certificate_that_cannot_come(place):
    async def work():
        source = Broken(place, place / "proxy", write_secrets, FromIstiod())
        async with asyncio.timeout(20):
            with pytest.raises(RuntimeError, match="a bug"):
                await source.first()

    asyncio.run(work())


def test_the_earlier_end_of_two_certificates_is_the_one_to_be_warned_of(place):
    istiod = FromIstiod()
    source = Mounted(place, place / "proxy", write_secrets, istiod)
    assert source.end == 0.0
    istiod.end = 7.0
    assert source.end == 7.0
    pair = certs.issue(root := certs.authority("other", times.now()), [OWN], times.now(), timedelta(hours=1))
    source._take(pair, Trusted(root.certificate))
    assert source.end == 7.0
    istiod.end = times.now().timestamp() + 86400
    assert source.end == pytest.approx(times.now().timestamp() + 3600, abs=60)


def test_a_certificate_from_a_socket_is_what_envoy_gets(place):
    directory = place / "proxy"

    async def work():
        async with Spire(place / "socket") as spire:
            source = Socket(place / "socket", "sidecar~a~b.c~d", directory, write_secrets, FromIstiod())
            await source.first()
            following = tasks.spawn(source.renew(3600.0), "following")
            assert certificate(directory) == spire.pair.certificate
            assert roots(directory, "rootca") == spire.root.certificate
            assert not roots(directory, "istiod"), "istiod is verified by its own roots, which are elsewhere"
            assert source.end == pytest.approx(times.now().timestamp() + 3600, abs=60)
            assert spire.asked == [(["default", "ROOTCA"], SECRET, "sidecar~a~b.c~d")]
            spire.issue()
            await until(lambda: certificate(directory) == spire.pair.certificate)
            await until(lambda: spire.acknowledged == [("1", "n1"), ("2", "n2")])
            await tasks.cancel(following)

    asyncio.run(work())


def test_the_socket_may_go_and_come_back(place):
    directory = place / "proxy"

    async def work():
        source = Socket(place / "socket", "a", directory, write_secrets, FromIstiod())
        waiting = tasks.spawn(source.first(), "first")
        await asyncio.sleep(0.5)
        assert not waiting.done()
        async with Spire(place / "socket") as spire:
            await asyncio.wait_for(waiting, 20)
            former = spire.pair.certificate
        assert certificate(directory) == former
        async with Spire(place / "socket") as spire:
            await until(lambda: certificate(directory) == spire.pair.certificate)
        following = tasks.spawn(source.renew(3600.0), "following")
        await asyncio.sleep(0)
        await tasks.cancel(following)

    asyncio.run(work())


def test_a_certificate_without_its_key_is_not_taken(place):
    directory = place / "proxy"

    async def work():
        async with Spire(place / "socket") as spire:
            source = Socket(place / "socket", "a", directory, write_secrets, FromIstiod())
            await source.first()
            former = spire.pair
            spire.pair = certs.Pair(former.certificate, certs.key_pem(certs.new_key()))
            changed, spire.changed = spire.changed, asyncio.Event()
            changed.set()
            await until(lambda: len(spire.acknowledged) == 2)
            assert certificate(directory) == former.certificate
            spire.issue()
            await until(lambda: certificate(directory) == spire.pair.certificate)
            following = tasks.spawn(source.renew(3600.0), "following")
            await asyncio.sleep(0)
            await tasks.cancel(following)

    asyncio.run(work())


def test_a_certificate_in_mounted_files_is_followed(place):
    directory, source = place / "proxy", place / "mounted"
    source.mkdir()
    root = certs.authority("elsewhere", times.now())

    def mount(key=None):
        pair = certs.issue(root, [OWN], times.now(), timedelta(hours=1))
        (source / "cert-chain.pem").write_text(pair.certificate)
        (source / "key.pem").write_text(key or pair.key)
        (source / "root-cert.pem").write_text(root.certificate)
        return pair

    async def work():
        first = mount()
        found = Mounted(source, directory, write_secrets, FromIstiod())
        await found.first()
        following = tasks.spawn(found.renew(3600.0), "following")
        assert (certificate(directory), roots(directory, "rootca")) == (first.certificate, root.certificate)
        mount("nonsense")
        await asyncio.sleep(2.5)
        assert certificate(directory) == first.certificate
        second = mount()
        await until(lambda: certificate(directory) == second.certificate)
        await tasks.cancel(following)

    asyncio.run(work())


@pytest.mark.parametrize("name", ["/etc/socket", "../socket", "spire.sock"])
def test_a_socket_that_is_named_must_be_there(name):
    with pytest.raises(ValueError, match="WORKLOAD_IDENTITY_SOCKET_FILE"):
        proxy_of.Agent(options_of.Options(env={"WORKLOAD_IDENTITY_SOCKET_FILE": name}))


@pytest.mark.parametrize("value", ["web", "70000", "15001"])
def test_a_port_of_the_http_proxy_that_cannot_be_is_named_in_the_log(value, caplog):
    """In the environment of the pod's own container, which nobody validates."""
    proxy_of.Agent(options_of.Options(env={"ISTIO_META_HTTP_PROXY_PORT": value}))
    assert "ISTIO_META_HTTP_PROXY_PORT is ignored" in caplog.text
    assert value in caplog.text


def test_spires_validator_has_the_roots_of_each_trust_domain(place):
    directory, theirs = place / "proxy", certs.authority("theirs", times.now())

    def of_domains():
        validator = written(directory, "rootca")["validation_context"].get("custom_validator_config", {})
        found = {}
        for one in validator.get("typed_config", {}).get("trust_domains", []):
            found[one["name"]] = base64.b64decode(one["trust_bundle"]["inline_bytes"]).decode()
        return found

    async def work():
        async with Spire(place / "socket") as spire:
            spire.validates = True
            source = Socket(place / "socket", "a", directory, write_secrets, FromIstiod())
            await source.first()
            following = tasks.spawn(source.renew(3600.0), "following")
            assert of_domains() == {"cluster.local": spire.root.certificate}
            assert (directory / "root-cert.pem").read_text() == spire.root.certificate
            spire.others["their.domain"] = theirs
            spire.issue()
            await until(lambda: len(of_domains()) == 2)
            assert of_domains()["their.domain"] == theirs.certificate
            assert (directory / "root-cert.pem").read_text() == spire.root.certificate, "theirs vouch for them alone"
            await tasks.cancel(following)

    asyncio.run(work())


def test_what_the_server_says_against_the_workload_is_in_the_log(place, caplog):
    async def work():
        async with Spire(place / "socket") as spire:
            spire.refuses = 'workload is not authorized for the requested identities ["default"]'
            source = Socket(place / "socket", "a", place / "proxy", write_secrets, FromIstiod())
            waiting = tasks.spawn(source.first(), "first")
            await until(lambda: spire.refuses in caplog.text)
            spire.refuses = ""
            await asyncio.wait_for(waiting, 20)
            following = tasks.spawn(source.renew(3600.0), "following")
            await asyncio.sleep(0)
            await tasks.cancel(following)

    asyncio.run(work())


@pytest.mark.parametrize("given", [False, True])
def test_istiod_knows_the_proxy_by_the_certificate_that_it_has_issued(given, tmp_path):
    known = f"{bootstrap.DIRECTORY}/istiod" if given else bootstrap.DIRECTORY
    node = NodeId("sidecar", "10.0.0.1", "a", "b", "c")
    made = bootstrap.bootstrap(bootstrap.Proxy(node, {}, "a", "istiod.istio-system.svc", known=known))
    (ads,) = [c for c in made["static_resources"]["clusters"] if c["name"] == "xds-grpc"]
    common = ads["transport_socket"]["typed_config"]["common_tls_context"]
    (own,) = common["tls_certificate_sds_secret_configs"]
    roots = common["combined_validation_context"]["validation_context_sds_secret_config"]
    root = certs.authority("istiod", times.now())
    pair = certs.issue(root, [OWN], times.now(), timedelta(hours=1))
    write = write_client if given else write_all
    write(tmp_path, pair.certificate, pair.key, Trusted(root.certificate))
    for wanted in (own, roots):
        source = wanted["sds_config"]["path_config_source"]
        assert source["watched_directory"]["path"] == known
        assert source["path"].startswith(f"{known}/sds-")
        (found,) = json.loads((tmp_path / source["path"].rpartition("/")[2]).read_text())["resources"]
        assert found["name"] == wanted["name"]
    assert (own["name"], roots["name"]) == ("ISTIOD-CLIENT" if given else "default", "ISTIOD")
