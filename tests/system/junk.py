"""Sends what nobody should send: python3 junk.py '[[host, port, whether it speaks TLS]]' NAMESERVER. Run in a pod."""

import json
import random
import socket
import ssl
import struct
import sys
from concurrent.futures import ThreadPoolExecutor

random.seed(7)
POST = b"POST %s HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def frame(kind, flags, stream, body=b""):
    return struct.pack(">I", len(body))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + body


def any_frame():
    return frame(random.randrange(12), random.randrange(256), random.randrange(9), random.randbytes(40))


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
}
LOOSE = ssl.create_default_context()
LOOSE.check_hostname, LOOSE.verify_mode = False, ssl.CERT_NONE
LOOSE.set_alpn_protocols(["h2", "http/1.1"])


def send(address, body, tls):
    try:
        with socket.create_connection(address, 2) as s:
            s.settimeout(0.3)
            if tls:
                s = LOOSE.wrap_socket(s)
            s.sendall(body)
            while s.recv(65536):
                pass
    except OSError:
        pass


def junk(target):
    """Everything to one port; then connections that say nothing, which are returned."""
    host, port, tls = target
    for body in CASES.values():
        send((host, port), body, False)
        if tls:
            send((host, port), body, True)
    try:
        return [socket.create_connection((host, port), 2) for _ in range(20)]
    except OSError:
        return []


def main():
    with ThreadPoolExecutor(8) as pool:
        idle = [c for found in pool.map(junk, json.loads(sys.argv[1])) for c in found]
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for _ in range(500):
        datagrams.sendto(random.randbytes(random.randrange(1, 500)), (sys.argv[2], 53))
    print(len(idle), "connections are idle")


if __name__ == "__main__":
    main()
