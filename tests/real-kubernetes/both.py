"""Two clusters whose controllers are given the same objects, and what they make of them.

Nothing runs: pods of these scenarios name a scheduler that there is not, and the scenario itself says what becomes of
them, through their status. So both clusters come to rest after each step, and are compared there.
"""

import contextlib
import http.client
import json
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from difflib import unified_diff

import yaml

from lateen.kube.kubeconfig import from_file

REST_S, LIMIT_S = 0.8, 40.0
"""A cluster is at rest when nothing has changed for so long; how long both may take until they are equal."""
OWN_WORDS = dict.fromkeys(("UnmanagedPods", "FailedGetResourceMetric", "FailedComputeMetricsReplicas"), "...")
"""Reasons of events and conditions whose messages are our own."""
TRIGGERED = "endpoints.kubernetes.io/last-change-trigger-time"
"""When the change was made that endpoints follow: Kubernetes measures its own latency by it."""
COST = "controller.kubernetes.io/pod-deletion-cost"
AFTERWARDS_S = 3.0
"""How long steps may take after one in which both have differed."""
NOBODY = "nobody"
"""The scheduler of the scenarios' pods"""
PLACES = {
    "Pod": "/api/v1/{ns}pods",
    "Service": "/api/v1/{ns}services",
    "Endpoints": "/api/v1/{ns}endpoints",
    "ConfigMap": "/api/v1/{ns}configmaps",
    "Secret": "/api/v1/{ns}secrets",
    "ServiceAccount": "/api/v1/{ns}serviceaccounts",
    "PersistentVolumeClaim": "/api/v1/{ns}persistentvolumeclaims",
    "ResourceQuota": "/api/v1/{ns}resourcequotas",
    "ReplicationController": "/api/v1/{ns}replicationcontrollers",
    "Event": "/api/v1/{ns}events",
    "PersistentVolume": "/api/v1/persistentvolumes",
    "Namespace": "/api/v1/namespaces",
    "Node": "/api/v1/nodes",
    "Deployment": "/apis/apps/v1/{ns}deployments",
    "ReplicaSet": "/apis/apps/v1/{ns}replicasets",
    "StatefulSet": "/apis/apps/v1/{ns}statefulsets",
    "DaemonSet": "/apis/apps/v1/{ns}daemonsets",
    "ControllerRevision": "/apis/apps/v1/{ns}controllerrevisions",
    "Job": "/apis/batch/v1/{ns}jobs",
    "CronJob": "/apis/batch/v1/{ns}cronjobs",
    "HorizontalPodAutoscaler": "/apis/autoscaling/v2/{ns}horizontalpodautoscalers",
    "PodDisruptionBudget": "/apis/policy/v1/{ns}poddisruptionbudgets",
    "EndpointSlice": "/apis/discovery.k8s.io/v1/{ns}endpointslices",
    "StorageClass": "/apis/storage.k8s.io/v1/storageclasses",
    "CertificateSigningRequest": "/apis/certificates.k8s.io/v1/certificatesigningrequests",
    "ClusterRole": "/apis/rbac.authorization.k8s.io/v1/clusterroles",
}
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")
_UID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_HASHED = re.compile(r"\b([a-z]+)-(?:[a-z0-9]{6,10}-[a-z0-9]{5}|[a-z0-9]{5,10})\b(?=[\s\",]|$)")
_RANDOM = re.compile(r"(HASH\d+)-[a-z0-9]{5}\b")
_VERSION = re.compile(r'"resourceVersion": "\d+"')
_META = ("uid", "resourceVersion", "creationTimestamp", "managedFields", "selfLink", "deletionTimestamp")


def now():
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Refused(Exception):
    """The Status that a cluster has answered."""


class Gone(Refused):
    """That there is no such object."""


