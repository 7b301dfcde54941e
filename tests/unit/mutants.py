"""Requests that went wrong on their way: manifests and reviews with one or a few places changed at random.

``python tests/unit/mutants.py --count 10000 --seconds 300`` is ``make fuzz``: all of them against one API server, with
the memory of the process bounded. The unit tests run a short part of it with a fixed seed.
"""

from __future__ import annotations

import argparse
import base64
import copy
import json
import logging
import random
import resource
import sys
import time
from collections import Counter

from apiserver import Cluster

from lateen.kit import certs, pkcs10

MEMORY = 300 * 1024 * 1024
NS = "/api/v1/namespaces/default"
META = {"name": "m", "namespace": "default", "labels": {"a": "b"}, "annotations": {"c": "d"}, "finalizers": []}
POD = {
    "restartPolicy": "Always",
    "volumes": [
        {"name": "v", "emptyDir": {}},
        {"name": "s", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}},
    ],
    "containers": [
        {
            "name": "c",
            "image": "i",
            "ports": [{"name": "p", "containerPort": 80}],
            "env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
            "volumeMounts": [{"name": "v", "mountPath": "/m", "subPath": "a"}],
            "readinessProbe": {"httpGet": {"path": "/", "port": "p"}, "periodSeconds": 1},
            "resources": {"limits": {"cpu": "1"}},
        }
    ],
}
TEMPLATE = {
    "replicas": 1,
    "selector": {"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]},
    "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 1}},
    "template": {"metadata": {"labels": {"a": "b"}}, "spec": POD},
}
RBAC = "/apis/rbac.authorization.k8s.io/v1"
RULES = {"rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"], "resourceNames": ["a"]}]}
BINDING = {
    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "r"},
    "subjects": [{"kind": "ServiceAccount", "name": "a", "namespace": "default"}],
}
HOOK = {
    "name": "a.b.c",
    "sideEffects": "None",
    "admissionReviewVersions": ["v1"],
    "clientConfig": {"service": {"name": "s", "namespace": "default", "port": 443}, "caBundle": ""},
    "rules": [{"operations": ["CREATE"], "apiGroups": ["x"], "apiVersions": ["v1"], "resources": ["y"]}],
    "namespaceSelector": {"matchLabels": {"no": "where"}},
}
CRD = {
    "group": "fuzz.example.com",
    "scope": "Namespaced",
    "names": {"plural": "ms", "kind": "M", "shortNames": ["mm"]},
    "versions": [
        {
            "name": "v1",
            "served": True,
            "storage": True,
            "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.n", "statusReplicasPath": ".status.n"}},
            "additionalPrinterColumns": [{"name": "N", "type": "string", "jsonPath": ".spec.n"}],
            "schema": {
                "openAPIV3Schema": {
                    "type": "object",
                    "properties": {"spec": {"type": "object", "properties": {"n": {"type": "integer", "minimum": 0}}}},
                }
            },
        }
    ],
}
ADMISSION = "/apis/admissionregistration.k8s.io/v1"
TARGET = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}
CSR = base64.b64encode(pkcs10.request(certs.new_key()).encode()).decode()
POLICY = {
    "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
    "matchConstraints": {
        "resourceRules": [
            {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["*"], "resources": ["configmaps"], "scope": "*"}
        ],
        "objectSelector": {"matchExpressions": [{"key": "c", "operator": "DoesNotExist"}]},
    },
    "matchConditions": [{"name": "a", "expression": "request.userInfo.groups.exists(g, g != 'x')"}],
    "variables": [{"name": "n", "expression": "object.?data.?a.orValue('z')"}],
    "validations": [
        {
            "expression": "variables.n != params.data.a",
            "messageExpression": "'it is ' + variables.n",
            "reason": "Invalid",
        }
    ],
    "auditAnnotations": [{"key": "k", "valueExpression": "string(size(variables.n))"}],
}
ACCESS = {"resourceAttributes": {"verb": "get", "resource": "pods", "namespace": "default"}}
AUTH, AUTHZ = "/apis/authentication.k8s.io/v1", "/apis/authorization.k8s.io/v1"


def _spec(spec, **more):
    return {"metadata": dict(META), "spec": spec, **more}


