"""Autoscalers of the embedded cluster decide as Kubernetes' own do, given the same pods and the same metrics."""

import asyncio
import json
import re
import time
from dataclasses import dataclass
from difflib import unified_diff

import autoscaling
import building
import pytest
import yaml
from apiserver import Cluster
from bare import Bare
from both import Gone, Refused

from lateen.api import kinds
from lateen.cluster.apiserver.direct import DirectClient
from lateen.cluster.controllers.autoscaler import Autoscalers
from lateen.kit import times

pytestmark = pytest.mark.skipif(building.VERSION != building.COMPARED, reason=f"compared with {building.COMPARED} only")
SYNC_S = 1.0
REST_S, LIMIT_S = 3.5, 40.0
"""Both are at rest when nothing has changed for so long; how long they may take until they are equal."""
MERGE = "application/merge-patch+json"
AUTOSCALERS = "/apis/autoscaling/v2/namespaces/{}/horizontalpodautoscalers"
PLACES = {
    "Deployment": "/apis/apps/v1/namespaces/{}/deployments",
    "ReplicationController": "/api/v1/namespaces/{}/replicationcontrollers",
    "Rollout": "/apis/example.com/v1/namespaces/{}/rollouts",
}
VERSIONS = {"Deployment": "apps/v1", "ReplicationController": "v1", "Rollout": "example.com/v1"}
DEFINITION = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "rollouts.example.com"},
    "spec": {
        "group": "example.com",
        "scope": "Namespaced",
        "names": {"plural": "rollouts", "kind": "Rollout", "listKind": "RolloutList", "singular": "rollout"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
                "subresources": {
                    "scale": {
                        "specReplicasPath": ".spec.size",
                        "statusReplicasPath": ".status.size",
                        "labelSelectorPath": ".status.selector",
                    }
                },
            }
        ],
    },
}


@dataclass
class Measured:
    containers: dict
    window: float


class Ours:
    """The embedded cluster's API and its autoscalers; ``ask`` as that of a real one."""

    def __init__(self, metrics):
        self._cluster, self._metrics, self.events = Cluster(), metrics, {}
        self._autoscalers = Autoscalers(DirectClient(self._cluster.api, "test"), self, self._usage)

    def ask(self, method, path, body=None, content=""):
        code, answer = self._cluster.ask(method, path, body, content=content)
        if code >= 300:
            raise (Gone if code == 404 else Refused)(f"{code} {answer}")
        return answer

    async def _usage(self):
        used = {(ns, name): c for ns, pods in self._metrics.pods.items() for name, (_, c) in pods.items()}
        return Measured(used, self._metrics.window)

    def event(self, obj, type_, reason, message, path=""):  # noqa: ARG002
        self.events.setdefault(obj["metadata"]["namespace"], set()).add(f"{type_} {reason} {message}")

    def look(self):
        """Each autoscaler once, as the clock of the real one makes it."""

        async def run():
            listed, _ = await DirectClient(self._cluster.api, "test").list(kinds.AUTOSCALER)
            for o in listed:
                await self._autoscalers.reconcile((o["metadata"]["namespace"], o["metadata"]["name"]))

        asyncio.run(run())


