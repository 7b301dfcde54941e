"""Every field of Telemetry, and what the mesh configuration says for it, in the log, the counters and the spans of real
proxies: the productpage calls the details."""

import itertools
import json
import re

import pytest
from talkers import COLLECTOR, TALK

from lateen.kit import yamldoc

pytestmark = pytest.mark.system

SINK = f"""
apiVersion: v1
kind: Service
metadata: {{name: sink, namespace: default}}
spec: {{selector: {{app: sink}}, ports: [{{name: http, port: 9411}}]}}
---
apiVersion: v1
kind: Pod
metadata: {{name: sink, namespace: default, labels: {{app: sink, sidecar.istio.io/inject: "false"}}}}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{{name: sink, image: lateen/sleep, command: [python3, -c, {json.dumps(COLLECTOR)}]}}]
"""
FORMAT = {"path": "%REQ(:PATH)%", "id": "%REQ(X-REQUEST-ID)%", "trace": "%REQ(X-B3-TRACEID)%"}
PROVIDERS = [
    {"name": "sink", "zipkin": {"service": "sink.default.svc.cluster.local", "port": 9411}},
    {"name": "fields", "envoyFileAccessLog": {"path": "/dev/stdout", "logFormat": {"labels": FORMAT}}},
]
SERVER_LOG = {
    "apiVersion": "telemetry.istio.io/v1",
    "kind": "Telemetry",
    "metadata": {"name": "details", "namespace": "default"},
    "spec": {
        "selector": {"matchLabels": {"app": "details"}},
        "accessLogging": [{"providers": [{"name": "fields"}]}],
    },
}
"""The called side's log shows what the caller's proxy has sent."""
SIDES = (("productpage", "source"), ("details", "destination"))


