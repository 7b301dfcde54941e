"""Lists and details of workloads, services and applications. Pure.

What holds for a host or a workload is asked of the mesh's own model, so that the console and the proxies agree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import Any

from lateen.analysis.attached import Place
from lateen.api import kinds
from lateen.api.canonical import canonical_name, canonical_revision
from lateen.api.domain import service_host
from lateen.api.reading import has_proxy, is_finished, is_terminating, outside
from lateen.console import health, routes, shapes
from lateen.console.checks import shown
from lateen.console.configuration import WORST, Configuration, Findings, Objects, find, in_namespace, reference, worst
from lateen.inject.required import SKIPPED_NAMESPACES
from lateen.inject.workload import of_pod
from lateen.kit.jsons import Json, dig
from lateen.mesh.model import Mesh


class Inventory:
    """The state of the cluster at one instant."""

    def __init__(
        self,
        objects: Objects,
        mesh: Mesh,
        findings: Findings,
        domain: str,
        places: Callable[[Json], Iterable[Place]] = lambda _: (),
    ) -> None:
        """``places``: where an object is attached."""
        self._objects, self._mesh, self._findings, self._domain = objects, mesh, findings, domain
        self.configuration = Configuration(objects, findings, places)
        self._pods = self._by_workload()

    # --- workloads -------------------------------------------------------------------------------------------

    def _by_workload(self) -> dict[tuple[str, str, str], list[Json]]:
        """Pods by (namespace, kind, name) of their workload; Deployments that are scaled to 0 have none."""
        out: dict[tuple[str, str, str], list[Json]] = {}
        for d in self._objects.get(kinds.DEPLOYMENT, ()):
            out[d["metadata"]["namespace"], "Deployment", d["metadata"]["name"]] = []
        for pod in self._objects.get(kinds.POD, ()):
            if not is_terminating(pod) and not is_finished(pod):
                w = of_pod(pod, pod["metadata"]["namespace"])
                out.setdefault((w.namespace, w.kind, w.name), []).append(pod)
        return dict(sorted(out.items()))

    def workloads(self, namespace: str = "") -> list[shapes.WorkloadRow]:
        return [self._workload(key, pods) for key, pods in self._pods.items() if namespace in ("", key[0])]

    def _workload(self, key: tuple[str, str, str], pods: list[Json]) -> shapes.WorkloadRow:
        namespace, kind, name = key
        labels = self._labels(key, pods)
        ready = sum(health.ready(p) for p in pods)
        state, says = self._state(key, pods)
        return {
            "namespace": namespace,
            "name": name,
            "kind": kind,
            "app": canonical_name(labels, name),
            "version": canonical_revision(labels),
            "pods": len(pods),
            "ready": ready,
            "meshed": sum(has_proxy(p) for p in pods),
            "bare": any(not has_proxy(p) and self._could(p) for p in pods),
            "state": state,
            "says": says,
        }

    def _could(self, pod: Json) -> bool:
        """Whether injection could give a pod a proxy; the control plane and its add-ons need none."""
        where = pod["metadata"]["namespace"]
        return where not in (*SKIPPED_NAMESPACES, self._mesh.root_namespace) and not dig(pod, "spec", "hostNetwork")

    def _labels(self, key: tuple[str, str, str], pods: list[Json]) -> dict[str, str]:
        """The labels of a workload's pods; of its template if it has none."""
        if pods:
            return dict(pods[0]["metadata"].get("labels") or {})
        found = self._deployment(key)
        return dict(dig(found or {}, "spec", "template", "metadata", "labels", default={}))

    def _deployment(self, key: tuple[str, str, str]) -> Json | None:
        return self.find(kinds.DEPLOYMENT, key[0], key[2]) if key[1] == "Deployment" else None

    def _state(self, key: tuple[str, str, str], pods: list[Json]) -> tuple[shapes.State, str]:
        deployment = self._deployment(key)
        found = health.applications(pods, [deployment] if deployment else [])
        worst = max(found, key=lambda a: health.GRAVITY.index(a["state"]), default=None)
        if worst is None:
            return "idle", "it has no pods"
        return worst["state"], "; ".join(a["says"] for a in found if a["says"])

    def workload(self, namespace: str, name: str, kind: str = "") -> shapes.WorkloadPage | None:
        """None where there is no such workload. ``kind``: where several kinds have one of the same name."""
        key = next((k for k in self._pods if k[0] == namespace and k[2] == name and kind in ("", k[1])), None)
        if key is None:
            return None
        pods = self._pods[key]
        labels = self._labels(key, pods)
        mode, ports, ref = self._mesh.mtls(namespace, labels)
        services = [s for s in in_namespace(self._objects, kinds.SERVICE, namespace) if _selects(s, labels)]
        return {
            **self._workload(key, pods),
            "labels": labels,
            "account": str(dig(pods[0], "spec", "serviceAccountName", default="default")) if pods else "",
            "instances": [pod(p) for p in sorted(pods, key=lambda p: str(p["metadata"]["name"]))],
            "services": [self._service(s) for s in services],
            "mtls": mode,
            "ports": {str(port): port_mode for port, port_mode in ports},
            "decides": str(ref) if ref else "",
            "config": self.configuration.of(self._concerning(namespace, labels)),
            "findings": [shown(m) for p in pods for m in self._findings.get(reference(kinds.POD, p), ())],
        }

    def mode(self, namespace: str, labels: Mapping[str, str]) -> str:
        """Of mutual TLS, for workloads with these labels."""
        return str(self._mesh.mtls(namespace, labels)[0])

    def _concerning(self, namespace: str, labels: Mapping[str, str]) -> list[kinds.Ref]:
        """The policies, telemetry, filters and the Sidecar that apply to a workload."""
        mesh = self._mesh
        found: list[Any] = [
            *mesh.authorization(namespace, labels),
            *mesh.telemetries(namespace, labels),
            *mesh.envoy_filters(namespace, labels),
        ]
        sidecar = mesh.sidecar(namespace, labels)
        decides = mesh.mtls(namespace, labels)[2]
        refs = [*(r.ref for r in found), *([sidecar.ref] if sidecar else []), *([decides] if decides else [])]
        return list(dict.fromkeys(refs))

    # --- services --------------------------------------------------------------------------------------------

    def services(self, namespace: str = "") -> list[shapes.ServiceRow]:
        found = [s for s in self._objects.get(kinds.SERVICE, ()) if namespace in ("", s["metadata"]["namespace"])]
        rows = [self._service(s) for s in found]
        entries: dict[tuple[str, str], shapes.ServiceRow] = {}
        for entry in self._objects.get(kinds.SERVICE_ENTRY, ()):
            if namespace in ("", entry["metadata"]["namespace"]):
                for host in dig(entry, "spec", "hosts", default=[]):
                    row = self._entry(entry, str(host))
                    key = row["namespace"], row["name"]
                    entries[key] = _joined(entries[key], row) if key in entries else row
        return sorted((*rows, *entries.values()), key=lambda r: (r["namespace"], r["name"]))

    def _service(self, s: Json) -> shapes.ServiceRow:
        meta = s["metadata"]
        host = service_host(meta["name"], meta["namespace"], self._domain)
        found = self._leading_to(host, meta["namespace"])
        checks = self._findings.get(reference(kinds.SERVICE, s), [])
        return {
            "namespace": meta["namespace"],
            "name": meta["name"],
            "host": host,
            "origin": "Service",
            "ports": [_port(p) for p in dig(s, "spec", "ports", default=[])],
            "workloads": len(self._behind(s)),
            "config": len(found),
            "worst": worst(checks),
        }

    def _entry(self, entry: Json, host: str) -> shapes.ServiceRow:
        meta = entry["metadata"]
        return {
            "namespace": meta["namespace"],
            "name": host,
            "host": host,
            "origin": "ServiceEntry",
            "ports": [f"{p.get('number')}/{p.get('protocol', '')}" for p in dig(entry, "spec", "ports", default=[])],
            "workloads": 0,
            "config": len(self._leading_to(host, meta["namespace"])),
            "worst": worst(self._findings.get(reference(kinds.SERVICE_ENTRY, entry), [])),
        }

    def service(self, namespace: str, name: str) -> shapes.ServicePage | None:
        """None where there is no such service; ``name`` of a ServiceEntry's is its host."""
        row = next((r for r in self.services(namespace) if r["name"] == name), None)
        if row is None:
            return None
        s = self.find(kinds.SERVICE, namespace, name)
        refs = self._leading_to(row["host"], namespace)
        if row["origin"] == "ServiceEntry":
            entries = in_namespace(self._objects, kinds.SERVICE_ENTRY, namespace)
            refs += [kinds.SERVICE_ENTRY.ref(namespace, e["metadata"]["name"]) for e in entries if _names(e, name)]
        own = self._findings.get(reference(kinds.SERVICE, s), []) if s is not None else []
        return {
            **row,
            "behind": [self._workload(key, self._pods[key]) for key in self._behind(s)] if s is not None else [],
            "addresses": outside(s) if s is not None else {},
            "rules": self.configuration.of(refs),
            "findings": [shown(m) for m in own],
        }

    def _behind(self, service: Json) -> list[tuple[str, str, str]]:
        """The workloads that a Service selects."""
        namespace = service["metadata"]["namespace"]
        return [
            key
            for key, pods in self._pods.items()
            if key[0] == namespace and _selects(service, self._labels(key, pods))
        ]

    def _rules_for(self, host: str, namespace: str) -> list[kinds.Ref]:
        """The VirtualServices and DestinationRules for a host, as clients of its own namespace see them, and the routes
        of the Gateway API that have its service as their parent."""
        mesh = self._mesh
        refs = [r.ref for r in mesh.mesh_rules(host, namespace)]
        refs += [kinds.TABLE[kind].ref(*key) for kind, key, _, _ in mesh.routes_for_host(host)]
        refs += [r.ref for r in mesh.destination_rule(host, namespace)]
        return list(dict.fromkeys(refs))

    def _leading_to(self, host: str, namespace: str) -> list[kinds.Ref]:
        """The rules for a host, and the routes of the Gateway API that lead to it from elsewhere."""
        return list(dict.fromkeys((*self._rules_for(host, namespace), *self._routes_to.get(host, ()))))

    @cached_property
    def _routes_to(self) -> dict[str, list[kinds.Ref]]:
        out: dict[str, list[kinds.Ref]] = {}
        for kind in routes.KINDS:
            for route in self._objects.get(kind, ()):
                for host in sorted(routes.backends(route, self._domain)):
                    out.setdefault(host, []).append(kind.ref(route["metadata"]["namespace"], route["metadata"]["name"]))
        return out

    def routed_from_gateways(self) -> set[str]:
        """The hosts that routes of the Gateway API lead to from Gateways."""
        found = (route for kind in routes.KINDS for route in self._objects.get(kind, ()) if routes.at_gateway(route))
        return {host for route in found for host in routes.backends(route, self._domain)}

    def hosts(self, namespace: str, name: str) -> list[str]:
        """The names by which clients in other namespaces call a Service."""
        host = service_host(name, namespace, self._domain)
        return [host, f"{host}.", f"{name}.{namespace}", f"{name}.{namespace}.svc"]

    def rules(self, namespace: str, name: str) -> list[kinds.Ref]:
        """The VirtualServices, DestinationRules and routes for a Service."""
        return self._rules_for(service_host(name, namespace, self._domain), namespace)

    # --- applications ----------------------------------------------------------------------------------------

    def applications(self, namespace: str = "") -> list[shapes.ApplicationRow]:
        apps: dict[tuple[str, str], list[shapes.WorkloadRow]] = {}
        for row in self.workloads(namespace):
            apps.setdefault((row["namespace"], row["app"]), []).append(row)
        return [
            {
                "namespace": where,
                "name": app,
                "workloads": rows,
                "state": max((r["state"] for r in rows), key=health.GRAVITY.index),
                "says": "; ".join(r["says"] for r in rows if r["says"]),
            }
            for (where, app), rows in sorted(apps.items())
        ]

    def application(self, namespace: str, name: str) -> shapes.ApplicationPage | None:
        """None where no workload is one of it."""
        row = next((a for a in self.applications(namespace) if a["name"] == name), None)
        if row is None:
            return None
        members = {(namespace, w["kind"], w["name"]) for w in row["workloads"]}
        services = [
            s for s in in_namespace(self._objects, kinds.SERVICE, namespace) if not members.isdisjoint(self._behind(s))
        ]
        refs = (r for key in members for r in self._concerning(namespace, self._labels(key, self._pods[key])))
        return {
            **row,
            "services": sorted((self._service(s) for s in services), key=lambda s: s["name"]),
            "config": self.configuration.of(sorted(set(refs), key=str)),
        }

    # --- objects ---------------------------------------------------------------------------------------------

    def objects(self, kind: kinds.Kind) -> Iterable[Json]:
        return self._objects.get(kind, ())

    def find(self, kind: kinds.Kind | None, namespace: str, name: str) -> Json | None:
        return find(self._objects, kind, namespace, name)

    def labels(self, namespace: str, kind: str, name: str) -> dict[str, str]:
        """The labels of a workload's pods."""
        key = namespace, kind, name
        return self._labels(key, self._pods.get(key, []))


def pod(p: Json) -> shapes.Pod:
    return {
        "name": p["metadata"]["name"],
        "namespace": p["metadata"]["namespace"],
        "containers": [c["name"] for c in dig(p, "spec", "containers", default=[])],
        "ready": health.ready(p),
        "finished": health.finished(p),
        "says": health.reason(p),
    }


def _port(p: Json) -> str:
    """As ``kubectl get services`` shows it, with the name."""
    name = f"{p['name']} " if p.get("name") else ""
    return f"{name}{p.get('port')}/{p.get('protocol', 'TCP')}"


def _names(entry: Json, host: str) -> bool:
    return host in dig(entry, "spec", "hosts", default=[])


def _selects(service: Json, labels: Mapping[str, str]) -> bool:
    wanted = dig(service, "spec", "selector", default={})
    return bool(wanted) and all(labels.get(k) == v for k, v in wanted.items())


def _joined(one: shapes.ServiceRow, other: shapes.ServiceRow) -> shapes.ServiceRow:
    """A host of several ServiceEntries of a namespace, which are one service."""
    ports = list(dict.fromkeys((*one["ports"], *other["ports"])))
    return {**one, "ports": ports, "worst": max(one["worst"], other["worst"], key=lambda level: WORST.get(level, 0))}
