"""Requests that are answered in one piece: the same answers as aiohttp gives, in order, whatever way they arrive in."""

import asyncio
import json

import pytest
from apiserver import Cluster

from lateen.cluster.apiserver import lane

MAPS = "/api/v1/namespaces/default/configmaps"
UNUSUAL = {"TE": "trailers"}
"""A header that leaves a request to aiohttp and means nothing else."""


@pytest.fixture(scope="module")
def cluster():
    made = Cluster()
    made.must("POST", MAPS, {"metadata": {"name": "there", "labels": {"app": "a"}}, "data": {"k": "ä"}})
    return made


@pytest.mark.parametrize(
    ("method", "path", "more"),
    [
        ("GET", f"{MAPS}/there", {}),
        ("GET", f"{MAPS}/missing", {}),
        ("GET", MAPS, {}),
        ("GET", f"{MAPS}?labelSelector=app%3Da&limit=1", {}),
        ("GET", f"{MAPS}?labelSelector=app&labelSelector=none&fieldSelector=", {}),
        ("GET", f"{MAPS}?labelSelector=app+in+(a)", {}),
        ("GET", f"{MAPS}?limit=x", {}),
        ("GET", MAPS, {"headers": {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}}),
        ("GET", MAPS, {"headers": {"Accept": "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"}}),
        ("GET", f"{MAPS}/there", {"user": "nobody", "groups": ()}),
        ("GET", f"{MAPS}/there", {"headers": {"Authorization": "Bearer x.y.z"}}),
        ("GET", f"{MAPS}/there", {"headers": {"Impersonate-User": "bob"}}),
        ("GET", f"{MAPS}/there", {"headers": {"Impersonate-Group": "bob"}}),
        ("GET", f"{MAPS}/", {}),
        ("GET", "/api/v1/nothing", {}),
        ("POST", f"{MAPS}?dryRun=All", {"body": b"{"}),
        ("POST", f"{MAPS}?dryRun=All", {"body": b"kind: x", "content": "text/plain"}),
        ("POST", f"{MAPS}?dryRun=All", {"body": b"metadata: {name: 7}", "content": "application/yaml; charset=utf-8"}),
        ("POST", MAPS, {"body": {"metadata": {"name": "there"}}}),
        ("POST", f"{MAPS}?fieldValidation=Strict", {"body": {"metadata": {"name": "n"}, "dat": {}}}),
        ("POST", f"{MAPS}/there", {"body": {}}),
        ("PATCH", f"{MAPS}/there", {"body": {"data": {}}, "content": "nothing/known"}),
        ("DELETE", f"{MAPS}/missing", {}),
        ("PUT", f"{MAPS}/there", {"body": b"x" * (lane.MAX_BODY + 1)}),
    ],
)
def test_the_answer_is_the_same_whoever_reads_the_request(cluster, method, path, more):
    def ask(**headers):
        given = more | {"headers": (more.get("headers") or {}) | headers}
        code, answer = cluster.ask(method, path, **given)
        head = dict(line.lower().split(": ", 1) for line in cluster.head.split("\r\n")[1:])
        return code, answer, {k: v for k, v in head.items() if k in ("content-type", "warning", "retry-after")}

    assert ask() == ask(**UNUSUAL)


def test_a_field_that_is_not_known_is_warned_about(cluster):
    body = {"metadata": {"name": "n"}, "dat": {}}
    assert cluster.ask("POST", f"{MAPS}?dryRun=All", body)[0] == 201
    assert 'warning: 299 - "unknown field \\"dat\\""' in cluster.head.lower()


def exchange(cluster, *pieces):
    """What comes back for pieces of requests on one connection, as (code, body); the last request must close it."""

    async def run():
        protocol, peer = cluster.connection()
        protocol.connection_made(peer)
        for piece in pieces:
            protocol.data_received(piece)
        async with asyncio.timeout(10):
            while not peer.closed:
                await asyncio.sleep(0.001)
        protocol.connection_lost(None)
        return peer.sent

    raw, out = asyncio.run(run()), []
    while raw:
        head, _, raw = raw.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        out.append((int(head.split()[1]), json.loads(raw[:length])))
        raw = raw[length:]
    return out


def request(method, path, body=None, *more):
    raw = json.dumps(body).encode() if body is not None else b""
    lines = [f"{method} {path} HTTP/1.1", "Host: x", f"Content-Length: {len(raw)}", "Content-Type: application/json"]
    return "\r\n".join([*lines, *more, "", ""]).encode() + raw


def test_requests_sent_at_once_are_answered_in_order(cluster):
    names = [f"p-{i}" for i in range(20)]
    pipelined = [r for n in names for r in (_created(n), request("GET", f"{MAPS}/{n}"))]
    found = exchange(cluster, b"".join(pipelined) + request("GET", f"{MAPS}/end", None, "Connection: close"))
    assert [code for code, _ in found] == [201, 200] * 20 + [404]
    assert [answer["metadata"]["name"] for _, answer in found[:-1]] == [n for n in names for _ in range(2)]


def _created(name):
    return request("POST", MAPS, {"metadata": {"name": name}})


def test_requests_may_arrive_byte_by_byte_and_change_hands(cluster):
    raw = _created("slow") + request("GET", f"{MAPS}/slow")
    raw += request("GET", f"{MAPS}/slow", None, "TE: trailers") + request("GET", f"{MAPS}/slow")
    raw += request("DELETE", f"{MAPS}/slow", None, "Connection: close")
    found = exchange(cluster, *(raw[i : i + 1] for i in range(len(raw))))
    assert [code for code, _ in found] == [201, 200, 200, 200, 200]


@pytest.mark.parametrize(
    "head",
    [
        b"GET /a HTTP/1.0\r\nHost: x",
        b"GET  /a HTTP/1.1\r\nHost: x",
        b"GET a HTTP/1.1\r\nHost: x",
        b"GET /a%2fb HTTP/1.1\r\nHost: x",
        b"GET /a/../b HTTP/1.1\r\nHost: x",
        b"GET //a HTTP/1.1\r\nHost: x",
        b"HEAD /a HTTP/1.1\r\nHost: x",
        b"GET /a HTTP/1.1",
        b"GET /a HTTP/1.1\r\nHost: x\r\nHost: y",
        b"GET /a HTTP/1.1\r\nHost : x",
        b"GET /a HTTP/1.1\r\nHost: x\r\n folded: y",
        b"GET /a HTTP/1.1\r\nHost: x\nX: y",
        b"GET /a HTTP/1.1\r\nHost: x\r\nX: \xc3\xa4",
        b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked",
        b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 1",
        b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: +1",
        b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 99999",
        b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nExpect: 100-continue",
        b"GET /a HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1",
        b"GET /a HTTP/1.1\r\nHost: x\r\nX: " + b"y" * lane.MAX_HEAD,
    ],
)
def test_what_is_out_of_the_ordinary_is_left_to_aiohttp(head):
    with pytest.raises(lane.Unusual):
        lane.head(head + b"\r\n\r\nz")
