"""Bodies with spans as clients send them: packed, in part wrong, or meant for somebody else."""

import copy
import gzip
import json
import zlib

import pytest
from google.protobuf import wrappers_pb2
from google.rpc import status_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
from spans import OTLP, TRACE, serving, span

from lateen.console.traces import otlp
from lateen.console.traces.receiving import MAX_BODY, METHOD
from lateen.console.traces.spans import BadSpans


@pytest.mark.parametrize(
    ("path", "kind", "body", "status", "says"),
    [
        ("/api/v2/spans", "application/json", b"{", 400, "Zipkin"),
        ("/api/v2/spans", "application/x-thrift", b"", 415, "JSON"),
        ("/v1/traces", "application/x-protobuf", b"\xff\xff", 400, "protobuf"),
        ("/v1/traces", "text/plain", b"", 415, "x-protobuf"),
        ("/v1/traces", "application/json", b" " * (MAX_BODY + 1), 413, "fewer spans"),
        ("/api/v2/spans", "application/json", gzip.compress(b" " * (2 * MAX_BODY)), 413, "fewer spans"),
        ("/api/v2/spans", "application/json", b"\x1f\x8bnot gzip", 400, "unpacked"),
        ("/v1/traces", "application/json", json.dumps(OTLP).replace(TRACE.upper(), "zz").encode(), 400, "hexadecimal"),
        ("/api/v1/spans", "application/json", b"[]", 404, "version 2 as JSON to /api/v2/spans"),
        ("/v1/logs", "application/x-protobuf", b"", 404, "OTEL_LOGS_EXPORTER=none"),
        ("/v1/metrics", "application/json", b"{}", 404, "OTEL_METRICS_EXPORTER=none"),
        (METHOD, "application/grpc", b"", 404, "port 4317"),
    ],
)
def test_bodies_that_cannot_be_taken_get_a_clear_answer(tmp_path, path, kind, body, status, says):
    async def work(url, _traces, session):
        async with session.post(url + path, data=body, headers={"Content-Type": kind}) as answer:
            if kind == "application/x-protobuf":  # the answer, too
                assert answer.content_type == kind
                return answer.status, status_pb2.Status.FromString(await answer.read()).message
            return answer.status, (await answer.json())["message"]

    found, message = serving(tmp_path, work)
    assert found == status
    assert says in message


@pytest.mark.parametrize(
    ("encoding", "status", "says"),
    [("gzip", 400, "unpacked"), ("deflate", 400, "unpacked"), ("br", 415, "gzip or deflate"), ("zstd", 415, "zstd")],
)
def test_a_body_that_is_not_packed_as_it_says_is_refused(tmp_path, caplog, encoding, status, says):
    async def work(url, traces, session):
        headers = {"Content-Type": "application/json", "Content-Encoding": encoding}
        async with session.post(f"{url}/v1/traces", data=b"nothing of the kind", headers=headers) as answer:
            return answer.status, await answer.text()

    found, text = serving(tmp_path, work)
    assert found == status
    assert says in text
    assert not caplog.records


@pytest.mark.parametrize(
    ("encoding", "body"),
    [("gzip", gzip.compress(b"") * 100_000), ("gzip, " * 1_000 + "gzip", gzip.compress(b" "))],
)
def test_many_parts_or_encodings_of_a_body_cost_no_time(tmp_path, encoding, body):
    """Each would cost as much as the whole body."""

    async def work(url, _traces, session):
        headers = {"Content-Type": "application/json", "Content-Encoding": encoding}
        async with session.post(f"{url}/v1/traces", data=body, headers=headers) as answer:
            return answer.status

    assert serving(tmp_path, work) in (400, 415)


def test_a_body_of_nothing_but_empty_spans_costs_no_memory():
    body = trace_service_pb2.ExportTraceServiceRequest.FromString(otlp.encode([span(1)]))
    scope = body.resource_spans[0].instrumentation_library_spans[0]
    for _ in range(otlp.MAX_PROBLEMS + 500):
        scope.spans.add()
    with pytest.raises(BadSpans, match=f"{otlp.MAX_PROBLEMS + 1} spans were rejected"):
        otlp.spans(body)


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [
        ("gzip", gzip.compress),
        ("", gzip.compress),
        ("deflate", zlib.compress),
        ("gzip", lambda body: gzip.compress(body[:9]) + gzip.compress(body[9:])),
        ("identity", lambda body: body),
    ],
)
def test_packed_bodies_are_taken(tmp_path, encoding, pack):
    async def work(url, traces, session):
        headers = {"Content-Type": "application/json"} | ({"Content-Encoding": encoding} if encoding else {})
        async with session.post(f"{url}/v1/traces", data=pack(json.dumps(OTLP).encode()), headers=headers) as answer:
            return answer.status, traces.received

    assert serving(tmp_path, work) == (200, 1)


def test_a_span_that_makes_no_sense_costs_no_other_one_of_the_same_body(tmp_path):
    """As a collector passes on those of many services."""
    both = trace_service_pb2.ExportTraceServiceRequest.FromString(otlp.encode([span(1), span(2)]))
    both.resource_spans[0].instrumentation_library_spans[0].spans[0].trace_id = b"\0" * 16

    async def work(url, traces, session):
        headers = {"Content-Type": "application/x-protobuf"}
        async with session.post(f"{url}/v1/traces", data=both.SerializeToString(), headers=headers) as answer:
            part = wrappers_pb2.BytesValue.FromString(await answer.read()).value
            return answer.status, status_pb2.Status.FromString(part), traces.received

    status, part, received = serving(tmp_path, work)
    assert (status, part.code, received) == (200, 1, 1)
    assert "is not a trace id" in part.message


def test_json_says_how_many_spans_were_left_out(tmp_path):
    given = copy.deepcopy(OTLP)
    spans = given["resourceSpans"][0]["scopeSpans"][0]["spans"]
    spans.append({**spans[0], "startTimeUnixNano": "0"})

    async def work(url, traces, session):
        async with session.post(f"{url}/v1/traces", json=given) as answer:
            return (await answer.json())["partialSuccess"], traces.received

    part, received = serving(tmp_path, work)
    assert (part["rejectedSpans"], received) == ("1", 1)
    assert "is not a time" in part["errorMessage"]
