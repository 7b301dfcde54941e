"""Sends what nobody should send: python3 junk.py WHAT '[[host, port]]' '[[host, port of UDP]]'. Run in a pod, and on
the host. WHAT is ``cases``, ``mutants`` or ``silence``. Prints how many connections each target has accepted
and how many were tried: {"host:port": [opened, tried]}."""

import collections
import contextlib
import json
import random
import socket
import ssl
import struct
import sys
import time
import zlib
from concurrent.futures import ThreadPoolExecutor

random.seed(7)
POST = b"POST %s HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def frame(kind, flags, stream, body=b""):
    return struct.pack(">I", len(body))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + body


def any_frame():
    return frame(random.randrange(12), random.randrange(256), random.randrange(9), random.randbytes(40))


def gzip(text):
    made = zlib.compressobj(9, zlib.DEFLATED, 31)
    return made.compress(text) + made.flush()


def head(first, *lines):
    """A request of HTTP/1.1 up to its body."""
    return "\r\n".join([first, *lines, "", ""]).encode("latin-1")


def nested(levels):
    """A message of Protocol Buffers, each with another one in its first field."""
    made = b""
    for _ in range(levels):
        size, length = len(made), b""
        while size > 127:
            length, size = length + bytes([size & 127 | 128]), size >> 7
        made = b"\x0a" + length + bytes([size]) + made
    return made


BOMB, DEEP = gzip(bytes(100_000_000)), nested(5000)
HEADERS = bytes.fromhex("8286418aa0e41d139d09b8f01e07")  # GET / with an authority, in HPACK
OPENED = PREFACE + frame(4, 0, 0)
CASES = {
    "nothing": b"",
    "one byte": b"\x16",
    "random": random.randbytes(4096),
    "a hello of TLS with a wrong length": b"\x16\x03\x01\xff\xff\x01\x00" + random.randbytes(2000),
    "a request without an end": b"GET / HTTP/1.1\r\nhost: a\r\n" + b"x: y\r\n" * 500,
    "a long path": b"GET /" + b"a" * 200000 + b" HTTP/1.1\r\nhost: a\r\n\r\n",
    "a body without an end": POST % (b"/validate", 99999999999) + b"[" * 100000,
    "two lengths": b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
    "deep JSON": POST % (b"/inject", 400000) + b"[" * 400000,
    "settings": OPENED * 2000,
    "pings": OPENED + frame(6, 0, 0, b"12345678") * 2000,
    "resets": OPENED
    + b"".join(frame(1, 4, 2 * i + 1, HEADERS) + frame(3, 0, 2 * i + 1, b"\0\0\0\x08") for i in range(1500)),
    "continuations": OPENED + frame(1, 0, 1, HEADERS) + frame(9, 0, 1, b"\x40\x01a\x01b" * 200) * 500,
    "priorities": OPENED + frame(2, 0, 1, b"\0\0\0\0\x10") * 2000,
    "empty frames": OPENED + frame(1, 4, 1, HEADERS) + frame(0, 0, 1) * 2000,
    "random frames": PREFACE + b"".join(any_frame() for _ in range(500)),
    "a message of gRPC that is none": OPENED + frame(1, 4, 1, HEADERS) + frame(0, 1, 1, random.randbytes(500)),
    "large settings": OPENED + frame(4, 0, 0, b"\0\4\xff\xff\xff\xff" * 2500),
    "a host of 300 characters": head("GET / HTTP/1.1", "host: " + "a" * 300),
    "a timeout of gRPC without end": head(
        "POST /a.b/C HTTP/1.1",
        "host: a",
        "content-type: application/grpc",
        "te: trailers",
        f"grpc-timeout: {'9' * 40}S",
    ),
    "headers of traces that are none": head(
        "GET / HTTP/1.1", "host: a", "traceparent: \xff\xfe-\xe9", "x-b3-traceid: \xe9", "x-request-id: \xff" * 50
    ),
    "headers that only proxies may send": head(
        "GET / HTTP/1.1", "host: a", "x-envoy-original-path: \xff", "x-forwarded-for: fe80::1%eth0, \xff, 1.2.3.4.5"
    ),
    "data before an upgrade": head("GET / HTTP/1.1", "host: a", "connection: upgrade", "upgrade: websocket")
    + b"a" * 5000,
    "data before a tunnel": head("CONNECT a:1 HTTP/1.1", "host: a:1") + b"a" * 5000,
    "chunks of one byte": head("POST / HTTP/1.1", "host: a", "transfer-encoding: chunked") + b"1\r\na\r\n" * 20000,
    "the PROXY protocol": b"PROXY TCP4 \xff\xfe 1.2.3.4 99999 -1\r\n" + head("GET / HTTP/1.1", "host: a"),
    "the PROXY protocol, version 2": b"\r\n\r\n\0\r\nQUIT\n\x20\x11\xff\xff" + random.randbytes(300),
    "an alert of TLS that is none": b"\x15\x03\x03\0\2\2\xfe",
    **{
        f"{what} to {path}": head(
            f"POST {path} HTTP/1.1", "host: a", kind, *encoded, f"content-length: {len(body)}", "connection: close"
        )
        + body
        for path in ("/validate", "/inject", "/certificates", "/api/v2/spans", "/v1/traces", "/api/query")
        for what, kind, encoded, body in (
            ("a bomb", "content-type: application/json", ["content-encoding: gzip"], BOMB),
            ("a deep message", "content-type: application/x-protobuf", [], DEEP),
        )
    },
}
LOOSE = ssl.create_default_context()
LOOSE.check_hostname, LOOSE.verify_mode = False, ssl.CERT_NONE
LOOSE.set_alpn_protocols(["h2", "http/1.1"])
IDLE, MUTANTS_S, SILENT_S = 20, 20, 9


