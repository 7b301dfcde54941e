"""What the analysis says of the providers that a Telemetry names."""

import pytest

from lateen.analysis import Snapshot, Source, analyze

MESH = {
    "extensionProviders": [
        {"name": "spans", "zipkin": {"service": "zipkin.istio-system", "port": 9411}},
        {"name": "Files", "envoyFileAccessLog": {"path": "/dev/stdout"}},
        {"name": "old", "lightstep": {"service": "a", "port": 1, "accessToken": "x"}},
    ]
}


def found(spec, mesh=MESH):
    obj = {"apiVersion": "telemetry.istio.io/v1", "kind": "Telemetry", "metadata": {"name": "t", "namespace": "shop"}}
    messages = analyze(Snapshot([Source({**obj, "spec": spec})], mesh=mesh))
    return [(m.text, m.path) for m in messages if m.kind.code == "LAT0130"]


def named(name):
    return [{"providers": [{"name": name}]}]


@pytest.mark.parametrize(
    ("section", "name", "says"),
    [
        ("tracing", "spans", None),
        ("tracing", "SPANS", None),
        ("accessLogging", "files", None),
        ("metrics", "prometheus", None),
        ("tracing", "zipkin", "no such extension provider; it has spans"),
        ("accessLogging", "otel", "no such extension provider; it has Files, envoy"),
        ("metrics", "statsd", "no such extension provider; it has prometheus"),
        ("tracing", "files", "it is of kind envoyFileAccessLog"),
        ("accessLogging", "spans", "it is of kind zipkin"),
        ("tracing", "old", "it is of kind lightstep, which stock Envoys cannot use"),
    ],
)
def test_a_provider_exists_and_is_of_a_kind_that_the_section_can_use(section, name, says):
    messages = found({section: named(name)})
    if says is None:
        assert messages == []
        return
    ((text, path),) = messages
    assert f"Provider {name} of {section} has no effect: " in text
    assert says in text
    assert path == ("spec", section, 0, "providers", 0, "name")


def test_without_a_mesh_configuration_nobody_knows_the_providers():
    assert found({"tracing": named("zipkin")}, None) == []
