"""Pod Security admission: namespaces whose labels ask for a level, and pods that are below it."""

from __future__ import annotations

from typing import Any

import pytest
from apiserver import Cluster

LABEL = "pod-security.kubernetes.io/"
PODS = "/api/v1/namespaces/shop/pods"
SAFE: dict[str, Any] = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]},
}
SAFE_POD: dict[str, Any] = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}


def labelled(**levels: str) -> Cluster:
    cluster = Cluster()
    labels = {LABEL + mode.replace("_", "-"): level for mode, level in levels.items()}
    cluster.must("POST", "/api/v1/namespaces", {"metadata": {"name": "shop", "labels": labels}})
    cluster.must("POST", "/api/v1/namespaces/shop/serviceaccounts", {"metadata": {"name": "default"}})
    return cluster


def pod(context: dict[str, Any] | None = None, name: str = "p", **spec: Any) -> dict[str, Any]:
    one = {"name": "one", "image": "x", "securityContext": context or {}}
    return {"metadata": {"name": name}, "spec": {"containers": [one, {"name": "two", "image": "x"}], **spec}}


def refused(cluster: Cluster, made: dict[str, Any]) -> str:
    code, answer = cluster.ask("POST", PODS, made)
    assert (code, answer["reason"]) == (403, "Forbidden"), answer
    return str(answer["message"]).removeprefix('pods "p" is forbidden: violates PodSecurity ')


def test_a_pod_below_its_namespaces_level_is_refused_and_told_what_it_lacks() -> None:
    both = 'containers "one", "two"'
    assert refused(labelled(enforce="restricted"), pod()) == (
        f'"restricted:latest": allowPrivilegeEscalation != false ({both} must set '
        f"securityContext.allowPrivilegeEscalation=false), unrestricted capabilities ({both} must set "
        f'securityContext.capabilities.drop=["ALL"]), runAsNonRoot != true (pod or {both} must set '
        f"securityContext.runAsNonRoot=true), seccompProfile (pod or {both} must set "
        'securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost")'
    )


def test_a_pod_that_meets_the_level_is_taken_without_a_warning() -> None:
    cluster = labelled(enforce="restricted")
    spec = {"containers": [{"name": "one", "image": "x", "securityContext": SAFE}], "securityContext": SAFE_POD}
    cluster.must("POST", PODS, {"metadata": {"name": "p"}, "spec": spec})
    assert "Warning" not in cluster.head


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (pod(hostNetwork=True, hostPID=True), "host namespaces (hostNetwork=true, hostPID=true)"),
        (pod(volumes=[{"name": "h", "hostPath": {"path": "/x"}}]), 'hostPath volumes (volume "h")'),
        (pod({"privileged": True}), 'privileged (container "one" must not set securityContext.privileged=true)'),
        (
            pod({"capabilities": {"add": ["NET_ADMIN", "CHOWN", "BPF"]}}),
            (
                'non-default capabilities (container "one" must not include "BPF", "NET_ADMIN" in '
                "securityContext.capabilities.add)"
            ),
        ),
        (
            pod({"seccompProfile": {"type": "Unconfined"}}, securityContext={"seccompProfile": {"type": "Unconfined"}}),
            'seccompProfile (pod and container "one" must not set securityContext.seccompProfile.type to "Unconfined")',
        ),
        (
            pod({"seLinuxOptions": {"type": "bad", "role": "r"}}, securityContext={"seLinuxOptions": {"user": "u"}}),
            (
                'seLinuxOptions (pod and container "one" set forbidden securityContext.seLinuxOptions: type "bad"; '
                "user may not be set; role may not be set)"
            ),
        ),
        (
            pod(securityContext={"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}),
            "forbidden sysctls (kernel.msgmax)",
        ),
        (
            pod(securityContext={"appArmorProfile": {"type": "Unconfined"}}),
            'forbidden AppArmor profile (pod must not set AppArmor profile type to "Unconfined")',
        ),
    ],
)
def test_the_baseline_forbids_what_is_known_to_lead_to_the_node(made: dict[str, Any], says: str) -> None:
    assert refused(labelled(enforce="baseline"), made) == f'"baseline:latest": {says}'
    labelled(enforce="privileged").must("POST", PODS, made)


def test_a_port_of_the_node_is_named() -> None:
    made = pod()
    made["spec"]["containers"][0]["ports"] = [
        {"containerPort": 80, "hostPort": 8080},
        {"containerPort": 81, "hostPort": 9},
    ]
    says = '"baseline:latest": hostPort (container "one" uses hostPorts 8080, 9)'
    assert refused(labelled(enforce="baseline"), made) == says