BODIES = [
    ("POST", f"{NS}/pods", _spec(POD, status={"podIP": "1.2.3.4"})),
    ("POST", f"{NS}/configmaps", {"metadata": META, "data": {"a": "b"}, "binaryData": {"c": "ZA=="}}),
    ("POST", f"{NS}/secrets", {"metadata": META, "stringData": {"a": "b"}, "data": {"c": "ZA=="}, "type": "Opaque"}),
    (
        "POST",
        f"{NS}/services",
        _spec(
            {
                "type": "NodePort",
                "selector": {"a": "b"},
                "ports": [{"port": 80}],
                "sessionAffinity": "ClientIP",
                "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}},
                "externalIPs": ["192.0.2.1"],
            }
        ),
    ),
    (
        "POST",
        f"{NS}/endpoints",
        {"metadata": META, "subsets": [{"addresses": [{"ip": "1.2.3.4"}], "ports": [{"port": 1}]}]},
    ),
    ("POST", f"{NS}/serviceaccounts", {"metadata": META, "secrets": [{"name": "a"}]}),
    ("POST", "/api/v1/namespaces", {"metadata": {"name": "fuzz"}, "spec": {"finalizers": ["kubernetes"]}}),
    (
        "POST",
        f"{NS}/events",
        {"metadata": META, "involvedObject": {"kind": "Pod", "name": "m"}, "reason": "R", "count": 1},
    ),
    ("POST", "/apis/apps/v1/namespaces/default/deployments", _spec(TEMPLATE)),
    (
        "POST",
        "/apis/apps/v1/namespaces/default/replicasets",
        _spec({k: v for k, v in TEMPLATE.items() if k != "strategy"}),
    ),
    (
        "POST",
        "/apis/networking.k8s.io/v1/namespaces/default/ingresses",
        _spec(
            {
                "rules": [
                    {
                        "host": "a.b",
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
            }
        ),
    ),
    (
        "POST",
        "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices",
        {"metadata": META, "addressType": "IPv4", "endpoints": [{"addresses": ["1.2.3.4"]}], "ports": [{"port": 1}]},
    ),
    (
        "POST",
        "/apis/coordination.k8s.io/v1/namespaces/default/leases",
        _spec({"holderIdentity": "a", "leaseDurationSeconds": 1}),
    ),
    ("POST", f"{RBAC}/namespaces/default/roles", {"metadata": META, **RULES}),
    ("POST", f"{RBAC}/clusterroles", {"metadata": {"name": "r"}, **RULES}),
    ("POST", f"{RBAC}/namespaces/default/rolebindings", {"metadata": META, **BINDING}),
    ("POST", f"{RBAC}/clusterrolebindings", {"metadata": {"name": "b"}, **BINDING}),
    (
        "POST",
        "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations",
        {"metadata": {"name": "h"}, "webhooks": [HOOK]},
    ),
    (
        "POST",
        "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
        {"metadata": {"name": "ms.fuzz.example.com"}, "spec": CRD},
    ),
    ("POST", "/apis/things.example.com/v1/namespaces/default/things", _spec({"n": 1}, status={"n": 1})),
    (
        "POST",
        "/apis/certificates.k8s.io/v1/certificatesigningrequests",
        {"metadata": {"name": "c"}, "spec": {"request": CSR, "signerName": "a.b/c", "usages": ["client auth"]}},
    ),
    (
        "PUT",
        "/apis/certificates.k8s.io/v1/certificatesigningrequests/kept/approval",
        {
            "metadata": {"name": "kept"},
            "status": {"conditions": [{"type": "Approved", "status": "True", "reason": "R"}]},
        },
    ),
    (
        "POST",
        "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers",
        {
            "metadata": META | {"annotations": {"autoscaling.alpha.kubernetes.io/metrics": "[]"}},
            "spec": {"scaleTargetRef": TARGET, "maxReplicas": 3, "targetCPUUtilizationPercentage": 50},
        },
    ),
    (
        "POST",
        "/apis/events.k8s.io/v1/namespaces/default/events",
        {
            "metadata": META,
            "eventTime": "2026-01-01T00:00:00.000000Z",
            "regarding": {"kind": "Pod", "name": "m", "namespace": "default"},
            "reportingController": "a.b/c",
            "reportingInstance": "i",
            "action": "A",
            "reason": "R",
            "type": "Normal",
        },
    ),
    ("POST", f"{ADMISSION}/validatingadmissionpolicies", {"metadata": {"name": "m"}, "spec": POLICY}),
    ("PUT", f"{ADMISSION}/validatingadmissionpolicies/kept", {"metadata": {"name": "kept"}, "spec": POLICY}),
    (
        "POST",
        f"{ADMISSION}/validatingadmissionpolicybindings",
        {
            "metadata": {"name": "m"},
            "spec": {
                "policyName": "kept",
                "paramRef": {"selector": {"matchLabels": {"a": "b"}}, "parameterNotFoundAction": "Deny"},
                "validationActions": ["Warn", "Audit"],
                "matchResources": {"namespaceSelector": {"matchLabels": {"no": "where"}}},
            },
        },
    ),
    ("POST", f"{AUTH}/tokenreviews", {"spec": {"token": "a.b.c", "audiences": ["x"]}}),
    ("POST", f"{AUTH}/selfsubjectreviews", {"metadata": {}}),
    (
        "POST",
        f"{AUTHZ}/subjectaccessreviews",
        {"spec": {**ACCESS, "user": "u", "groups": ["g"], "extra": {"a": ["b"]}}},
    ),
    ("POST", f"{AUTHZ}/selfsubjectaccessreviews", {"spec": {"nonResourceAttributes": {"path": "/x", "verb": "get"}}}),
    ("POST", f"{AUTHZ}/namespaces/default/localsubjectaccessreviews", {"spec": {**ACCESS, "user": "u"}}),
    ("POST", f"{AUTHZ}/selfsubjectrulesreviews", {"spec": {"namespace": "default"}}),
    (
        "POST",
        f"{NS}/serviceaccounts/default/token",
        {"spec": {"audiences": ["a"], "expirationSeconds": 600, "boundObjectRef": {"kind": "Pod", "name": "kept"}}},
    ),
    ("POST", f"{NS}/pods/kept/eviction", {"metadata": {"name": "kept"}, "deleteOptions": {"dryRun": ["All"]}}),
    ("PUT", f"{NS}/configmaps/kept", {"metadata": {**META, "name": "kept"}, "data": {"a": "b"}}),
    (
        "PUT",
        "/apis/apps/v1/namespaces/default/deployments/kept/scale",
        {"metadata": {"name": "kept"}, "spec": {"replicas": 1}},
    ),
    ("PUT", f"{NS}/pods/kept/status", {"metadata": {"name": "kept"}, "status": {"podIP": "1.2.3.4", "conditions": []}}),
    (
        "PUT",
        "/api/v1/namespaces/default/finalize",
        {"metadata": {"name": "default"}, "spec": {"finalizers": ["kubernetes"]}},
    ),
    ("DELETE", f"{NS}/configmaps/kept?dryRun=All", {"propagationPolicy": "Background", "preconditions": {"uid": "x"}}),
    ("PATCH merge", f"{NS}/pods/kept", {"metadata": {"labels": {"a": "c"}, "name": "kept"}, "spec": {"nodeName": "n"}}),
    ("PATCH merge", "/apis/things.example.com/v1/namespaces/default/things/kept", {"spec": {"n": 2}}),
    ("PATCH merge", "/apis/things.example.com/v1/namespaces/default/things/kept/scale", {"spec": {"replicas": 2}}),
    (
        "PATCH strategic",
        "/apis/apps/v1/namespaces/default/deployments/kept",
        {
            "spec": {
                "strategy": {"$retainKeys": ["type"], "type": "Recreate"},
                "template": {
                    "spec": {
                        "$setElementOrder/containers": [{"name": "c"}],
                        "containers": [{"name": "c", "image": "j", "env": [{"name": "A", "$patch": "delete"}]}],
                        "$deleteFromPrimitiveList/x": ["a"],
                    }
                },
            }
        },
    ),
    (
        "PATCH json",
        f"{NS}/configmaps/kept",
        [
            {"op": "test", "path": "/data/a", "value": "b"},
            {"op": "add", "path": "/metadata/labels/x", "value": "y"},
            {"op": "move", "from": "/data/a", "path": "/data/b"},
            {"op": "replace", "path": "/data", "value": {"a": "b"}},
        ],
    ),
]
QUERIES = (
    "limit",
    "continue",
    "resourceVersion",
    "timeoutSeconds",
    "labelSelector",
    "fieldSelector",
    "dryRun",
    "watch",
)
ODD = [
    None,
    True,
    False,
    0,
    -1,
    1,
    1.5,
    2**31,
    2**63,
    -(2**63),
    1e300,
    "",
    "x",
    "../../x",
    "a b",
    "é\u2028",
    "1",
    "None",
]
ODD += [
    [],
    {},
    [None],
    [[]],
    {"": None},
    {"$patch": "delete"},
    {"$patch": "replace"},
    "a" * 300,
    [{}],
    {"a": {"b": []}},
]


def places(value, path=()):
    yield path
    if isinstance(value, dict):
        for key, child in value.items():
            yield from places(child, (*path, key))
    elif isinstance(value, list):
        for i, child in enumerate(value):
            yield from places(child, (*path, i))


def mutant(body, chance):
    """The body with one to three places replaced, removed, wrapped, doubled or renamed."""
    root = [copy.deepcopy(body)]
    for _ in range(chance.choice((1, 1, 2, 3))):
        path = (0, *chance.choice(list(places(root[0]))))
        parent = root
        for step in path[:-1]:
            parent = parent[step]
        last = path[-1]
        match chance.randrange(6):
            case 0 if len(path) > 1:
                del parent[last]
            case 1:
                parent[last] = [parent[last]]
            case 2:
                parent[last] = {chance.choice(("x", "name", "0", "$patch")): parent[last]}
            case 3 if isinstance(parent, list) and len(path) > 1:
                parent.append(copy.deepcopy(parent[last]))
            case 4 if isinstance(parent, dict):
                parent[str(chance.choice(ODD))] = parent.pop(last)
            case _:
                parent[last] = copy.deepcopy(chance.choice(ODD))
    return root[0]


def prepared():
    """A cluster with something to update, patch and delete."""
    cluster = Cluster()
    crd = copy.deepcopy(CRD) | {"group": "things.example.com", "names": {"plural": "things", "kind": "Thing"}}
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    cluster.must(
        "POST", path, {"metadata": {"name": "things.example.com"} | {"name": "things.things.example.com"}, "spec": crd}
    )
    kept = {"metadata": {"name": "kept", "labels": {"a": "b"}}}
    cluster.must("POST", f"{NS}/configmaps", {**kept, "data": {"a": "b"}})
    cluster.must("POST", f"{NS}/pods", {**kept, "spec": POD})
    named = {"metadata": {"name": "kept"}}
    asked = {"request": CSR, "signerName": "a.b/c", "usages": ["client auth"]}
    cluster.must("POST", "/apis/certificates.k8s.io/v1/certificatesigningrequests", named | {"spec": asked})
    cluster.must("POST", f"{ADMISSION}/validatingadmissionpolicies", named | {"spec": POLICY})
    binding = {"policyName": "kept", "validationActions": ["Warn"]}
    binding["paramRef"] = {"name": "kept", "namespace": "default", "parameterNotFoundAction": "Allow"}
    cluster.must("POST", f"{ADMISSION}/validatingadmissionpolicybindings", named | {"spec": binding})
    cluster.must("POST", "/apis/apps/v1/namespaces/default/deployments", {**kept, "spec": TEMPLATE})
    cluster.must("POST", "/apis/things.example.com/v1/namespaces/default/things", {**kept, "spec": {"n": 1}})
    return cluster


def request(chance):
    """(method, path, body, content type) of one request that may be wrong anywhere."""
    method, path, body = chance.choice(BODIES)
    if chance.random() < 0.1:
        question = "&".join(
            f"{q}={chance.choice(('', '-1', 'x', '1', 'true', '9999999999999'))}"
            for q in (*QUERIES[:3], chance.choice(QUERIES))
        )
        return (
            "GET",
            f"{path.partition('?')[0].rpartition('/')[0] if method != 'POST' else path}?{question}&timeoutSeconds=1",
            None,
            "",
        )
    method, _, kind = method.partition(" ")
    content = {"merge": "merge-patch", "strategic": "strategic-merge-patch", "json": "json-patch"}.get(kind)
    raw = json.dumps(mutant(body, chance)).encode()
    if chance.random() < 0.05:
        at = chance.randrange(len(raw))
        raw = raw[:at] + bytes([chance.randrange(256)]) + raw[at + 1 :]
    if content:
        return method, path, raw, f"application/{content}+json"
    return method, path, raw, chance.choice(("application/json",) * 9 + ("application/yaml",))


def run(count, seconds, seed=1):
    """Counts by status code; every 5xx as (code, request, answer)."""
    chance, codes, wrong = random.Random(seed), Counter(), []
    cluster, until = prepared(), time.monotonic() + seconds
    for i in range(count):
        if time.monotonic() > until:
            break
        if i % 200 == 199:
            cluster = prepared()
        method, path, body, content = request(chance)
        code, answer = cluster.ask(method, path, body, content=content)
        codes[code] += 1
        if code >= 500 and not (code == 504 and "resource version" in str(answer)):
            wrong.append((code, (method, path, body), answer))
    return codes, wrong


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--count", type=int, default=10_000)
    options.add_argument("--seconds", type=float, default=300)
    options.add_argument("--seed", type=int, default=1)
    given = options.parse_args()
    logging.basicConfig(level=logging.ERROR)
    codes, wrong = run(given.count, given.seconds, given.seed)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(f"{codes.total()} requests: {dict(sorted(codes.items()))}; {peak // 1024 // 1024} MB at most")
    for code, asked, answer in wrong[:20]:
        print(code, asked, answer)
    if wrong or peak > MEMORY:
        sys.exit(
            f"{len(wrong)} answers were errors of the server; {peak // 1024 // 1024} MB of {MEMORY // 1024 // 1024} MB"
        )


if __name__ == "__main__":
    main()
