"""Objects of Kubernetes' own kinds with one field that is wrong, and what kube-apiserver 1.33 answers to each.

``invalid_objects.json`` has the answers; tests/real-kubernetes/test_invalid_objects.py measures them.
"""

import copy
import json
from pathlib import Path

ANSWERS = Path(__file__).parent / "invalid_objects.json"

POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "p"},
    "spec": {"containers": [{"name": "c", "image": "x"}]},
}
TPL = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "x"}]}}
DEP = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "d"},
    "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": TPL},
}
STS = {
    "apiVersion": "apps/v1",
    "kind": "StatefulSet",
    "metadata": {"name": "d"},
    "spec": {"serviceName": "s", "selector": {"matchLabels": {"a": "b"}}, "template": TPL},
}
DS = {
    "apiVersion": "apps/v1",
    "kind": "DaemonSet",
    "metadata": {"name": "d"},
    "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": TPL},
}
RS = {
    "apiVersion": "apps/v1",
    "kind": "ReplicaSet",
    "metadata": {"name": "d"},
    "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": TPL},
}
RC = {
    "apiVersion": "v1",
    "kind": "ReplicationController",
    "metadata": {"name": "d"},
    "spec": {"selector": {"a": "b"}, "template": TPL},
}
JOB = {
    "apiVersion": "batch/v1",
    "kind": "Job",
    "metadata": {"name": "j"},
    "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "x"}]}}},
}
CRON = {
    "apiVersion": "batch/v1",
    "kind": "CronJob",
    "metadata": {"name": "j"},
    "spec": {"schedule": "* * * * *", "jobTemplate": {"spec": JOB["spec"]}},
}
SVC = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}}
ING = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "Ingress",
    "metadata": {"name": "i"},
    "spec": {
        "rules": [
            {
                "host": "a.example",
                "http": {
                    "paths": [
                        {
                            "path": "/",
                            "pathType": "Prefix",
                            "backend": {"service": {"name": "s", "port": {"number": 80}}},
                        }
                    ]
                },
            }
        ]
    },
}
NP = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "NetworkPolicy",
    "metadata": {"name": "n"},
    "spec": {"podSelector": {}},
}
CM = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": "b"}}
SEC = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {}}
NS = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}}
PVC = {
    "apiVersion": "v1",
    "kind": "PersistentVolumeClaim",
    "metadata": {"name": "p"},
    "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
}
PV = {
    "apiVersion": "v1",
    "kind": "PersistentVolume",
    "metadata": {"name": "p"},
    "spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "hostPath": {"path": "/x"}},
}
SC = {
    "apiVersion": "storage.k8s.io/v1",
    "kind": "StorageClass",
    "metadata": {"name": "x"},
    "provisioner": "x.example/y",
}
HPA = {
    "apiVersion": "autoscaling/v2",
    "kind": "HorizontalPodAutoscaler",
    "metadata": {"name": "h"},
    "spec": {"maxReplicas": 3, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}},
}
PDB = {
    "apiVersion": "policy/v1",
    "kind": "PodDisruptionBudget",
    "metadata": {"name": "p"},
    "spec": {"minAvailable": 1, "selector": {"matchLabels": {"a": "b"}}},
}
RQ = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"}, "spec": {"hard": {"pods": "1"}}}
LR = {
    "apiVersion": "v1",
    "kind": "LimitRange",
    "metadata": {"name": "l"},
    "spec": {"limits": [{"type": "Container", "max": {"cpu": "1"}}]},
}
PC = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "h"}, "value": 10}
ROLE = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "Role",
    "metadata": {"name": "r"},
    "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}],
}
CROLE = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "ClusterRole",
    "metadata": {"name": "r"},
    "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}],
}
RB = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "RoleBinding",
    "metadata": {"name": "r"},
    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "x"},
    "subjects": [{"kind": "User", "name": "x", "apiGroup": "rbac.authorization.k8s.io"}],
}
LEASE = {
    "apiVersion": "coordination.k8s.io/v1",
    "kind": "Lease",
    "metadata": {"name": "l"},
    "spec": {"holderIdentity": "me"},
}
VWC = {
    "apiVersion": "admissionregistration.k8s.io/v1",
    "kind": "ValidatingWebhookConfiguration",
    "metadata": {"name": "v"},
    "webhooks": [
        {
            "name": "a.b.c",
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
            "clientConfig": {"service": {"namespace": "x", "name": "y"}},
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
        }
    ],
}
VAP = {
    "apiVersion": "admissionregistration.k8s.io/v1",
    "kind": "ValidatingAdmissionPolicy",
    "metadata": {"name": "v"},
    "spec": {
        "matchConstraints": {
            "resourceRules": [
                {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
            ]
        },
        "validations": [{"expression": "true"}],
    },
}
CRD = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "things.example.com"},
    "spec": {
        "group": "example.com",
        "scope": "Namespaced",
        "names": {"plural": "things", "kind": "Thing"},
        "versions": [
            {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}}
        ],
    },
}
EP = {
    "apiVersion": "v1",
    "kind": "Endpoints",
    "metadata": {"name": "e"},
    "subsets": [{"addresses": [{"ip": "10.1.1.1"}], "ports": [{"port": 80}]}],
}
ES = {
    "apiVersion": "discovery.k8s.io/v1",
    "kind": "EndpointSlice",
    "metadata": {"name": "e"},
    "addressType": "IPv4",
    "endpoints": [{"addresses": ["10.1.1.1"]}],
    "ports": [{"port": 80}],
}
SA = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "a"}}
NODE = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "nn"}}
EV = {
    "apiVersion": "v1",
    "kind": "Event",
    "metadata": {"name": "e"},
    "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"},
}
CSR = {
    "apiVersion": "certificates.k8s.io/v1",
    "kind": "CertificateSigningRequest",
    "metadata": {"name": "c"},
    "spec": {"request": "eA==", "signerName": "example.com/x", "usages": ["client auth"]},
}
IC = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "IngressClass",
    "metadata": {"name": "i"},
    "spec": {"controller": "a.b/c"},
}
PT = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "i"}, "template": TPL}
CD = {"apiVersion": "storage.k8s.io/v1", "kind": "CSIDriver", "metadata": {"name": "i"}, "spec": {}}
VALID = {
    o["kind"]: o
    for o in (
        POD,
        DEP,
        STS,
        DS,
        RS,
        RC,
        JOB,
        CRON,
        SVC,
        ING,
        NP,
        CM,
        SEC,
        NS,
        PVC,
        PV,
        SC,
        HPA,
        PDB,
        RQ,
        LR,
        PC,
        ROLE,
        CROLE,
        RB,
        LEASE,
        VWC,
        VAP,
        CRD,
        EP,
        ES,
        SA,
        NODE,
        EV,
        CSR,
        IC,
        PT,
        CD,
    )
}