def test_the_standards_of_an_earlier_version_hold_where_they_are_asked_for() -> None:
    context = {"sysctls": [{"name": "net.ipv4.tcp_keepalive_time", "value": "1"}]}
    labelled(enforce="baseline").must("POST", PODS, pod(securityContext=context))
    says = '"baseline:v1.26": forbidden sysctls (net.ipv4.tcp_keepalive_time)'
    assert refused(labelled(enforce="baseline", enforce_version="v1.26"), pod(securityContext=context)) == says
    assert "runAsUser=0" not in refused(
        labelled(enforce="restricted", enforce_version="v1.22"), pod(securityContext={"runAsUser": 0})
    )


def test_root_is_named_where_it_is_asked_for() -> None:
    context = {**SAFE_POD, "runAsNonRoot": False, "runAsUser": 0}
    made = {"name": "one", "image": "x", "securityContext": {**SAFE, "runAsUser": 0}}
    says = refused(
        labelled(enforce="restricted"),
        {"metadata": {"name": "p"}, "spec": {"containers": [made], "securityContext": context}},
    )
    assert says == (
        '"restricted:latest": runAsNonRoot != true (pod must not set securityContext.runAsNonRoot=false), '
        'runAsUser=0 (pod and container "one" must not set runAsUser=0)'
    )


def test_volumes_of_the_node_and_of_the_network_are_restricted() -> None:
    volumes = [{"name": "n", "nfs": {"server": "a", "path": "/b"}}, {"name": "h", "hostPath": {"path": "/x"}}]
    says = refused(labelled(enforce="restricted"), pod(volumes=[*volumes, {"name": "e", "emptyDir": {}}]))
    assert 'restricted volume types (volumes "n", "h" use restricted volume types "hostPath", "nfs")' in says
    assert "hostPath volumes" not in says


def test_a_workload_is_warned_of_and_taken() -> None:
    """Its pods would be refused, which nobody sees who creates it."""
    cluster = labelled(enforce="restricted")
    template = {"metadata": {"labels": {"a": "b"}}, "spec": pod()["spec"]}
    made = {"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template}}
    cluster.must("POST", "/apis/apps/v1/namespaces/shop/deployments", made)
    assert 'Warning: 299 - "would violate PodSecurity \\"restricted:latest\\": allowPriv' in cluster.head
    assert 'type to \\"RuntimeDefault\\" or \\"Localhost\\")"' in cluster.head  # the whole of it


def test_a_warning_may_be_stricter_than_what_is_refused() -> None:
    cluster = labelled(enforce="baseline", warn="restricted", warn_version="v1.24")
    cluster.must("POST", PODS, pod())
    assert 'would violate PodSecurity \\"restricted:v1.24\\": ' in cluster.head


def test_a_pod_that_is_there_may_be_labelled_but_get_no_other_image() -> None:
    cluster = Cluster()
    cluster.must("POST", PODS.replace("shop", "default"), pod())
    label = {"metadata": {"labels": {f"{LABEL}enforce": "restricted"}}}
    cluster.must("PATCH", "/api/v1/namespaces/default", label)
    assert (
        'existing pods in namespace \\"default\\" violate the new PodSecurity enforce level \\"restricted:'
        in cluster.head
    )
    reasons = "allowPrivilegeEscalation != false, unrestricted capabilities, runAsNonRoot != true, seccompProfile"
    assert f'Warning: 299 - "p: {reasons}"' in cluster.head
    path = f"{PODS.replace('shop', 'default')}/p"
    cluster.must("PATCH", path, {"metadata": {"labels": {"a": "b"}}})
    containers = [{"name": "one", "image": "y"}, {"name": "two", "image": "x"}]
    assert cluster.ask("PATCH", path, {"spec": {"containers": containers}})[0] == 403


@pytest.mark.parametrize(
    ("label", "value", "says"),
    [
        ("enforce", "bogus", "must be one of privileged, baseline, restricted"),
        ("warn-version", "1.2", 'must be "latest" or "v1.x"'),
    ],
)
def test_a_label_that_says_nothing_is_refused(label: str, value: str, says: str) -> None:
    body = {"metadata": {"name": "shop", "labels": {LABEL + label: value}}}
    code, answer = Cluster().ask("POST", "/api/v1/namespaces", body)
    assert (code, answer["message"]) == (
        422,
        f'Namespace "shop" is invalid: metadata.labels[{LABEL}{label}]: Invalid value: "{value}": {says}',
    )