class Api:
    """Plain requests to one cluster; safe to be used by several threads."""

    def __init__(self, kubeconfig):
        self._at = from_file(kubeconfig)
        self._mine = threading.local()

    def ask(self, method, path, body=None, content="application/json"):
        """Raises Refused."""
        for last in (False, True):
            connection = getattr(self._mine, "connection", None)
            if connection is None:
                url = self._at.url
                connection = http.client.HTTPSConnection(str(url.host), url.port, context=self._at.context, timeout=30)
                self._mine.connection = connection
            try:
                connection.request(
                    method, path, json.dumps(body) if body is not None else None, {"Content-Type": content}
                )
                answer = connection.getresponse()
                found = json.loads(answer.read())
                break
            except (http.client.HTTPException, OSError):
                connection.close()
                self._mine.connection = None
                if last:
                    raise
        if answer.status >= 300:
            raise (Gone if answer.status == 404 else Refused)(f"{answer.status} {found.get('message')}")
        return found


def place(kind, namespace="", name=""):
    ns = f"namespaces/{namespace}/" if namespace else ""
    return PLACES[kind].format(ns=ns) + (f"/{name}" if name else "")


class Side:
    """One cluster's part of a scenario: it gives what Kubernetes calls at random the same names on both sides, in the
    order in which they come."""

    def __init__(self, api, namespace, kinds, more=()):
        self.api, self.namespace, self._kinds, self._more = api, namespace, kinds, more
        self._names, self._counts, self.real = {}, {}, {}

    # --- what there is -------------------------------------------------------------------------------------------

    def everything(self):
        found = []
        for kind in (k for k in self._kinds if k != "Namespace"):
            listed = self.api.ask("GET", place(kind, self.namespace))["items"]
            ours = listed if "{ns}" in PLACES[kind] else [o for o in listed if self.namespace in o["metadata"]["name"]]
            found += [{"kind": kind} | o for o in ours]
        for kind, name in self._more:
            with contextlib.suppress(Refused):
                found.append({"kind": kind} | self.api.ask("GET", place(kind, "", name)))
        return found

    def snapshot(self):
        """Lines that are the same for equal states."""
        found = self.everything()
        self._learn(found)
        events = {self._text(_event(o)) for o in found if o["kind"] == "Event" and not _by_chance(o)}
        objects = [self._text(_plain(o)) for o in found if o["kind"] != "Event" and not _usual(o)]
        return [line for text in [*sorted(objects), *sorted(events)] for line in text.splitlines()]

    def rest(self):
        """The snapshot when nothing changes any more, or at the limit."""
        limit, last, since = time.monotonic() + LIMIT_S, None, time.monotonic()
        while time.monotonic() < limit:
            found = self.snapshot()
            if found != last:
                last, since = found, time.monotonic()
            elif time.monotonic() - since >= REST_S:
                break
            time.sleep(0.15)
        return last

    def _learn(self, found):
        """Names for hashes of templates first, since pods' names contain them."""
        made = sorted(found, key=lambda o: (o["metadata"]["creationTimestamp"], o["metadata"]["name"]))
        for o in made:
            for base, hashed in _hashes(o):
                self._call(hashed, "HASH", base)
        for o in made:
            if (start := o["metadata"].get("generateName")) and len(name := o["metadata"]["name"]) == len(start) + 5:
                self._call(name, self._shown(start) + "#", o["kind"])

    def _call(self, name, start, group):
        if name not in self._names:
            count = self._counts[start, group] = self._counts.get((start, group), 0) + 1
            self._names[name] = f"{start}{count}"
            self.real[f"{start}{count}"] = name

    def _shown(self, text):
        for name, shown in sorted(self._names.items(), key=lambda i: -len(i[0])):
            text = text.replace(name, shown)
        text = _TIME.sub("TIME", text)
        return _UID.sub("UID", text)

    def _text(self, obj):
        text = self._shown(json.dumps(_filled(obj)))
        text = _VERSION.sub('"resourceVersion": "NUMBER"', text)
        text = _RANDOM.sub(r"\1-RANDOM", text)
        if obj["kind"] == "Event":  # which of equal pods it is about, the pods themselves show
            text = re.sub(r"#\d+", "#", _HASHED.sub(r"\1-RANDOM", text))
        return yaml.safe_dump(json.loads(text.replace(self.namespace, "NAMESPACE")), width=200)

    # --- pods ----------------------------------------------------------------------------------------------------

    def pods(self, which=""):
        """Their objects by shown name, of those whose shown name contains ``which``."""
        found = self.api.ask("GET", place("Pod", self.namespace))["items"]
        self._learn([{"kind": "Pod"} | o for o in found])
        named = {self._shown(o["metadata"]["name"]): o for o in found}
        return {n: o for n, o in sorted(named.items(), key=lambda i: _natural(i[0])) if re.search(which, n)}

    def name(self, shown):
        return self.real.get(shown, shown)