class Calls:
    """Calls of the details, each told by its path from all others."""

    def __init__(self, mesh):
        self._mesh = mesh
        self._count = itertools.count()
        self._waited = {}

    def apply(self, **spec):
        """The Telemetry of the productpage, and wait until its proxy has it."""
        meta = {"name": "page", "namespace": "default"}
        obj = {"apiVersion": "telemetry.istio.io/v1", "kind": "Telemetry", "metadata": meta}
        selector = {"matchLabels": {"app": "productpage"}}
        self._mesh.apply(json.dumps({**obj, "spec": {"selector": selector, **spec}}))
        self._mesh.lateen("x", "wait", "telemetry", "page")

    def one(self, *headers):
        path = f"/details/0?call-{next(self._count)}-{id(self)}"
        sent = [word for header in headers for word in ("-H", header)]
        asked = ("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", *sent, f"http://details:9080{path}")
        assert self._mesh.inside("productpage", *asked).stdout == "200"
        return path

    def logged(self, app, path):
        """The entry of a call in the log of a proxy, in the provider's format."""
        found = self._mesh.kubectl("logs", self._mesh.pod(app), "-c", "istio-proxy", "--tail=400").stdout
        entries = [json.loads(line) for line in found.splitlines() if line.startswith("{") and path in line]
        return entries[0] if entries else None

    def received(self, path):
        """The entry in the server's log."""
        return self._mesh.until(lambda: self.logged("details", path), what="the entry of the server's proxy")

    def spans(self, path, service="productpage.default"):
        text = self._mesh.kubectl("logs", "sink").stdout
        found = [json.loads(line) for line in text.splitlines() if path in line]
        return [s["tags"] for s in found if s["service"] == service]

    def span(self, *headers):
        """The tags of the span of a call."""

        def sent():
            found = self.spans(self.one(*headers))
            return found or [t for path in paths for t in self.spans(path)]

        paths = [self.one(*headers)]
        return self._mesh.until(sent, what="a span")[0]

    def counted(self, app, reporter, code=""):
        """What a proxy has counted of the calls with a status, or of all, and the labels of one of the series."""
        text = self._mesh.inside(app, "curl", "-s", "localhost:15020/stats/prometheus").stdout
        rows = [
            line
            for line in text.splitlines()
            if line.startswith("istio_requests_total{") and f'reporter="{reporter}"' in line
        ]
        rows = [line for line in rows if f'response_code="{code}' in line]
        rows = [line for line in rows if 'destination_workload="details-v1"' in line]
        labels = dict(re.findall(r'(\w+)="([^"]*)"', rows[-1])) if rows else {}
        return sum(int(line.rpartition(" ")[2]) for line in rows), labels

    def settled(self):
        """What the client's and the server's proxy have counted, when that is all there was: agents count in the order
        of the calls, and wait here for a last one, whose status no other has."""
        before = [self.counted(*side, code="404")[0] for side in SIDES]
        asked = ("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "http://details:9080/none")
        assert self._mesh.inside("productpage", *asked).stdout == "404"
        for side, known in zip(SIDES, before, strict=True):
            self._mesh.until(lambda s=side, n=known: self.counted(*s, code="404")[0] == n + 1, what="the last count")
        return [self.counted(*side)[0] for side in SIDES]


@pytest.fixture(scope="module")
def calls(mesh):
    before = json.loads(mesh.get("configmap", "istio", "-n", "istio-system", "-o", "json"))["data"]["mesh"]
    mesh.apply(SINK)
    mesh.kubectl("wait", "--for=condition=Ready", "pod/sink", "--timeout=60s")
    found = Calls(mesh)
    found.settings = lambda **more: settings(mesh, before, more)
    found.settings()
    mesh.apply(json.dumps(SERVER_LOG))
    mesh.lateen("x", "wait", "telemetry", "details")
    # connections of the former listener go on for a while, and say what it logs
    mesh.until(lambda: found.logged("details", found.one()), what="a call that is logged in the new format")
    yield found
    mesh.kubectl("delete", "telemetry/page", "telemetry/details", "service/sink", "pod/sink", "--ignore-not-found")
    mesh.kubectl("patch", "configmap", "istio", "-n", "istio-system", "-p", json.dumps({"data": {"mesh": before}}))


def settings(mesh, before, more):
    """The mesh configuration with our providers, and what else is given."""
    config = yamldoc.load(before) | more
    config["extensionProviders"] = [*config.get("extensionProviders", []), *PROVIDERS]
    patch = {"data": {"mesh": yamldoc.dump(config)}}
    mesh.kubectl("patch", "configmap", "istio", "-n", "istio-system", "-p", json.dumps(patch))


TO_SINK = {"providers": [{"name": "sink"}], "randomSamplingPercentage": 100}


# --- tracing -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tracing", "headers", "tags", "absent"),
    [
        ({}, (), {"istio.canonical_service": "productpage", "istio.namespace": "default"}, ()),
        ({"enableIstioTags": False}, (), {"http.method": "GET"}, ("istio.canonical_service", "istio.mesh_id")),
        ({"customTags": {"a": {"literal": {"value": "blue"}}}}, (), {"a": "blue"}, ()),
        (
            {"customTags": {"a": {"header": {"name": "x-colour", "defaultValue": "none"}}}},
            ("x-colour: red",),
            {"a": "red"},
            (),
        ),
        ({"customTags": {"a": {"header": {"name": "x-colour", "defaultValue": "none"}}}}, (), {"a": "none"}, ()),
        ({"customTags": {"a": {"environment": {"name": "POD_NAMESPACE"}}}}, (), {"a": "default"}, ()),
        (
            {"customTags": {"a": {"environment": {"name": "NO_SUCH", "defaultValue": "grey"}}}},
            (),
            {"a": "grey"},
            (),
        ),
        ({"customTags": {"a": {"formatter": {"value": "%REQ(:METHOD)%"}}}}, (), {"a": "GET"}, ()),
        ({"match": {"mode": "CLIENT"}}, (), {"http.method": "GET"}, ()),
    ],
    ids=lambda v: json.dumps(v)[:60] if isinstance(v, dict) else "",
)
def test_a_span_has_the_tags_that_are_asked_for(calls, tracing, headers, tags, absent):
    calls.apply(tracing=[{**TO_SINK, **tracing}])
    found = calls.span(*headers)
    assert {key: found.get(key) for key in tags} == tags
    assert not set(absent) & found.keys()


@pytest.mark.parametrize(
    "tracing",
    [{"disableSpanReporting": True}, {"randomSamplingPercentage": 0}, {"match": {"mode": "SERVER"}}],
    ids=json.dumps,
)
def test_no_span_is_sent_where_none_is_wanted(calls, tracing):
    calls.apply(tracing=[{**TO_SINK, **tracing}])
    silent = calls.one()
    calls.received(silent)
    calls.apply(tracing=[TO_SINK])
    calls.span()
    assert calls.spans(silent) == []


def test_the_context_of_a_trace_is_passed_on_unless_it_is_disabled(calls):
    calls.apply(tracing=[TO_SINK])
    assert re.fullmatch("[0-9a-f]{32}", calls.received(calls.one())["trace"] or "")
    calls.apply(tracing=[{**TO_SINK, "disableContextPropagation": True}])
    ended = calls.one()
    assert calls.received(ended)["trace"] is None
    calls._mesh.until(lambda: calls.spans(ended), what="the span, which is reported all the same")


def test_the_request_id_tells_whether_a_request_is_traced_unless_it_must_not(calls):
    """Its 15th character: 4 for a random UUID, 9 for one that is traced by chance."""
    calls.apply(tracing=[TO_SINK])
    assert calls.received(calls.one())["id"][14] == "9"
    calls.apply(tracing=[{**TO_SINK, "useRequestIdForTraceSampling": False}])
    assert calls.received(calls.one())["id"][14] == "4"


