"""Expressions and formats of telemetry are judged as Envoy judges them."""

import judge
import meshes as mesh
import pytest
from reported import hcms

from lateen.api import cel, validate
from lateen.api.config import decode
from lateen.api.mesh import ExtensionProvider
from lateen.api.mesh.reading import Invalid, mesh_config
from lateen.mesh.model import Mesh
from lateen.mesh.observability import Reporting
from lateen.mesh.settings import MeshConfig
from lateen.mesh.views import Views


@pytest.mark.parametrize(
    ("expression", "says"),
    [
        ("response.code >= 400 && !has(request.referer)", None),
        ("request.headers['x-user'] in ['a', 'b'] ? 'x' : 'y'", None),
        ("request.path.startsWith('/a') || size(request.id) > 3", None),
        ("response.code >", "must be a valid CEL expression"),
        ("request.path == '.map(' || request.path == r\"a.exists(\"", None),
        ("double(response.code) / 100.0 > 4.0 && bool('true')", None),
        ("['a'].exists(x, x == request.path)", "Envoy does not evaluate exists()"),
        ("request.headers.map(k, k) == []", "Envoy does not evaluate map()"),
        ("lower(request.path)", "Envoy has no function lower"),
        ("string(response.code)", "Envoy has no function string"),
        ("upstream_peer.labels['app'].value", "upstream_peer exists only in Istio's build of Envoy"),
        ("has(request.headers['x'])", "must be a valid CEL expression"),
        ("request.path.matches('[')", '"[" is not a valid RE2 regular expression'),
        ("matches(request.path + ')', r\"\\1\")", '"\\1" is not a valid RE2 regular expression'),
        ("!request.path.matches(('(?=a)')) // )", '"(?=a)" is not a valid RE2 regular expression'),
        ("request.path.matches('(a{1000}){1000}')", '"(a{1000}){1000}" is not a valid RE2 regular expression'),
        (f"request.path.matches('{'a' * 97}')", f'"{"a" * 80}" is too large a regular expression for CEL in Envoy'),
        ("request.path.matches(r'\\\\') || request.path.matches('''\"(''')", '""(" is not a valid RE2'),
    ],
)
def test_expressions_are_judged_as_envoy_judges_them(expression, says):
    found = cel.problem(expression)
    assert (found or "").startswith(says or "")
    assert (found is None) == (says is None)


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ("string(destination.port)", "destination.port"),
        (" string( request.headers['a)'] ) ", " request.headers['a)'] "),
        ("string(1) == string(2)", "string(1) == string(2)"),
        ("request.host", "request.host"),
    ],
)
def test_a_label_needs_no_conversion_to_text(value, wanted):
    """https://istio.io/latest/docs/tasks/observability/metrics/customize-metrics/ has the first one."""
    assert cel.text_of(value) == wanted
    assert (cel.problem(value, formatted=True) is None) == ("==" not in value)


def test_apply_says_what_envoy_would_refuse():
    spec = {"accessLogging": [{"filter": {"expression": "nosuch(1)"}}]}
    obj = {"apiVersion": "telemetry.istio.io/v1", "kind": "Telemetry", "metadata": {"name": "a"}, "spec": spec}
    assert validate.problems(obj) == [("spec.accessLogging[0].filter.expression", "Envoy has no function nosuch")]


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("{accessLogEncoding: JSON, accessLogFormat: '%PROTOCOL%'}", "accessLogFormat"),
        (
            "extensionProviders: [{name: a, zipkin: {service: s, port: 1, headers: [{name: ''}]}}]",
            "extensionProviders[0].zipkin.headers[0].name",
        ),
        (
            "extensionProviders: [{name: a, zipkin: {service: s, port: 1, headers: [{name: h, envName: 'A)'}]}}]",
            "extensionProviders[0].zipkin.headers[0].envName",
        ),
        (
            "extensionProviders: [{name: a, envoyFileAccessLog: {logFormat: {text: '%NOSUCH%'}}}]",
            "extensionProviders[0].envoyFileAccessLog.logFormat",
        ),
        (
            "extensionProviders: [{name: a, envoyFileAccessLog: {logFormat: {labels: {a: {b: '%NOSUCH%'}}}}}]",
            "extensionProviders[0].envoyFileAccessLog.logFormat",
        ),
    ],
)
def test_a_format_that_envoy_would_refuse_is_refused_where_it_is_written(text, where):
    with pytest.raises(Invalid) as e:
        mesh_config(text)
    assert [p.path for p in e.value.problems] == [where]


GOOD = (
    "response.code >= 400 && !has(request.referer)",
    "request.headers['x-user'] in ['a', 'b'] || 'x' in request.headers",
    "double(response.code) / 100.0 > 4.0 && bool('true') && int('5') < 6 && uint(5) > uint(4)",
    "timestamp('2026-01-01T00:00:00Z') < request.time && request.time.getHours() < 24",
    "duration('5s') < request.duration",
    "matches(request.path, request.host) || request.path.matches('[' + 'a') || '(['.startsWith(request.path)",
    f"request.path.matches('{'a' * 96}') && request.path.matches(r'a\\.b') && matches(request.path + ')', ('[,)]'))",
    "size(request.path) > 3 && request.path.matches('^/a') && -response.code < 0 && response.code % 2 == 1",
)


def test_envoy_takes_every_expression_that_is_taken_here(tmp_path):
    entries = [{"providers": [{"name": f"f{i}"}], "filter": {"expression": e}} for i, e in enumerate(GOOD)]
    assert [cel.problem(e) for e in GOOD] == [None] * len(GOOD)
    files = [decode(ExtensionProvider, {"name": f"f{i}", "envoyFileAccessLog": {}}) for i in range(len(GOOD))]
    objects = mesh.objects("", MeshConfig(reporting=Reporting(providers=tuple(files))))
    doc = {
        "kind": "Telemetry",
        "metadata": {"name": "a", "namespace": "istio-system"},
        "spec": {"accessLogging": entries},
    }
    objects = mesh.add(objects, doc, 0)
    view = Views(Mesh(objects)).of(objects.pods[("default", "productpage-v1")], "sidecar")
    assert len({a.filter.SerializeToString() for _, m in hcms(judge.messages(view)) for a in m.access_log}) >= len(GOOD)
    judge.validate(view, tmp_path)
