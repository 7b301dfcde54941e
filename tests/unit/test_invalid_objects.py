"""Invalid objects of Kubernetes' own kinds are refused with kube-apiserver's code, reason, and causes' fields."""

import asyncio
import re

import invalid
from apiserver import Cluster

KNOWN = {
    r"CustomResourceDefinition spec.(versions|names|group)|Job spec.selector|Families": (
        "Kubernetes draws conclusions from what is wrong already"
    ),
    r"podAffinity|maxReplicas": "one cause less",
    r"containers=\[\{\}|httpGet|subPath": "one cause less, or of another field",
    r"ownerReferences|roleRef=\{\}|matchConstraints|activeDeadline": "what is missing is called missing",
    r"privileged": "privileged containers are allowed",
    r"EndpointSlice ports|\"claims\"|maxUnavailable|clusterRoleSelectors": (
        "Kubernetes takes it, or names the object around it"
    ),
    r"dataSource|managedBy|volumeMode": "not available here, which is said first",
}


def test_invalid_objects_are_refused_as_by_kube_apiserver():
    cluster, found = Cluster(), {}

    async def run():
        changed = ""
        for case in invalid.cases():
            kind, body = case["kind"], invalid.body(case)
            if not case.get("update"):
                code, status = await cluster.send("POST", invalid.place(kind) + invalid.OPTIONS, body)
            else:
                if kind != changed:
                    await cluster.send("POST", invalid.place(kind), invalid.VALID[kind])
                _, there = await cluster.send("GET", invalid.named(kind))
                body["metadata"]["resourceVersion"] = there["metadata"]["resourceVersion"]
                code, status = await cluster.send("PUT", invalid.named(kind) + invalid.OPTIONS, body)
            changed = kind if case.get("update") else ""
            assert status.get("kind") != "Status" or status["code"] == code
            found[invalid.title(case)] = (
                invalid.answer(code, status),
                {k: case[k] for k in ("code", "reason", "causes")},
            )

    asyncio.run(run())
    assert len(found) > 850
    differing = {name for name, (ours, theirs) in found.items() if ours != theirs}
    new = [(name, *found[name]) for name in sorted(differing) if not any(re.search(k, name) for k in KNOWN)]
    assert new == []
    assert all(any(re.search(known, name) for name in differing) for known in KNOWN), "what is known to differ does not"
    refused = [name for name, (ours, theirs) in found.items() if theirs["code"] >= 400 and ours["code"] < 400]
    assert refused == []