# --- metrics -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "metrics",
    [
        {"overrides": [{"match": {"metric": "REQUEST_COUNT", "mode": "CLIENT"}, "disabled": True}]},
        {"overrides": [{"match": {"metric": "ALL_METRICS"}, "disabled": True}]},
        {"providers": [{"name": "sink"}]},
    ],
    ids=json.dumps,
)
def test_calls_are_not_counted_by_whom_they_must_not(calls, metrics):
    before, server = calls.settled()
    calls.apply(metrics=[metrics])
    calls.one()
    calls._mesh.until(lambda: calls.counted("details", "destination")[0] == server + 1, what="the server's count")
    calls.apply(metrics=[{"providers": [{"name": "prometheus"}]}])
    calls.one()
    calls._mesh.until(lambda: calls.counted("productpage", "source")[0] > before, what="a count of the client")
    assert calls.counted("productpage", "source")[0] == before + 1


@pytest.mark.parametrize("mode", ["CLIENT", "CLIENT_AND_SERVER"])
def test_labels_are_added_changed_and_removed(calls, mode):
    change = {
        "colour": {"value": "request.method"},
        "source_app": {"value": "'me'"},
        "source_version": {"operation": "REMOVE"},
    }
    calls.apply(metrics=[{"overrides": [{"match": {"mode": mode}, "tagOverrides": change}]}])

    def labelled():
        calls.one()
        labels = calls.counted("productpage", "source")[1]
        return labels if labels.get("colour") else None

    labels = calls._mesh.until(labelled, what="a series with the label")
    assert (labels["colour"], labels["source_app"]) == ("GET", "me")
    assert "source_version" not in labels


def test_open_connections_report_as_often_as_they_are_told(calls, mesh):
    """Every five seconds without a word; here the client's proxy is told to do it hourly."""
    hourly = {"selector": {"matchLabels": {"app": "talker"}}, "metrics": [{"reportingInterval": "3600s"}]}
    obj = {"apiVersion": "telemetry.istio.io/v1", "kind": "Telemetry", "metadata": {"name": "hourly"}, "spec": hourly}
    mesh.apply(json.dumps(obj))
    mesh.apply(TALK)

    def counted(pod, what):
        text = mesh.kubectl("exec", pod, "-c", "istio-proxy", "--", "curl", "-s", "localhost:15020/metrics").stdout
        rows = [line for line in text.splitlines() if line.startswith(f"istio_tcp_{what}_total{{")]
        return sum(int(line.rpartition(" ")[2]) for line in rows if 'destination_workload="lines"' in line)

    try:
        mesh.kubectl("wait", "--for=condition=Ready", "pod/lines", "pod/talker", "--timeout=60s")
        first = mesh.until(lambda: counted("lines", "sent_bytes"), what="bytes, as the server's proxy counts them")
        mesh.until(lambda: counted("lines", "sent_bytes") > first, what="the next report")
        assert counted("talker", "connections_opened") == 1
        assert counted("talker", "sent_bytes") == 0
    finally:
        mesh.kubectl("delete", "telemetry/hourly", "service/lines", "pod/lines", "pod/talker", "--wait=false")


# --- access logs ---------------------------------------------------------------------------------------------------

FIELDS = {"providers": [{"name": "fields"}]}


@pytest.mark.parametrize(
    "logging",
    [
        [{**FIELDS, "disabled": True}],
        [{**FIELDS, "match": {"mode": "SERVER"}}],
        [FIELDS, {"match": {"mode": "CLIENT"}, "disabled": True}],
        [{**FIELDS, "filter": {"expression": "response.code >= 500"}}],
        [{"providers": [{"name": "envoy"}]}],
    ],
    ids=json.dumps,
)
def test_what_must_not_be_logged_is_not(calls, logging):
    calls.apply(accessLogging=logging)
    silent = calls.one()
    calls.received(silent)
    calls.apply(accessLogging=[{**FIELDS, "filter": {"expression": "request.path.contains('call')"}}])
    loud = calls.one()
    calls._mesh.until(lambda: calls.logged("productpage", loud), what="the entry of the client's proxy")
    assert calls.logged("productpage", silent) is None


# --- the mesh configuration ----------------------------------------------------------------------------------------


def test_default_providers_are_used_where_a_telemetry_names_none(calls, mesh):
    before, _ = calls.settled()
    calls.settings(defaultProviders={"accessLogging": ["fields"], "tracing": ["sink"], "metrics": ["sink"]})
    calls.apply(tracing=[{"randomSamplingPercentage": 100}])
    mesh.until(lambda: calls.logged("productpage", calls.one()), what="an entry in the default provider's format")
    assert calls.span()["istio.canonical_service"] == "productpage"
    calls.received(calls.one())
    calls.settings()
    calls.apply(metrics=[{"providers": [{"name": "prometheus"}]}])

    def again():
        calls.one()
        return calls.counted("productpage", "source")[0] > before

    mesh.until(again, what="a count, by the provider that a Telemetry names")
    path = calls.one()
    calls.received(path)
    assert calls.logged("productpage", path) is None
