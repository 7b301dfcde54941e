"""istiod's certificate service for tests: tokens, certificate requests, machines, and a CA."""

import asyncio
import json
import ssl
from contextlib import asynccontextmanager
from datetime import timedelta
from ipaddress import IPv4Address

from aiohttp import web
from apiserver import Cluster
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from lateen.agent.certificates import Certificates, write_files
from lateen.agent.istiod import Istiod
from lateen.api import kinds
from lateen.ca.authority import Authority, Identity
from lateen.control import serving
from lateen.control.ca_service import CaService
from lateen.kit import certs, http, times

ME = Identity("cluster.local", "istio-system", "istiod")
OWN = "spiffe://cluster.local/ns/default/sa/default"


class Reviewer:
    """istiod's client, as far as it is asked here."""

    def __init__(self, cluster):
        self.cluster = cluster

    async def request(self, kind, _namespace, _name, _subresource, body):
        assert kind is kinds.TOKEN_REVIEW
        code, answer = await self.cluster.send("POST", "/apis/authentication.k8s.io/v1/tokenreviews", body)
        assert code == 201, answer
        return answer


class World:
    def __init__(self, ttl=timedelta(hours=24)):
        self.cluster = Cluster()
        self.authority = Authority.create(times.now(), "cluster.local")
        self.aliases = ()
        self.described = {("default", "web"): "web;default;web;v1;web;v1"}
        self.machines = {("default", "group", "default")}
        self.service = CaService(
            Reviewer(self.cluster), self.authority, "cluster.local", ttl,
            machines=lambda *who: who in self.machines, aliases=lambda: self.aliases,
            describes=lambda _cluster, *pod: self.described.get(pod, ""),
        )  # fmt: skip
        self.pod("web")
        self.of_web, self.of_machine = self.token(), self.token(pod=None)

    def pod(self, name):
        spec = {"containers": [{"name": "a", "image": "a"}]}
        self.cluster.must("POST", "/api/v1/namespaces/default/pods", {"metadata": {"name": name}, "spec": spec})

    def account(self, namespace="default"):
        return self.cluster.must("GET", f"/api/v1/namespaces/{namespace}/serviceaccounts/default")["metadata"]

    def token(self, *, namespace="default", audience="istio-ca", seconds=600, pod="web"):
        found = {}
        if pod:
            found = {"pod": self.cluster.must("GET", f"/api/v1/namespaces/{namespace}/pods/{pod}")["metadata"]}
        uid = self.account(namespace)["uid"]
        return self.cluster.tokens.issue(namespace, "default", uid, [audience], seconds, found)[0]

    @asynccontextmanager
    async def serving(self):
        certificate = serving.Certificate(self.authority, ["localhost"], ME)
        routes = [web.post("/certificates", self.service.sign), web.post("/roots", self.service.roots)]
        runner = await serving.http(routes, 0, certificate.asking, "127.0.0.1")
        self.port, self.certificate = runner.addresses[0][1], certificate
        try:
            yield self.port
        finally:
            await runner.cleanup()

    async def ask(self, token, body, path="/certificates", **headers):
        found = await http.fetch(
            "127.0.0.1", self.port, path, method="POST", body=json.dumps(body).encode() if body is not None else b"",
            ssl=ssl.create_default_context(cadata=self.authority.root), server_hostname="localhost",
            headers={**({"authorization": f"Bearer {token}"} if token is not None else {}), **headers},
        )  # fmt: skip
        return found.status, json.loads(found.body)

    def asked(self, *requests):
        """The answers to (token, body) one after the other."""

        async def work():
            async with self.serving():
                return [await self.ask(token, body) for token, body in requests]

        return asyncio.run(work())


def csr(*names, common="", ca=False, key=None):
    made = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common)] if common else [])
    )
    if names:
        made = made.add_extension(x509.SubjectAlternativeName(list(names)), False)
    if ca:
        made = made.add_extension(x509.BasicConstraints(True, None), True)
    signed = made.sign(key or certs.new_key(), hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM).decode()


def names_in(chain):
    found = x509.load_pem_x509_certificate(chain.encode())
    sans = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    basic = found.extensions.get_extension_for_class(x509.BasicConstraints).value
    names = [str(n.value) for n in sans if not isinstance(n, x509.OtherName)]
    return names, found.subject.rfc4514_string(), basic.ca


ADMIN = x509.UniformResourceIdentifier("spiffe://cluster.local/ns/kube-system/sa/admin")
ASKED = {
    "another identity": csr(ADMIN),
    "one's own and another": csr(x509.UniformResourceIdentifier(OWN), ADMIN),
    "a DNS name": csr(x509.DNSName("istiod.istio-system.svc")),
    "an address": csr(x509.IPAddress(IPv4Address("10.96.0.1"))),
    "a subject": csr(common="istiod.istio-system.svc"),
    "a CA": csr(ca=True),
    "a NUL": csr(x509.OtherName(certs.DESCRIPTION, b"\x0c\x05a\0b\0c"), x509.DNSName("a\0.b")),
    "an address of mail": csr(x509.RFC822Name("admin@cluster.local")),
    "a line break": csr(x509.UniformResourceIdentifier("spiffe://cluster.local/ns/a/sa/b\nspiffe://x/ns/a/sa/b")),
}


class Pod:
    """An agent's files: roots and token as Kubernetes mounts them."""

    def __init__(self, world, directory, **more):
        self.world, self.directory = world, directory
        self.root, self.token = directory / "mounted.pem", directory / "token"
        self.root.write_text(world.authority.root)
        self.token.write_text(world.of_web)
        istiod = Istiod("localhost", None, self.root, self.token, world.port)
        self.certificates = Certificates(istiod, directory, write_files, **more)

    def written(self):
        return (self.directory / "cert-chain.pem").read_text(), (self.directory / "root-cert.pem").read_text()

    async def until(self, test):
        async with asyncio.timeout(30):
            while not test(*self.written()):
                await asyncio.sleep(0.05)


class Machine(Pod):
    """An agent that shows its certificate, and whose token has expired after the first one."""

    def __init__(self, world, directory, token=""):
        super().__init__(world, directory, asks="everything")
        self.token.write_text(token or world.of_machine)
        istiod = Istiod("localhost", None, self.root, self.token, world.port, shows=directory)
        self.certificates = Certificates(istiod, directory, write_files, group="group")

    async def expired(self):
        await self.certificates.first()
        self.token.write_text("expired")
        return self.written()[0]
