"""What kubectl get shows, kind by kind, as Kubernetes' own printers show it."""

from datetime import timedelta

import pytest

from lateen.cluster.apiserver import tables
from lateen.cluster.apiserver.built_in import BUILT_IN
from lateen.cluster.apiserver.registry import Registry
from lateen.cluster.apiserver.resources import from_crd
from lateen.kit import times

LONG_AGO = times.stamp(times.now() - timedelta(days=100, hours=12))
META = {"name": "x", "namespace": "default", "creationTimestamp": LONG_AGO}


def shown(kind, body, wide=False):
    """Title -> cell of one object."""
    resource = next(r for r in BUILT_IN if r.kind == kind)
    meta = META | body.pop("metadata", {})
    found = tables.table(resource, resource.version, [{"kind": kind, "metadata": meta, **body}], {}, "None")
    cells = zip(found["columnDefinitions"], found["rows"][0]["cells"], strict=True)
    return {c["name"]: cell for c, cell in cells if wide or not c["priority"]}


def pod(statuses=(), inits=(), init_specs=(), **status):
    spec = {"containers": [{"name": f"c{i}"} for i in range(max(1, len(statuses)))], "initContainers": list(init_specs)}
    return {
        "spec": spec,
        "status": {"containerStatuses": list(statuses), "initContainerStatuses": list(inits)} | status,
    }