def _hashes(obj):
    """(name of the workload, hash of its template) of what belongs to one."""
    meta = obj["metadata"]
    labels = meta.get("labels") or {}
    for label in ("pod-template-hash", "controller-revision-hash", "controller.kubernetes.io/hash"):
        value = labels.get(label, "")
        base, _, hashed = value.rpartition("-")
        if hashed:
            start = (
                meta["name"] if obj["kind"] in ("ReplicaSet", "ControllerRevision") else meta.get("generateName", "")
            )
            yield base or start.rstrip("-").removesuffix(hashed).rstrip("-"), hashed


def _natural(text):
    return [int(p) if p.isdigit() else p for p in re.split(r"(\d+)", text)]


def _usual(obj):
    """What every namespace has."""
    return (obj["kind"], obj["metadata"]["name"]) in (("ServiceAccount", "default"), ("ConfigMap", "kube-root-ca.crt"))


def _filled(value):
    """Without what Go's structures show as empty, which the comparison of kubectl's lines is about."""
    if isinstance(value, dict):
        found = {k: _filled(v) for k, v in value.items()}
        return {k: v for k, v in found.items() if v not in (None, {}, [])}
    return [_filled(v) for v in value] if isinstance(value, list) else value


def _plain(obj):
    meta = {k: v for k, v in obj["metadata"].items() if k not in _META}
    if obj["metadata"].get("deletionTimestamp"):
        meta["deleting"] = True
    meta["annotations"] = {k: v for k, v in (meta.get("annotations") or {}).items() if k != TRIGGERED}
    if obj["kind"] == "Endpoints":  # in the order of their hashes
        subsets = [
            s | {"ports": sorted(s.get("ports") or [], key=lambda p: json.dumps(p, sort_keys=True))}
            for s in obj.get("subsets") or []
        ]
        obj = obj | {"subsets": sorted(subsets, key=lambda s: json.dumps(s["ports"], sort_keys=True))}
    if obj["kind"] == "EndpointSlice":
        meta.pop("generation", None)  # how many changes are one is a matter of time
        obj = obj | {"endpoints": sorted(obj.get("endpoints") or [], key=lambda e: e["addresses"])}
    if obj["kind"] == "HorizontalPodAutoscaler":  # only one side has metrics
        said = [
            c | {"message": ""} if c["reason"] in OWN_WORDS else c
            for c in obj.get("status", {}).get("conditions") or []
        ]
        obj = obj | {
            "status": obj["status"]
            | {
                "conditions": said,
                "currentMetrics": None,
                "currentReplicas": obj["status"].get("currentReplicas") or None,
            }
        }
    if obj["kind"] == "CertificateSigningRequest":  # made with keys and by clients of each side's own
        signed = {"certificate": bool(obj.get("status", {}).get("certificate"))}
        obj = obj | {"spec": obj["spec"] | {"request": "", "extra": None}, "status": obj.get("status", {}) | signed}
    if obj["kind"] == "Secret":
        obj = obj | {"data": sorted(obj.get("data") or {})}
    if obj["kind"] == "Pod":  # what is in it, the comparison of kubectl's lines shows
        obj = {k: v for k, v in obj.items() if k != "spec"} | {"of": _of_pod(obj["spec"])}
    return {k: v for k, v in obj.items() if k != "apiVersion"} | {"metadata": meta}