COUNTED = collections.defaultdict(lambda: [0, 0])
"""Target -> connections that were opened, and that were tried. Each target has one thread."""


@contextlib.contextmanager
def opened(address):
    """A connection, counted. Raises OSError if the target accepts none."""
    counts = COUNTED[f"{address[0]}:{address[1]}"]
    counts[1] += 1
    with socket.create_connection(address, 2) as s:
        counts[0] += 1
        yield s


def send(address, body, tls):
    try:
        with opened(address) as s:
            s.settimeout(0.3)
            if tls:
                s = LOOSE.wrap_socket(s)
            s.sendall(body)
            while s.recv(65536):
                pass
    except OSError:
        pass


def speaks_tls(address):
    try:
        with socket.create_connection(address, 2) as s:
            s.settimeout(2)
            LOOSE.wrap_socket(s).close()
            return True
    except OSError:
        return False


def cases(address):
    tls = speaks_tls(address)
    for body in CASES.values():
        send(address, body, False)
        if tls:
            send(address, body, True)


def mutant(chance):
    """A case with bytes changed, cut off, repeated, or followed by another case."""
    body = bytearray(chance.choice(SHORT))
    for _ in range(chance.randrange(1, 8)):
        at = chance.randrange(len(body) + 1)
        what = chance.randrange(4)
        if what == 0:
            body[at : at + 1] = chance.randbytes(1)
        elif what == 1:
            del body[at : at + chance.randrange(1, 40)]
        elif what == 2:
            body[at:at] = body[at : at + 40] * chance.randrange(1, 30)
        else:
            body[at:at] = chance.choice(SHORT)[:2000]
    return bytes(body)


SHORT = [body for body in CASES.values() if len(body) < 10_000]


def mutants(address):
    chance, tls, end = random.Random(str(address)), speaks_tls(address), time.monotonic() + MUTANTS_S
    while time.monotonic() < end:
        send(address, mutant(chance), tls and chance.random() < 0.7)


def silence(address):
    """Connections of which the half say nothing, and the others one byte."""
    with contextlib.ExitStack() as stack:
        found = [stack.enter_context(opened(address)) for _ in range(IDLE)]
        for s in found[::2]:
            s.sendall(b"\x16")
        time.sleep(SILENT_S)


def main(what, targets, datagrams):
    made = {"cases": cases, "mutants": mutants, "silence": silence}[what]
    with ThreadPoolExecutor(32 if what == "cases" else len(targets) or 1) as pool:
        list(pool.map(made, map(tuple, targets)))
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for address in datagrams:
        for _ in range(500):
            s.sendto(random.randbytes(random.randrange(1, 500)), tuple(address))
    print(json.dumps(COUNTED))


if __name__ == "__main__":
    main(sys.argv[1], *map(json.loads, sys.argv[2:]))
