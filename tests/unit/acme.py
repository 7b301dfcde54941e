"""An ACME server (RFC 8555) that looks at the hosts itself, by HTTP-01 and TLS-ALPN-01: a program for pods, and a class
for tests in one process. It checks signatures, nonces and requests as a CA does, and issues with a root of its own."""

import asyncio
import base64
import hashlib
import json
import os
import secrets
import ssl
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from aiohttp import web
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, hmac, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

IDENTIFIER = x509.ObjectIdentifier("1.3.6.1.5.5.7.1.31")


def b64(raw):
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def unb64(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


class Problem(Exception):
    def __init__(self, status, kind, detail="", **headers):
        super().__init__(detail)
        self.status, self.kind, self.detail, self.headers = status, kind, detail, headers


def authority():
    key = ec.generate_private_key(ec.SECP256R1())
    return x509_of("Test root", key.public_key(), "Test root", key, ca=True), key


def x509_of(name, public, issuer, signer, ca=False, names=(), days=90.0):
    now = datetime.now(UTC)

    def subject(text):
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)] if text else [])

    out = (
        x509.CertificateBuilder()
        .subject_name(subject(name))
        .issuer_name(subject(issuer))
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca, None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    if ca:
        out = out.add_extension(x509.KeyUsage(True, *[False] * 4, True, True, False, False), critical=True)
    else:
        usages = [ExtendedKeyUsageOID.SERVER_AUTH]
        out = out.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    if names:
        found = [x509.DNSName(n) for n in names]
        out = out.add_extension(x509.SubjectAlternativeName(found), critical=not name)
    return out.sign(signer, hashes.SHA256())


def pem(certificate):
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


class Server:
    def __init__(self, base, places, days=90.0, binding=None):
        """``base``: its own URL; ``places``: host -> (address, port for HTTP, port for TLS); ``binding``: (identifier,
        key) of the only external account that may register."""
        self.base, self.places, self.days, self.binding = base, places, days, binding
        self.root, self.root_key = authority()
        self.nonces, self.accounts, self.orders, self.authorizations, self.issued = set(), {}, {}, {}, []
        self.refuse = None
        """A Problem that every new order gets."""
        self.redirected = None
        """Where the directory says that orders are made, instead of here."""

    def app(self):
        app = web.Application(middlewares=[self._answered])
        app.router.add_get("/dir", self.directory)
        app.router.add_route("HEAD", "/nonce", self.nonce)
        for path in ("account", "order", "order/{id}", "authz/{id}", "chall/{id}", "final/{id}", "cert/{id}"):
            app.router.add_post(f"/{path}", self.posted)
        return app

    @web.middleware
    async def _answered(self, request, handler):
        try:
            answer = await handler(request)
        except Problem as p:
            body = {"type": f"urn:ietf:params:acme:error:{p.kind}", "detail": p.detail}
            answer = web.json_response(body, status=p.status, headers=p.headers)
        nonce = secrets.token_urlsafe(16)
        self.nonces.add(nonce)
        answer.headers["Replay-Nonce"] = nonce
        return answer

    async def directory(self, _):
        orders = self.redirected or f"{self.base}/order"
        return web.json_response(
            {"newNonce": f"{self.base}/nonce", "newAccount": f"{self.base}/account", "newOrder": orders}
        )

    async def nonce(self, _):
        return web.Response()

    async def posted(self, request):
        """Checks the signature, then does what the path says."""
        text = await request.json()
        head = json.loads(unb64(text["protected"]))
        if head["url"] != f"{self.base}{request.path}" or head["alg"] != "ES256":
            raise Problem(400, "malformed", "another url, or another algorithm")
        if head.get("nonce") not in self.nonces:
            raise Problem(400, "badNonce", "not one of mine")
        self.nonces.discard(head["nonce"])
        what = request.path.split("/")[1]
        jwk = head.get("jwk") if what == "account" else self.accounts.get(head.get("kid"))
        if jwk is None:
            raise Problem(400, "accountDoesNotExist", "who are you?")
        numbers = [int.from_bytes(unb64(jwk[n]), "big") for n in "xy"]
        raw = unb64(text["signature"])
        signature = encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
        signed = f"{text['protected']}.{text['payload']}".encode()
        try:
            key = ec.EllipticCurvePublicNumbers(*numbers, ec.SECP256R1()).public_key()
            key.verify(signature, signed, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            raise Problem(403, "unauthorized", "the signature is wrong") from None
        payload = json.loads(unb64(text["payload"])) if text["payload"] else None
        return await getattr(self, f"_{what}")(request, jwk, payload)

    async def _account(self, _, jwk, payload):
        if not payload.get("termsOfServiceAgreed"):
            raise Problem(403, "userActionRequired", "agree first")
        if self.binding:
            self._bound(jwk, payload.get("externalAccountBinding"))
        url = next((u for u, known in self.accounts.items() if known == jwk), None)
        new = url is None
        url = url or f"{self.base}/accounts/{len(self.accounts)}"
        self.accounts[url] = jwk
        return web.json_response({"status": "valid"}, status=201 if new else 200, headers={"Location": url})

    def _bound(self, jwk, given):
        if given is None:
            raise Problem(403, "externalAccountRequired", "who knows you?")
        head = json.loads(unb64(given["protected"]))
        mac = hmac.HMAC(self.binding[1], hashes.SHA256())
        mac.update(f"{given['protected']}.{given['payload']}".encode())
        if head["kid"] != self.binding[0] or json.loads(unb64(given["payload"])) != jwk:
            raise Problem(403, "unauthorized", "another account")
        try:
            mac.verify(unb64(given["signature"]))
        except InvalidSignature:
            raise Problem(403, "unauthorized", "the binding is not signed by you") from None

    async def _order(self, request, jwk, payload):
        id_ = request.match_info.get("id")
        if id_ is None:
            if self.refuse:
                raise self.refuse
            id_ = secrets.token_hex(4)
            names = [i["value"] for i in payload["identifiers"]]
            made = []
            for host in names:
                token = secrets.token_urlsafe(24)
                self.authorizations[token] = {"host": host, "status": "pending", "jwk": jwk}
                made.append(token)
            self.orders[id_] = {"names": names, "authorizations": made, "status": "pending"}
        order = self.orders[id_]
        states = {self.authorizations[t]["status"] for t in order["authorizations"]}
        if order["status"] == "pending" and states == {"valid"}:
            order["status"] = "ready"
        if "invalid" in states:
            order["status"] = "invalid"
        body = {
            "status": order["status"],
            "authorizations": [f"{self.base}/authz/{t}" for t in order["authorizations"]],
            "finalize": f"{self.base}/final/{id_}",
        }
        if order["status"] == "valid":
            body["certificate"] = f"{self.base}/cert/{id_}"
        status = 201 if payload else 200
        return web.json_response(body, status=status, headers={"Location": f"{self.base}/order/{id_}"})

    async def _authz(self, request, *_):
        token = request.match_info["id"]
        found = self.authorizations[token]
        challenges = [
            {"type": kind, "token": token, "url": f"{self.base}/chall/{token}:{kind}"}
            | ({"error": {"detail": found["error"]}} if "error" in found else {})
            for kind in ("dns-01", "http-01", "tls-alpn-01")
        ]
        body = {
            "status": found["status"],
            "identifier": {"type": "dns", "value": found["host"]},
            "challenges": challenges,
        }
        return web.json_response(body)

    async def _chall(self, request, jwk, _):
        token, _, kind = request.match_info["id"].partition(":")
        found = self.authorizations[token]
        mark = hashlib.sha256(json.dumps(jwk, sort_keys=True, separators=(",", ":")).encode()).digest()
        proof = f"{token}.{b64(mark)}"
        try:
            await asyncio.wait_for(getattr(self, kind.replace("-", "_"))(found["host"], token, proof), 10)
            found["status"] = "valid"
        except (OSError, AssertionError, TimeoutError) as e:
            found |= {"status": "invalid", "error": f"{found['host']}: {type(e).__name__} {e}"}
        return web.json_response({"status": "processing"})

    async def http_01(self, host, token, proof):
        address, port, _ = self.places[host]
        reader, writer = await asyncio.open_connection(address, port)
        path = f"/.well-known/acme-challenge/{token}"
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        answer = (await reader.read()).decode()
        writer.close()
        assert answer.startswith("HTTP/1.1 200"), answer[:80]
        assert answer.rpartition("\r\n\r\n")[2] == proof, "another proof"

    async def tls_alpn_01(self, host, _, proof):
        address, _, port = self.places[host]
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols(["acme-tls/1"])
        _, writer = await asyncio.open_connection(address, port, ssl=context, server_hostname=host)
        shown = writer.get_extra_info("ssl_object")
        assert shown.selected_alpn_protocol() == "acme-tls/1", "another protocol"
        leaf = x509.load_der_x509_certificate(shown.getpeercert(binary_form=True))
        writer.close()
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert list(names) == [x509.DNSName(host)], "for other names"
        found = leaf.extensions.get_extension_for_oid(IDENTIFIER)
        assert found.critical, "not critical"
        assert found.value.value == b"\x04\x20" + hashlib.sha256(proof.encode()).digest(), "another proof"

    async def _final(self, request, _, payload):
        id_ = request.match_info["id"]
        order = self.orders[id_]
        csr = x509.load_der_x509_csr(unb64(payload["csr"]))
        names = csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        asked = {n.lower() for n in names.get_values_for_type(x509.DNSName)}
        if order["status"] != "ready" or not csr.is_signature_valid or asked != set(order["names"]):
            raise Problem(403, "badCSR", "not what was ordered")
        leaf = x509_of("", csr.public_key(), "Test root", self.root_key, names=order["names"], days=self.days)
        order |= {"status": "valid", "chain": pem(leaf)}
        self.issued.append(order["names"])
        return web.json_response({"status": "processing"})

    async def _cert(self, request, *_):
        return web.Response(text=self.orders[request.match_info["id"]]["chain"])


def served(host, root_key):
    """The TLS context of the server itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    leaf = x509_of("", key.public_key(), "Test root", root_key, names=[host])
    file = Path(f"/tmp/acme-{os.getpid()}-{secrets.token_hex(4)}.pem")
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.write_text(pem(leaf) + private.decode())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    file.unlink()
    return context


def main(host, *places):
    """``places``: host=address:http:tls. It listens on 14000; its root is in the environment."""
    known = {}
    for text in places:
        name, _, place = text.partition("=")
        address, plain, secure = place.rsplit(":", 2)
        known[name] = (address, int(plain), int(secure))
    server = Server(f"https://{host}:14000", known)
    server.root_key = serialization.load_pem_private_key(os.environ["ROOT_KEY"].encode(), None)
    server.root = x509.load_pem_x509_certificate(os.environ["ROOT"].encode())
    web.run_app(server.app(), port=14000, ssl_context=served(host, server.root_key), print=None)


if __name__ == "__main__":
    main(*sys.argv[1:])
