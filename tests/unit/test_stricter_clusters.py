"""Pod Security Standards: which pods of an installation meet them, with the values that the documentation gives."""

import re
from pathlib import Path

import pytest
from apiserver import Cluster
from injecting import pod

from lateen.cli import addons
from lateen.inject import deployment, pods
from lateen.install import manifests
from lateen.install.operator import resolve, specification
from lateen.kit import yamldoc

PAGE = Path(__file__).parents[2] / "docs" / "howto-kubernetes.md"
SAFE = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}


def documented():
    """The specification of the section on stricter clusters."""
    section = PAGE.read_text().partition("## Clusters with stricter rules")[2].partition("\n## ")[0]
    (text,) = re.findall(r"```yaml\n(.*?)```", section, re.DOTALL)
    return specification(yamldoc.load(text))


def templates(spec, native):
    """The pods of an installation, of an injected workload, and of a Gateway of the Gateway API, by name."""
    found = resolve("demo", [spec], [])
    out = {
        o["metadata"]["name"]: o["spec"]["template"]
        for part in manifests.render(found)
        for o in part.objects
        if o["kind"] in ("Deployment", "DaemonSet")
    }
    settings = pods.settings(found.spec["values"], native=native)
    app = [{"name": "app", "image": "app", "securityContext": SAFE}]
    out["injected"] = pods.inject(pod(containers=app), "shop", settings)
    listener = {"name": "web", "port": 80, "protocol": "HTTP"}
    gateway = {
        "metadata": {"name": "g", "namespace": "shop", "uid": "u"},
        "spec": {"gatewayClassName": "istio", "listeners": [listener]},
    }
    (made,) = (o for o in deployment.objects(gateway, settings) if o["kind"] == "Deployment")
    addon = {o["metadata"]["name"]: o["spec"]["template"] for path in addons.known().values()
             for o in addons.objects(path, "console") if o["kind"] == "Deployment"}  # fmt: skip
    return out | addon | {"of a Gateway": made["spec"]["template"]}


def refused(spec, level, native=False):
    """The pods that a namespace of that level does not take."""
    cluster = Cluster()
    labels = {"pod-security.kubernetes.io/enforce": level}
    cluster.must("POST", "/api/v1/namespaces", {"metadata": {"name": "shop", "labels": labels}})
    cluster.must("POST", "/api/v1/namespaces/shop/serviceaccounts", {"metadata": {"name": "default"}})
    out = set()
    for name, template in templates(spec, native).items():
        bare = {k: v for k, v in template["spec"].items() if k not in ("serviceAccountName", "priorityClassName")}
        meta = {"generateName": "p-", "annotations": template["metadata"].get("annotations") or {}}
        code, answer = cluster.ask("POST", "/api/v1/namespaces/shop/pods", {"metadata": meta, "spec": bare})
        if code != 201:
            assert "violates PodSecurity" in answer["message"], answer
            out.add(name)
    return out


@pytest.mark.parametrize("native", [False, True])
def test_the_documented_values_meet_the_strictest_standard(native):
    spec = documented() | {"components": {"cni": {"enabled": True}}}
    spec["values"]["gateways"]["istio-egressgateway"] = {"seccompProfile": {"type": "RuntimeDefault"}}
    assert refused(spec, "restricted", native) == {"istio-cni-node"}


def test_only_what_the_documentation_names_asks_for_more_than_baseline():
    assert refused({"components": {"cni": {"enabled": True}}}, "baseline") == {"istio-cni-node"}
    assert refused({}, "baseline") == {"injected"}


def test_nothing_of_the_mesh_writes_outside_of_its_volumes():
    """As in Istio's charts; what writes its own certificates to a temporary file would not start."""
    found = templates({}, False)
    for name in ("istiod", "istio-ingressgateway", "istio-egressgateway", "injected", "of a Gateway"):
        (proxy,) = (c for c in found[name]["spec"]["containers"] if c["name"] in ("discovery", "istio-proxy"))
        assert proxy["securityContext"]["readOnlyRootFilesystem"] is True, name


def test_addons_may_write_to_their_volumes():
    """A volume that a cluster provisions belongs to root; their image does not run as root."""
    claimed = 0
    for name, template in templates({}, False).items():
        spec = template["spec"]
        if any("persistentVolumeClaim" in v for v in spec.get("volumes", [])):
            (container,) = spec["containers"]
            assert spec["securityContext"]["fsGroup"] == container["securityContext"]["runAsGroup"], name
            claimed += 1
    assert claimed == 2


def test_a_profile_for_seccomp_is_what_is_missing_by_default():
    everything = {"istiod", "istio-ingressgateway", "istio-egressgateway", "of a Gateway", "injected"}
    assert refused({}, "restricted") == everything