class Hands:
    """What a story does to both sides."""

    def __init__(self, name, sides, metrics):
        self.namespace, self._sides, self._metrics, self._pods, self._target = name, sides, metrics, [], None
        metrics.pods[name] = {}
        self._ask("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
        self._ask("POST", "/api/v1/namespaces/{}/serviceaccounts", {"metadata": {"name": "default"}})

    def _ask(self, method, path, body=None, content="application/json"):
        for side in self._sides:
            side.ask(method, path.format(self.namespace), body, content)

    def target(self, replicas, kind="Deployment", expressions=()):
        labels = {"app": "web"}
        spec = {"containers": [{"name": "c", "image": "x"}]}
        selector = {"matchLabels": labels} | ({"matchExpressions": expressions} if expressions else {})
        body = {"apiVersion": VERSIONS[kind], "kind": kind, "metadata": {"name": "web"}}
        made = {"replicas": replicas, "template": {"metadata": {"labels": labels}, "spec": spec}}
        body["spec"] = made | {"selector": labels if kind == "ReplicationController" else selector}
        if kind == "Rollout":
            body |= {"spec": {"size": replicas}, "status": {"size": replicas, "selector": "app=web"}}
        self._target = kind
        self._ask("POST", PLACES[kind], body)

    def resize(self, replicas):
        self._ask("PATCH", f"{PLACES[self._target]}/web/scale", {"spec": {"replicas": replicas}}, MERGE)

    def lose(self):
        self._ask("DELETE", f"{PLACES[self._target]}/web")

    def pods(self, *used, **more):
        for use in used:
            self.pod(use, **more)

    def pod(self, use, ready=True, phase="Running", started=autoscaling.LONG_AGO, changed=None, **more):
        name = f"web-{len(self._pods)}"
        labels = {"app": "web"} | more.get("labels", {})
        main = {"name": "c", "image": "x", "resources": {"requests": more.get("requests", {"cpu": "100m"})}}
        spec = {"containers": [main]}
        if side := more.get("sidecar"):
            requests = {"requests": {"cpu": side}}
            spec["initContainers"] = [{"name": "side", "image": "x", "restartPolicy": "Always", "resources": requests}]
        self._pods.append((name, labels))
        body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": spec}
        self._ask("POST", "/api/v1/namespaces/{}/pods", body)
        at = {"now": times.stamp()}
        status = {"phase": phase}
        if started:
            status["startTime"] = at.get(started, started)
        when = at.get(changed, changed) or autoscaling.LONG_AGO
        status["conditions"] = [{"type": "Ready", "status": str(ready), "lastTransitionTime": when}]
        self._ask("PATCH", "/api/v1/namespaces/{}/pods/" + name + "/status", {"status": status}, MERGE)
        self._measure(name, labels, use)

    def _measure(self, name, labels, use):
        if use is None:
            self._metrics.pods[self.namespace].pop(name, None)
            return
        used = use if isinstance(use, dict) else {"c": use if isinstance(use, tuple) else (use, autoscaling.MI)}
        self._metrics.pods[self.namespace][name] = (labels, used)

    def use(self, *used):
        for (name, labels), use in zip(self._pods, used, strict=True):
            self._measure(name, labels, use)

    def scaler(self, *metrics, name="web", least=1, most=10, behavior=None, ref=None):
        kind, version = ref or (self._target, VERSIONS[self._target])
        spec = {"scaleTargetRef": {"apiVersion": version, "kind": kind, "name": "web"}}
        spec |= {"minReplicas": least, "maxReplicas": most, "metrics": list(metrics)}
        if behavior is not None:
            spec["behavior"] = behavior
        body = {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": name}}
        self._ask("POST", AUTOSCALERS, body | {"spec": spec})

    def change(self, spec):
        self._ask("PATCH", AUTOSCALERS + "/web", {"spec": spec}, MERGE)

    def seen(self, side):
        """Decisions and statuses of one side, as text."""
        found = {"replicas": None}
        if self._target:
            try:
                scale = side.ask("GET", f"{PLACES[self._target]}/web/scale".format(self.namespace))
                found["replicas"] = scale["spec"].get("replicas", 0)
            except Gone:
                pass
        for o in side.ask("GET", AUTOSCALERS.format(self.namespace))["items"]:
            found[o["metadata"]["name"]] = _plain(o.get("status") or {})
        return yaml.safe_dump(found, width=200)

    def events(self, side):
        if isinstance(side, Ours):
            return {_ordered(e) for e in side.events.get(self.namespace, set())}
        listed = side.ask("GET", f"/api/v1/namespaces/{self.namespace}/events")["items"]
        told = (f"{e['type']} {e['reason']} {e['message']}" for e in listed)
        return {_ordered(e.replace("(combined from similar events): ", "")) for e in told}


def _plain(status):
    """Without times."""
    said = [{k: _ordered(v) for k, v in c.items() if k != "lastTransitionTime"} for c in status.get("conditions") or []]
    out = status | {"conditions": sorted(said, key=lambda c: c["type"])}
    out["lastScaleTime"] = bool(status.get("lastScaleTime"))
    return {k: v for k, v in json.loads(json.dumps(out)).items() if v not in (None, [])} | {
        "currentReplicas": status.get("currentReplicas", 0)
    }


def _ordered(text):
    """Kubernetes names several autoscalers, and the one of several pods that it finds fault with, in any order."""
    text = re.sub(r"Pod web-\d", "Pod web-N", text)
    return re.sub(r"(?<=HPAs: \[).*(?=\])", lambda m: " ".join(sorted(m[0].split())), text)


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    """story -> its differences."""
    try:
        for name in building.PROGRAMS:
            building.program(name)
    except building.Missing as e:
        pytest.skip(str(e))
    made = Bare(
        tmp_path_factory.mktemp("bare"),
        "--controllers=horizontal-pod-autoscaler-controller",
        f"--horizontal-pod-autoscaler-sync-period={SYNC_S:.0f}s",
        "--concurrent-horizontal-pod-autoscaler-syncs=20",
        "--kube-api-qps=500",
        "--kube-api-burst=500",
        "--secure-port=0",
    )
    try:
        made.start()
        ours = Ours(made.metrics)
        for side in (ours, made.api):
            side.ask("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", DEFINITION)
        time.sleep(1)
        yield play(ours, made.api, made.metrics)
    finally:
        made.end()


def play(ours, theirs, metrics):
    told = {f: Hands(f.__name__.replace("_", "-"), (ours, theirs), metrics) for f in autoscaling.STORIES}
    live = {f: f(hands) for f, hands in told.items()}
    found = {f: [] for f in told}
    while live:
        steps = {}
        for f, story in list(live.items()):
            if (step := next(story, None)) is None:
                del live[f]
            else:
                steps[f] = step
        rest(ours, theirs, [told[f] for f in steps])
        for f, step in steps.items():
            hands = told[f]
            texts = [hands.seen(s).splitlines() for s in (theirs, ours)]
            found[f] += unified_diff(*texts, f"kubernetes: {step}", f"embedded: {step}", lineterm="", n=9)
    for f, hands in told.items():
        a, b = hands.events(theirs), hands.events(ours)
        found[f] += [*(f"- {e}" for e in sorted(a - b)), *(f"+ {e}" for e in sorted(b - a))]
    return found


def rest(ours, theirs, hands):
    """Until neither side has changed for a while, or for as long as they differ."""
    began = since = time.monotonic()
    last = None
    while True:
        ours.look()
        time.sleep(SYNC_S)
        now = [(h.seen(ours), h.seen(theirs)) for h in hands]
        if now != last:
            last, since = now, time.monotonic()
        quiet = time.monotonic() - since
        if quiet > REST_S and (all(a == b for a, b in now) or quiet > 3 * REST_S):
            return
        if time.monotonic() - began > LIMIT_S:
            return


@pytest.mark.parametrize("story", autoscaling.STORIES, ids=lambda s: s.__name__)
def test_both_decide_the_same(played, story):
    assert not played[story], "\n".join(played[story])
