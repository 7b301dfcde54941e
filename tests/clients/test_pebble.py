"""Certificates of Pebble, Let's Encrypt's ACME server for tests, which looks at the hosts by itself.

It refuses nonces at random, as it does by default.
"""

import asyncio
import contextlib
import json
import os
import socket
import socketserver
import subprocess
import threading
from datetime import timedelta

import binaries
import dnslib
import pytest
from test_acme import Host, anywhere
from world import free_port

from lateen.ca import serving
from lateen.control import acme
from lateen.control.fetching import Fetcher
from lateen.kit import certs, times

pytestmark = pytest.mark.system
HOSTS = ("shop.example.com", "api.example.com")


class Names(socketserver.BaseRequestHandler):
    """A DNS server for which every name is this machine."""

    def handle(self):
        raw, sock = self.request
        asked = dnslib.DNSRecord.parse(raw)
        answer = asked.reply()
        if asked.q.qtype == dnslib.QTYPE.A:
            answer.add_answer(dnslib.RR(asked.q.qname, dnslib.QTYPE.A, rdata=dnslib.A("127.0.0.1"), ttl=1))
        sock.sendto(answer.pack(), self.client_address)


@contextlib.contextmanager
def names():
    with socketserver.UDPServer(("127.0.0.1", 0), Names) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@contextlib.contextmanager
def pebble(ports, folder):
    """(its URL, the authority of its own certificate)"""
    ca = certs.authority("pebble", times.now())
    own = certs.issue(ca, ["localhost"], times.now(), timedelta(hours=1))
    (folder / "cert.pem").write_text(own.certificate)
    (folder / "key.pem").write_text(own.key)
    port = free_port()
    config = {
        "listenAddress": f"127.0.0.1:{port}",
        "managementListenAddress": f"127.0.0.1:{free_port()}",
        "certificate": str(folder / "cert.pem"),
        "privateKey": str(folder / "key.pem"),
        "httpPort": ports[0],
        "tlsPort": ports[1],
        "ocspResponderURL": "",
        "externalAccountBindingRequired": False,
        "retryAfter": {"authz": 1, "order": 1},
    }
    (folder / "config.json").write_text(json.dumps({"pebble": config}))
    environment = os.environ | {"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "30"}
    with names() as dns, (folder / "log").open("w") as log:
        command = [binaries.needed("pebble"), "-config", str(folder / "config.json"), "-dnsserver", dns]
        with subprocess.Popen(command, stdout=log, stderr=log, env=environment) as process:
            try:
                for _ in range(200):
                    assert process.poll() is None, (folder / "log").read_text()
                    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                        break
                    threading.Event().wait(0.05)
                yield f"https://localhost:{port}/dir", ca.certificate
            finally:
                process.terminate()
                process.wait(10)


def ordered(kind, folder, shows=True):
    key = serving.new_key(None)

    async def go():
        async with Host() as host:
            with pebble(host.ports, folder) as (url, authority):

                async def show(found):
                    if shows:
                        await host.show(found, folder)

                account = acme.Account(url, certs.new_key(), "me@example.com", authority)
                async with acme.Acme(Fetcher(anywhere), account) as client:
                    return await client.order(HOSTS, serving.request(key, HOSTS), lambda _: kind, show)

    chain = asyncio.run(go())
    certs.check_pair(chain, certs.key_pem(key))
    return chain


@pytest.mark.parametrize("kind", [acme.HTTP, acme.TLS])
def test_pebble_issues_a_certificate_after_it_has_looked_at_the_hosts(kind, tmp_path):
    chain = ordered(kind, tmp_path)
    assert len(certs.split(chain)) >= 2
    certs.check_authorities(chain)


def test_pebble_refuses_hosts_that_show_nothing_and_its_reason_is_told(tmp_path):
    with pytest.raises(acme.Refused, match=r"\(http-01\) is invalid: .*404"):
        ordered(acme.HTTP, tmp_path, shows=False)
