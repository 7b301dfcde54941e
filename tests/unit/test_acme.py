"""Certificates of ACME servers: accounts, orders, proofs; against a server that looks at the hosts by itself."""

import asyncio
import contextlib
import ssl

import acme as ca
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec

from lateen.api import cert_manager as cm
from lateen.api.config import decode
from lateen.ca import serving
from lateen.control import acme
from lateen.control.fetching import Fetcher
from lateen.control.issuers import Unusable, chosen
from lateen.kit import certs, times

HOSTS = ("shop.example.com", "api.example.com")
AGAIN = {"renewBefore": "24h"}


class Host:
    """Stands for a gateway: shows on the loopback interface what it is told to."""

    def __init__(self):
        self.proofs, self.contexts, self.asked = {}, {}, []

    async def __aenter__(self):
        self._plain = await asyncio.start_server(self._http, "127.0.0.1", 0)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.set_alpn_protocols(["acme-tls/1"])
        context.sni_callback = self._named
        self._secure = await asyncio.start_server(self._end, "127.0.0.1", 0, ssl=context)
        self.ports = [s.sockets[0].getsockname()[1] for s in (self._plain, self._secure)]
        return self

    async def __aexit__(self, *_):
        self._plain.close()
        self._secure.close()

    async def _http(self, reader, writer):
        path = (await reader.readline()).split()[1].decode()
        self.asked.append(path)
        proof = self.proofs.get(path.rpartition("/")[2])
        status = "200 OK" if proof else "404 Not Found"
        writer.write(f"HTTP/1.1 {status}\r\n\r\n{proof or ''}".encode())
        await writer.drain()
        writer.close()

    async def _end(self, _, writer):
        writer.close()

    def _named(self, connection, name, _):
        connection.context = self.contexts[name]

    async def show(self, found, tmp):
        for one in found:
            if one.kind == acme.HTTP:
                self.proofs[one.token] = one.proof
                continue
            made = serving.proof(one.host, one.proof, times.now())
            file = tmp / f"{one.host}.pem"
            file.write_text(made.certificate + made.key)
            self.contexts[one.host] = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.contexts[one.host].load_cert_chain(file)
            self.contexts[one.host].set_alpn_protocols(["acme-tls/1"])


@contextlib.asynccontextmanager
async def running(**more):
    """An ACME server on the loopback interface, and the host that it looks at."""
    async with Host() as host:
        server = ca.Server("", dict.fromkeys(HOSTS, ("127.0.0.1", *host.ports)), **more)
        runner = web.AppRunner(server.app())
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=ca.served("localhost", server.root_key))
        await site.start()
        server.base = f"https://localhost:{runner.addresses[0][1]}"
        try:
            yield server, host
        finally:
            await runner.cleanup()


def account(server, **more):
    given = {"key": certs.new_key(), "email": "me@example.com", "authorities": ca.pem(server.root), **more}
    return acme.Account(f"{server.base}/dir", **given)


def anywhere(_):
    """The real rule refuses the loopback interface, where these servers are."""
    return ""


def order(tmp_path, names=HOSTS, kind=acme.HTTP, prepare=lambda _: None, shows=True, **more):
    """(server, host, certificate chain)"""
    key = ec.generate_private_key(ec.SECP256R1())
    of_account = {k: more.pop(k) for k in ("key", "binding") if k in more}
    binding = more.get("binding_of_server")
    refuses = more.pop("refuses", anywhere)

    async def go():
        async with running(binding=more.pop("binding_of_server", binding)) as (server, host):
            prepare(server)

            async def show(found):
                if shows:
                    await host.show(found, tmp_path)

            async with acme.Acme(Fetcher(refuses), account(server, **of_account)) as client:
                return server, host, await client.order(names, serving.request(key, names), lambda _: kind, show)

    server, host, chain = asyncio.run(go())
    certs.check_pair(chain, certs.key_pem(key))
    return server, host, chain


@pytest.mark.parametrize("kind", [acme.HTTP, acme.TLS])
def test_a_certificate_is_issued_after_the_server_has_looked_at_each_host(tmp_path, kind):
    server, host, chain = order(tmp_path, kind=kind)
    assert server.issued == [list(HOSTS)]
    assert certs.anchored(chain, ca.pem(server.root))
    assert len(host.asked) == (2 if kind == acme.HTTP else 0)
    assert set(host.contexts) == (set(HOSTS) if kind == acme.TLS else set())