RUNNING = {"ready": True, "restartCount": 0, "state": {"running": {}}}
SIDECAR = {"name": "s", "restartPolicy": "Always"}
ENDED = {"terminated": {"exitCode": 0, "reason": "Completed"}}
PODS = {
    "all containers run": (pod([RUNNING, RUNNING], phase="Running"), "2/2 Running 0"),
    "one waits": (
        pod([RUNNING, {"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "restartCount": 3}], phase="Running"),
        "1/2 CrashLoopBackOff 3",
    ),
    "a container has been restarted long ago": (
        pod([RUNNING | {"restartCount": 2, "lastState": {"terminated": {"finishedAt": LONG_AGO}}}], phase="Running"),
        "1/1 Running 2 (100d ago)",
    ),
    "it has completed": (pod([{"state": ENDED}], phase="Succeeded"), "0/1 Completed 0"),
    "one of two has completed": (pod([RUNNING, {"state": ENDED}], phase="Running"), "1/2 NotReady 0"),
    "it was ended by a signal": (
        pod([{"state": {"terminated": {"exitCode": 137, "signal": 9}}}], phase="Failed"),
        "0/1 Signal:9 0",
    ),
    "the second init container runs": (
        pod(
            inits=[{"name": "a", "state": ENDED}, {"name": "b", "state": {"running": {}}}],
            init_specs=[{"name": "a"}, {"name": "b"}],
            phase="Pending",
        ),
        "0/1 Init:1/2 0",
    ),
    "an init container fails": (
        pod(inits=[{"name": "a", "state": {"terminated": {"exitCode": 3}}}], init_specs=[{"name": "a"}]),
        "0/1 Init:ExitCode:3 0",
    ),
    "a native sidecar counts": (
        pod(
            [RUNNING],
            inits=[{"name": "s", "state": {"running": {}}, "started": True, "ready": True, "restartCount": 0}],
            init_specs=[SIDECAR],
            phase="Running",
        ),
        "2/2 Running 0",
    ),
    "it was evicted": (pod(phase="Failed", reason="Evicted"), "0/1 Evicted 0"),
    "it is being deleted": (
        pod([RUNNING], phase="Running") | {"metadata": {"deletionTimestamp": LONG_AGO}},
        "1/1 Terminating 0",
    ),
}


@pytest.mark.parametrize("case", PODS)
def test_a_pod(case):
    body, expected = PODS[case]
    cells = shown("Pod", dict(body))
    assert f"{cells['Ready']} {cells['Status']} {cells['Restarts']}" == expected
    assert cells["Age"] == "100d"


ROWS = [
    ("Lease", {"spec": {"holderIdentity": "me"}}, {"Name": "x", "Holder": "me", "Age": "100d"}),
    ("Role", {"rules": []}, {"Name": "x", "Created At": LONG_AGO}),
    ("ClusterRole", {"rules": []}, {"Name": "x", "Created At": LONG_AGO}),
    (
        "Node",
        {
            "metadata": {"labels": {"node-role.kubernetes.io/control-plane": ""}},
            "spec": {"unschedulable": True},
            "status": {
                "conditions": [{"type": "Ready", "status": "True"}],
                "nodeInfo": {"kubeletVersion": "v1"},
            },
        },
        {
            "Name": "x",
            "Status": "Ready,SchedulingDisabled",
            "Roles": "control-plane",
            "Age": "100d",
            "Version": "v1",
        },
    ),
    (
        "Event",
        {
            "lastTimestamp": LONG_AGO,
            "type": "Normal",
            "reason": "R",
            "message": "m\n",
            "involvedObject": {"kind": "Pod", "name": "p"},
        },
        {"Last Seen": "100d", "Type": "Normal", "Reason": "R", "Object": "pod/p", "Message": "m"},
    ),
    (
        "Service",
        {
            "spec": {
                "type": "ClusterIP",
                "clusterIP": "10.0.0.1",
                "externalIPs": ["1.2.3.4"],
                "ports": [{"port": 80, "protocol": "TCP"}],
            }
        },
        {
            "Name": "x",
            "Type": "ClusterIP",
            "Cluster-IP": "10.0.0.1",
            "External-IP": "1.2.3.4",
            "Port(s)": "80/TCP",
            "Age": "100d",
        },
    ),
    (
        "Ingress",
        {"spec": {"rules": [{}]}},
        {"Name": "x", "Class": "<none>", "Hosts": "*", "Address": "", "Ports": "80", "Age": "100d"},
    ),
    (
        "IngressClass",
        {"spec": {"controller": "c", "parameters": {"apiGroup": "g", "kind": "K", "name": "n"}}},
        {"Name": "x", "Controller": "c", "Parameters": "K.g/n", "Age": "100d"},
    ),
    ("ConfigMap", {"data": {"a": "1"}, "binaryData": {"b": "Mg=="}}, {"Name": "x", "Data": "2", "Age": "100d"}),
    ("MutatingWebhookConfiguration", {"webhooks": [{}]}, {"Name": "x", "Webhooks": 1, "Age": "100d"}),
]


@pytest.mark.parametrize(("kind", "body", "expected"), ROWS, ids=[kind for kind, *_ in ROWS])
def test_a_row(kind, body, expected):
    assert shown(kind, dict(body)) == expected


def test_bindings_show_their_role_and_with_wide_their_subjects():
    subjects = [
        {"kind": "User", "name": "u"},
        {"kind": "Group", "name": "g"},
        {"kind": "Group", "name": "h"},
        {"kind": "ServiceAccount", "name": "s", "namespace": "n"},
    ]
    body = {"roleRef": {"kind": "ClusterRole", "name": "view"}, "subjects": subjects}
    assert shown("RoleBinding", dict(body)) == {"Name": "x", "Role": "ClusterRole/view", "Age": "100d"}
    wide = shown("ClusterRoleBinding", dict(body), wide=True)
    assert (wide["Users"], wide["Groups"], wide["ServiceAccounts"]) == ("u", "g, h", "n/s")


def test_every_kind_has_a_name_and_a_time():
    ageless = ("PodTemplate", "ComponentStatus")  # as in Kubernetes
    for resource in Registry().all():
        found = tables.table(resource, resource.version, [], {}, "None")
        titles = [c["name"] for c in found["columnDefinitions"]]
        assert "Name" in titles
        assert {"Age", "Created At", "Last Seen"} & set(titles) or resource.kind in ageless


def test_columns_of_a_custom_resource():
    columns = [
        {"name": "Ready", "type": "string", "jsonPath": '.status.conditions[?(@.type=="Ready")].status'},
        {"name": "Hosts", "type": "string", "jsonPath": ".spec.hosts"},
        {"name": "First", "type": "string", "jsonPath": ".spec.hosts[*]"},
        {"name": "Count", "type": "integer", "jsonPath": ".spec.count"},
        {"name": "Text", "type": "integer", "jsonPath": ".spec.hosts[0]"},
        {"name": "When", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
        {"name": "Never", "type": "date", "jsonPath": ".spec.hosts[0]"},
        {"name": "Nothing", "type": "string", "jsonPath": ".spec.nothing"},
    ]
    spec = {
        "group": "example.com",
        "names": {"plural": "widgets", "kind": "Widget"},
        "versions": [{"name": "v1", "additionalPrinterColumns": columns}],
    }
    obj = {
        "metadata": META,
        "spec": {"hosts": ["a", "b"], "count": 3},
        "status": {"conditions": [{"type": "Synced", "status": "True"}, {"type": "Ready", "status": "False"}]},
    }
    found = tables.table(from_crd({"spec": spec}), "v1", [obj], {}, "None")
    assert found["rows"][0]["cells"] == ["x", "False", '["a","b"]', "a", 3, None, "100d", "<invalid>", None]