def _of_pod(spec):
    wanted = ("hostname", "subdomain", "volumes", "affinity", "tolerations", "nodeName")
    volumes = [v for v in spec.get("volumes") or [] if not v["name"].startswith("kube-api-access")]
    container = spec["containers"][0]
    shown = {k: spec[k] for k in wanted if spec.get(k)} | {"volumes": volumes}
    return shown | {"image": container["image"], "env": container.get("env")}


def _by_chance(obj):
    """Events that Kubernetes' StatefulSet controller records when what it remembers is older than what there is, and
    of a node that gets another taint because nobody runs it."""
    return obj["reason"] in ("FailedUpdate", "SuccessfulUpdate") or obj["message"].startswith("Cancelling deletion")


def _event(obj):
    about = obj["involvedObject"]
    source = obj.get("source", {}).get("component") or obj.get("reportingComponent")
    said = OWN_WORDS.get(obj["reason"], obj["message"]).removeprefix("(combined from similar events): ")
    shown = f"{obj['type']} {obj['reason']} {about['kind']}/{about['name']} ({source}): {said}"
    return {"kind": "Event", "event": shown}


class Both:
    """A scenario's hands: what it does, it does to both clusters, and then they are compared. ``differences``: one text
    for each step after which they differed."""

    def __init__(self, name, apis, kinds, more=()):
        self.namespace = name
        self.sides = [Side(api, name, kinds, more) for api in apis]
        self.differences = []
        self._pool = ThreadPoolExecutor(2)
        self._addresses = {}
        self._each(lambda s: s.api.ask("POST", place("Namespace"), {"metadata": {"name": name}}))
        self._each(self._account)

    def node(self):
        """The name of a node whose pods nobody runs."""
        taint = {"key": "nobody", "effect": "NoSchedule"}
        meta = {"name": f"{self.namespace}-node", "labels": {"topology.kubernetes.io/zone": "z"}}
        self.create({"kind": "Node", "cluster": True, "metadata": meta, "spec": {"taints": [taint]}})
        return meta["name"]

    def end(self):
        with contextlib.suppress(Refused):
            self._each(lambda s: s.api.ask("DELETE", place("Node", "", f"{self.namespace}-node")))
        with contextlib.suppress(Gone):
            self._each(lambda s: s.api.ask("DELETE", place("Namespace", "", self.namespace)))
        self._pool.shutdown()

    def _account(self, side):
        while not any(
            a["metadata"]["name"] == "default"
            for a in side.api.ask("GET", place("ServiceAccount", self.namespace))["items"]
        ):
            time.sleep(0.1)

    def _each(self, what):
        return list(self._pool.map(what, self.sides))

    def same(self, step):
        """Both come to rest at the same state."""
        limit = time.monotonic() + (LIMIT_S if not self.differences else AFTERWARDS_S)
        while True:
            ours, theirs = self._each(Side.rest)
            if ours == theirs or time.monotonic() > limit:
                break
        if ours != theirs:
            diff = list(unified_diff(theirs, ours, "kubernetes", "embedded", lineterm="", n=6))[2:]
            self.differences.append(f"== {step}\n" + "\n".join(diff))

    # --- steps ---------------------------------------------------------------------------------------------------

    def create(self, *objects, step=None, compare=True):
        def one(side):
            for obj in objects:
                place_ = place(obj["kind"], "" if obj.get("cluster") else self.namespace)
                side.api.ask("POST", place_, {k: v for k, v in obj.items() if k != "cluster"})

        self._each(one)
        if compare:
            self.same(step or f"create {', '.join(o['kind'] for o in objects)}")

    def patch(self, kind, name, change, part="", step=None, cluster=False):
        def one(side):
            path = place(kind, "" if cluster else self.namespace, side.name(name)) + (part and f"/{part}")
            side.api.ask("PATCH", path, change, "application/merge-patch+json")

        self._each(one)
        self.same(step or f"patch {kind} {name} {json.dumps(change)}")

    def delete(self, kind, name, how=None, step=None):
        options = {"propagationPolicy": how} if how else {}
        self._each(lambda s: s.api.ask("DELETE", place(kind, self.namespace, s.name(name)), options))
        self.same(step or f"delete {kind} {name} {how or ''}")

    def wait_only(self, seconds):
        time.sleep(seconds)

    def wait(self, seconds, step):
        time.sleep(seconds)
        self.same(step)

    # --- what becomes of pods ------------------------------------------------------------------------------------

    def pods(self, which, status, step, most=99):
        """Give the first ``most`` pods whose shown name matches, and which have not ended, a status."""

        def one(side):
            chosen = [
                (n, o)
                for n, o in side.pods(which).items()
                if not o["metadata"].get("deletionTimestamp")
                and o["status"].get("phase") not in ("Succeeded", "Failed")
            ]
            for name, obj in chosen[:most]:
                with contextlib.suppress(Gone):  # a rollout goes on meanwhile
                    self._become(side, name, obj, status)
            return [n for n, _ in chosen[:most]]

        ours, theirs = self._each(one)
        if ours != theirs:
            self.differences.append(f"== {step}: pods\nembedded {ours}\nkubernetes {theirs}")
        self.same(step)

    def _become(self, side, name, obj, status):
        path, merge = place("Pod", self.namespace, obj["metadata"]["name"]), "application/merge-patch+json"
        if COST not in (obj["metadata"].get("annotations") or {}):  # no two pods are equally little loss
            cost = {COST: self._address(name).rpartition(".")[2]}
            side.api.ask("PATCH", path, {"metadata": {"annotations": cost}}, merge)
        side.api.ask("PATCH", path + "/status", {"status": status(obj, self._address(name))}, merge)

    def _address(self, name):
        return self._addresses.setdefault(name, f"10.9.0.{len(self._addresses) + 1}")

    def ready(self, which="", most=99):
        self.pods(which, _ready, f"ready {which} {most}", most)

    def unready(self, which="", most=99):
        self.pods(which, _unready, f"unready {which} {most}", most)

    def succeed(self, which="", most=99):
        self.pods(which, lambda o, a: _ended(o, a, 0), f"succeed {which} {most}", most)

    def fail(self, which="", most=99, code=1):
        self.pods(which, lambda o, a: _ended(o, a, code), f"fail {which} {most}", most)


def _containers(obj, **state):
    return [
        {"name": c["name"], "image": c["image"], "imageID": "", "restartCount": 0} | state
        for c in obj["spec"]["containers"]
    ]


def _conditions(ready):
    return [
        {"type": "Ready", "status": str(ready), "lastTransitionTime": now()},
        {"type": "ContainersReady", "status": str(ready), "lastTransitionTime": now()},
    ]


def _running(obj, address, ready):
    state = {"running": {"startedAt": now()}}
    return {
        "phase": "Running",
        "podIP": address,
        "podIPs": [{"ip": address}],
        "startTime": now(),
        "conditions": _conditions(ready),
        "containerStatuses": _containers(obj, ready=ready, started=True, state=state),
    }


def _ready(obj, address):
    return _running(obj, address, True)


def _unready(obj, address):
    return _running(obj, address, False)


def _ended(obj, address, code):
    state = {"terminated": {"exitCode": code, "startedAt": now(), "finishedAt": now()}}
    return {
        "phase": "Failed" if code else "Succeeded",
        "podIP": address,
        "podIPs": [{"ip": address}],
        "startTime": obj["status"].get("startTime") or now(),
        "conditions": _conditions(False),
        "containerStatuses": _containers(obj, ready=False, started=False, state=state),
    }