def test_a_host_that_does_not_show_the_proof_gets_no_certificate_and_the_reason_is_told(tmp_path):
    with pytest.raises(acme.Refused, match=r"shop.example.com \(http-01\) is invalid: .*404"):
        order(tmp_path, shows=False)


class Forgetful(set):
    """The nonces of a server that does not know the first ones any more."""

    def __init__(self, forgets):
        self.forgets, self.asked = forgets, 0

    def __contains__(self, nonce):
        self.asked += 1
        return self.asked > self.forgets and super().__contains__(nonce)


@pytest.mark.parametrize("forgets", [1, 12])
def test_a_server_that_has_forgotten_nonces_is_asked_again(tmp_path, forgets):
    server, _, _ = order(tmp_path, prepare=lambda server: setattr(server, "nonces", Forgetful(forgets)))
    assert server.nonces.asked > forgets
    assert server.issued == [list(HOSTS)]


def test_a_server_that_takes_no_nonce_is_not_asked_for_ever(tmp_path):
    asked = Forgetful(10_000)
    with pytest.raises(acme.Refused, match="badNonce"):
        order(tmp_path, prepare=lambda server: setattr(server, "nonces", asked))
    assert asked.asked == acme.NONCES


def test_a_rate_limit_is_told_with_the_time_that_the_server_asks_for(tmp_path):
    def limit(server):
        server.refuse = ca.Problem(
            429, "rateLimited", "too many certificates for example.com", **{"Retry-After": "7200"}
        )

    with pytest.raises(acme.Refused, match=r"too many certificates for example.com \(rateLimited\)") as caught:
        order(tmp_path, prepare=limit)
    assert caught.value.after_s == 7200


def test_an_account_of_a_ca_that_knows_its_customers(tmp_path):
    known = ("kid-1", b"secret-of-the-customer")
    server, _, _ = order(tmp_path, binding=known, binding_of_server=known)
    assert server.issued == [list(HOSTS)]
    with pytest.raises(acme.Refused, match="the binding is not signed by you"):
        order(tmp_path, binding=("kid-1", b"another"), binding_of_server=known)
    with pytest.raises(acme.Refused, match="externalAccountRequired"):
        order(tmp_path, binding_of_server=known)


def test_a_server_whose_certificate_is_not_trusted_is_told_nothing(tmp_path):
    async def go():
        async with running() as (server, _):
            other, _ = ca.authority()
            async with acme.Acme(Fetcher(anywhere), account(server, authorities=ca.pem(other))) as client:
                await client.register()

    with pytest.raises(acme.Refused, match=r"is not trusted: .*caBundle"):
        asyncio.run(go())


@pytest.mark.parametrize(
    ("where", "says"),
    [
        ("https://169.254.169.254/order", "link-local"),
        ("http://localhost/order", "is not protected by TLS"),
        ("file:///etc/passwd", "not an http or https URL"),
    ],
)
def test_the_server_cannot_send_istiod_where_only_istiod_can_go(tmp_path, where, says):
    def elsewhere(server):
        server.redirected = where

    from lateen.kit import addresses

    def refuses(address):
        return "" if address in ("127.0.0.1", "::1", "localhost") else addresses.refused(address)

    with pytest.raises(acme.Refused, match=says):
        order(tmp_path, prepare=elsewhere, refuses=refuses)


def test_the_loopback_interface_is_refused(tmp_path):
    from lateen.kit import addresses

    with pytest.raises(acme.Refused, match="of this machine itself"):
        order(tmp_path, refuses=addresses.refused)


SOLVERS = {
    "server": "https://ca.example/dir",
    "solvers": [
        {"http01": {}},
        {"tlsALPN01": {}, "selector": {"dnsZones": ["example.com"]}},
        {"http01": {}, "selector": {"dnsZones": ["shop.example.com"]}},
        {"tlsALPN01": {}, "selector": {"dnsNames": ["www.shop.example.com"]}},
        {"tlsALPN01": {}, "selector": {"matchLabels": {"team": "a"}}},
    ],
}