CLUSTER = {
    "Namespace",
    "Node",
    "PersistentVolume",
    "StorageClass",
    "PriorityClass",
    "ClusterRole",
    "ValidatingWebhookConfiguration",
    "ValidatingAdmissionPolicy",
    "CustomResourceDefinition",
    "CertificateSigningRequest",
    "IngressClass",
    "CSIDriver",
}


def cases():
    """Of each: kind, field, value (null: the field is missing), whether an object is changed to that (``update``),
    code, reason, and the causes' reasons and fields."""
    return [{**c, "causes": _once(c["causes"])} for c in json.loads(ANSWERS.read_text())]


_SHARED = ("schema", "subresources", "additionalPrinterColumns", "selectableFields")


def _once(causes):
    """Kubernetes says some things twice, and moves what all versions of a definition have in common to fields that
    nobody has written."""
    found = {(reason, field.replace("spec.validation.", "spec.schema.")) for reason, field in causes}
    for name in _SHARED:
        found = {(r, f.replace(f"spec.{name}", f"spec.versions[0].{name}")) for r, f in found}
    return [list(c) for c in sorted(found)]


def title(case):
    way = "change of " if case.get("update") else ""
    return f"{way}{case['kind']} {case['field']}={json.dumps(case['value'])[:160]}"


OPTIONS = "?dryRun=All&fieldValidation=Strict"


def place(kind):
    """Where objects of a kind are created."""
    version, name = VALID[kind]["apiVersion"], kind.lower()
    plural = name if name == "endpoints" else name + "es" if name[-1] == "s" else name + "s"
    plural = name[:-1] + "ies" if name[-1] == "y" else plural
    group = "/api/v1" if version == "v1" else f"/apis/{version}"
    place = "" if kind in CLUSTER else "/namespaces/default"
    return f"{group}{place}/{plural}"


def named(kind):
    """Where the valid object of a kind is."""
    return f"{place(kind)}/{VALID[kind]['metadata']['name']}"


def body(case):
    found = at = copy.deepcopy(VALID[case["kind"]])
    *way, last = (int(p) if p.isdigit() else p for p in case["field"].split("."))
    for part in way:
        at = at[part]
    if case["value"] is None:
        at.pop(last, None)
    else:
        at[last] = case["value"]
    return found


def answer(code, status):
    """What of a refusal programs act upon."""
    causes = (status.get("details") or {}).get("causes") or []
    found = _once([c.get("reason") or "", c.get("field") or ""] for c in causes)
    return {
        "code": code,
        "reason": (status.get("reason") or "") if code >= 300 else "",
        "causes": found if code >= 300 else [],
    }
