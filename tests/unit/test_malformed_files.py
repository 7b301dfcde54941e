"""Files whose objects have not the structure of their kind: a sentence with its place, and never an internal error."""

import pytest
from click.testing import CliRunner

from lateen.cli.analyze import analyze
from lateen.cli.validate import validate

VS = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: a}\nspec: %s\n"


def asked(command, tmp_path, text, *more):
    path = tmp_path / "in.yaml"
    path.write_text(text)
    done = CliRunner().invoke(command, [*more, str(path)])
    return f"{done.output}{done.exception or ''}"


MALFORMED = [
    ("apiVersion: v1\nkind: Pod\nmetadata: {name: a, labels: [x]}\nspec: {}\n", ":3:21", "metadata.labels"),
    ("apiVersion: v1\nkind: Pod\nmetadata: [x]\nspec: {}\n", ":3:1", "metadata: "),
    ("apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: 3}\n", ":4:8", "spec.containers"),
    ("apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [[]]}\n", "in.yaml:4", "spec.ports[0]"),
    (VS % "{hosts: [a], http: {route: []}}", ":4:20", "spec.http: must be of type array, not object"),
    (VS % "{hosts: [a], http: [{route: [{destination: [x]}]}]}", "", "destination: must be of type object"),
    (VS % "{hosts: [[a]]}", "", "spec.hosts[0]: must be of type string, not array"),
    (VS % "{hosts: [a], gateways: [3], http: []}", "", "spec.gateways[0]: must be of type string, not integer"),
    (
        "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [null]}\n",
        "in.yaml:4",
        "spec.ports[0]: it may",
    ),
    (VS.replace("VirtualService", "Gateway") % "{servers: [null]}", ":4:18", "servers[0]: cannot have nil server"),
    (
        VS.replace("VirtualService", "EnvoyFilter") % "{configPatches: [{applyTo: {a: b}}]}",
        "",
        "applyTo: must be of type",
    ),
    (
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p}\nspec: {rules: {from: []}}\n",
        ":4:8",
        "spec.rules: must be of type array",
    ),
]


@pytest.mark.parametrize(("text", "place", "says"), MALFORMED)
def test_analyze_names_the_field_with_the_wrong_structure(tmp_path, text, place, says):
    told = asked(analyze, tmp_path, text, "--use-kube=false")
    assert "IST0106" in told
    assert place in told
    assert says in told
    assert "nternal error" not in told


@pytest.mark.parametrize(("text", "place", "says"), MALFORMED)
def test_validate_does_not_call_it_valid(tmp_path, text, place, says):
    told = asked(validate, tmp_path, text, "-f")
    assert place in told
    assert "would not be accepted" in told


def test_the_other_objects_of_the_file_are_analyzed(tmp_path):
    text = MALFORMED[0][0] + "---\n" + VS % "{hosts: [a], http: [{route: [{destination: {host: nowhere}}]}]}"
    assert 'Referenced host not found: "nowhere"' in asked(analyze, tmp_path, text, "--use-kube=false")


BROKEN = (
    VS % "{hosts: [b], http: [{route: [{destination: {host: gone}}]}]}" + "---\nspec: [\n---\nimages: {tag: latest}\n"
)


@pytest.mark.parametrize("command", [analyze, validate])
def test_what_cannot_be_parsed_does_not_hide_what_is_wrong_with_the_rest(tmp_path, command):
    (tmp_path / "in.yaml").write_text(BROKEN)
    (tmp_path / "other.yaml").write_text(VS.replace("name: a", "name: b") % "{hosts: [1b.*]}")
    more = ["--use-kube=false"] if command is analyze else ["-f"]
    done = CliRunner().invoke(command, [*more, str(tmp_path)])
    told = f"{done.output}{done.exception}"
    assert done.exception.code == (79 if command is analyze else 65)
    assert "in.yaml:7:1: while parsing" in told
    assert "in.yaml:8:1: expected a Kubernetes object" in told
    assert "other.yaml:4" in told
    assert ("gone" in told) is (command is analyze)


def test_an_unreadable_document_alone_fails_unless_it_is_to_be_ignored(tmp_path):
    path = tmp_path / "values.yaml"
    path.write_text("images: {tag: latest}\n")
    done = CliRunner().invoke(analyze, ["--use-kube=false", str(path)])
    assert done.exception.code == 65
    assert "values.yaml:1:1: expected a Kubernetes object" in str(done.exception)
    ignored = CliRunner().invoke(analyze, ["--use-kube=false", "--ignore-unknown", str(path)])
    assert not ignored.exit_code
    assert "left out" in ignored.output


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("{profile: demo, components: {pilot: {k8s: {replicaCount: 2}}}}", '" is valid'),
        (
            "{profile: demo, components: {pilot: {k8s: {replicas: 2}}}}",
            ":4:50: IstioOperator.install.istio.io x: spec.components.pilot.k8s.replicas",
        ),
        ("{profile: none}", 'there is no profile "none"'),
        ("{meshConfig: {defaultConfig: {statsCompression: true}}}", "Warning: "),
    ],
)
def test_an_installations_settings_are_validated_as_by_install(tmp_path, spec, says):
    head = "apiVersion: install.istio.io/v1alpha1\nkind: IstioOperator\nmetadata: {name: x}\nspec: "
    assert says in asked(validate, tmp_path, f"{head}{spec}\n")


def test_a_port_that_is_none_is_named_with_its_line(tmp_path):
    plugin = "apiVersion: extensions.istio.io/v1alpha1\nkind: WasmPlugin\nmetadata: {name: a}\nspec:\n  url: oci://a\n"
    told = asked(validate, tmp_path, plugin + "  match:\n  - ports:\n    - number: 0\n")
    assert ":8:7: " in told
    assert "is out of range" in told


INCOMPLETE = """\
apiVersion: v1
kind: Service
metadata:
  name: a
  labels: {app: }
  annotations: {networking.istio.io/exportTo: }
spec:
  selector: {app: a}
  ports: [{name: http}, {name: other, port: 80}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: a}
spec: {template: {metadata: {labels: {app: a, sidecar.istio.io/inject: "true"}}}}
---
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: a}
spec: {tracing: [null], accessLogging: [null]}
---
"""


def test_what_is_missing_is_no_internal_error(tmp_path):
    route = VS % "{hosts: [a], http: [{route: [{destination: {host: a}}]}]}"
    told = asked(analyze, tmp_path, INCOMPLETE + route, "--use-kube=false")
    assert "IST0118" in told
    assert "IST0001" not in told