@pytest.mark.parametrize(
    ("host", "labels", "kind"),
    [
        ("other.test", {}, acme.HTTP),
        ("other.test", {"team": "a"}, acme.TLS),
        ("api.example.com", {}, acme.TLS),
        ("notexample.com", {}, acme.HTTP),
        ("a.shop.example.com", {}, acme.HTTP),
        ("www.shop.example.com", {}, acme.TLS),
    ],
)
def test_the_most_specific_solver_is_chosen(host, labels, kind):
    assert chosen(decode(cm.ACME, SOLVERS), host, labels) == kind


def test_wildcards_and_names_without_a_solver_are_named():
    given = decode(cm.ACME, SOLVERS)
    with pytest.raises(Unusable, match="dns01"):
        chosen(given, "*.example.com", {})
    only = decode(cm.ACME, {"solvers": [{"http01": {}, "selector": {"dnsZones": ["example.com"]}}]})
    with pytest.raises(Unusable, match=r"no solver of the issuer applies to other\.test"):
        chosen(only, "other.test", {})


def wanted(**more):
    return decode(cm.Certificate, {"secretName": "s", "dnsNames": ["a.test"], "issuerRef": {"name": "i"}, **more})


def test_a_certificate_is_renewed_after_two_thirds_of_its_life_or_as_it_says_a_little_early():
    key = certs.new_key()
    chain = serving.by_itself(wanted(duration="90h"), key, times.now())
    start, end = certs.validity(chain)

    def hours(spec):
        return (serving.renewal(spec, chain) - start).total_seconds() / 3600

    life = (end - start).total_seconds() / 3600
    assert life * (2 / 3 - 0.02) <= hours(wanted()) <= life * 2 / 3
    assert life - 24 - life * 0.02 <= hours(wanted(**AGAIN)) <= life - 24
    assert life * 0.88 <= hours(wanted(renewBeforePercentage=10)) <= life * 0.9


@pytest.mark.parametrize("before", ["89h", "89h55m", "90h"])
def test_a_new_certificate_is_never_due_at_once_however_early_it_is_to_be_renewed(before):
    for _ in range(20):
        chain = serving.by_itself(wanted(duration="90h"), certs.new_key(), times.now())
        start, end = certs.validity(chain)
        at = serving.renewal(wanted(duration="90h", renewBefore=before), chain)
        assert start + (end - start) * 0.05 <= at <= start + (end - start) * 2 / 3


def test_a_certificate_of_an_hour_is_renewed_within_it():
    chain = serving.by_itself(wanted(duration="1h"), certs.new_key(), times.now())
    start, end = certs.validity(chain)
    assert start + (end - start) * 0.6 < serving.renewal(wanted(), chain) <= start + (end - start) * 2 / 3


def test_what_a_secret_holds_is_compared_with_what_is_asked_for():
    key = serving.new_key(None)
    chain, text = serving.by_itself(wanted(), key, times.now()), certs.key_pem(key)
    assert serving.unlike(wanted(), chain, text) == ""
    assert serving.unlike(wanted(dnsNames=["A.test"]), chain, text) == ""
    assert "it is for a.test, not for b.test" in serving.unlike(wanted(dnsNames=["b.test"]), chain, text)
    assert "another kind" in serving.unlike(wanted(privateKey={"algorithm": "ECDSA"}), chain, text)
    assert "cannot be used" in serving.unlike(wanted(), chain, certs.key_pem(certs.new_key()))


def test_a_ca_of_the_cluster_issues_leaves_and_authorities():
    root = certs.authority("root", times.now())
    key = certs.new_key()
    leaf = serving.by_authority(wanted(privateKey={"algorithm": "ECDSA"}), key, root, times.now())
    assert certs.anchored(leaf, root.certificate)
    below = serving.by_authority(wanted(isCA=True, commonName="below"), key, root, times.now())
    chain = serving.by_authority(
        wanted(), certs.new_key(), certs.Pair(below + root.certificate, certs.key_pem(key)), times.now()
    )
    assert len(certs.split(chain)) == 2
    assert certs.anchored(chain, root.certificate)
