"""Turns a form about one service into objects: new ones, or changes of the service's existing ones. Pure.

A wizard writes nothing: the page shows the result, checked and ready to be applied or copied.
"""

from __future__ import annotations

import copy
import itertools
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Literal

from msgspec import Meta, Struct, ValidationError, convert

from lateen.api import kinds
from lateen.api.canonical import REVISIONS
from lateen.api.config import plain
from lateen.api.domain import TRUST_DOMAIN
from lateen.api.reading import port_protocol
from lateen.console.checks import written
from lateen.console.inventory import Inventory
from lateen.kit.jsons import Json, dig

Percent = Annotated[float, Meta(ge=0, le=100)]
Count = Annotated[int, Meta(ge=0, le=100_000)]
WITHOUT_REQUESTS = frozenset(("tcp", "tls", "https", "mongo", "redis", "mysql", "udp"))
"""Protocols that ports may declare of which proxies see no requests."""
DURATION = r"^(\d+(\.\d+)?(h|m|s|ms))*$"
HOST, PATH = r"^(\*|[a-z0-9*]([-a-z0-9.]*[a-z0-9])?)$", r"^/[^\s]*$"
LIKE = {DURATION: 'a duration such as "5s"', HOST: 'a host such as "shop.example.com"', PATH: 'a path such as "/cart"'}
"""Patterns -> how they are explained to users."""
Duration = Annotated[str, Meta(pattern=DURATION, max_length=20)]
Name = Annotated[str, Meta(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", max_length=253)]


TRIED_AGAIN = "gateway-error,connect-failure,refused-stream"
"""The retry conditions; Istio's default without responses with 503, which may come from a request that had an
effect."""


class Weights(Struct, forbid_unknown_fields=True):
    """Shares of requests by version, in percent."""

    weights: dict[str, Annotated[int, Meta(ge=0, le=100)]]


class Limits(Struct, forbid_unknown_fields=True):
    """Timeouts and retries; empty durations, and no number of attempts, leave the setting out."""

    timeout: Duration = ""
    attempts: Annotated[int, Meta(ge=0, le=10)] | None = None
    perTryTimeout: Duration = ""  # noqa: N815 - as in VirtualService


class Fault(Struct, forbid_unknown_fields=True):
    delay: Duration = ""
    delayed: Percent = 0
    status: Annotated[int, Meta(ge=200, le=599)] = 503
    aborted: Percent = 0


class Breaker(Struct, forbid_unknown_fields=True):
    """Limits of the circuit breaker; 0 leaves a setting out."""

    connections: Count = 0
    pending: Count = 0
    errors: Count = 0
    ejection: Duration = "30s"


class MutualTls(Struct, forbid_unknown_fields=True):
    mode: Literal["STRICT", "PERMISSIVE"]


class Callers(Struct, forbid_unknown_fields=True):
    """Workloads that may call, ``namespace/name``."""

    callers: Annotated[list[str], Meta(max_length=200)]


class Expose(Struct, forbid_unknown_fields=True):
    host: Annotated[str, Meta(pattern=HOST, max_length=253)]
    path: Annotated[str, Meta(pattern=PATH, max_length=200)] = "/"
    port: Annotated[int, Meta(ge=1, le=65535)] = 80


class Wizards:
    def __init__(self, inventory: Inventory) -> None:
        self._inventory = inventory

    def make(self, wizard: str, namespace: str, service: str, form: Json) -> list[Json]:
        """The objects to apply. Raises LookupError where there is no such wizard or service, and ValueError for a form
        that cannot be followed."""
        if wizard not in FORMS:
            raise LookupError(f"there is no wizard {wizard}; there are {', '.join(FORMS)}")
        found = self.service(namespace, service)
        shape, make = FORMS[wizard]
        try:
            filled = convert(form, shape)
        except ValidationError as e:
            says, where = plain(e)
            says = next((f"expected {like}" for p, like in LIKE.items() if says.endswith(f"regex {p!r}")), says)
            raise ValueError(f"{where.lstrip('.')}: {says}" if where else says) from None
        return [written(o) for o in make(self, found, filled)]

    def service(self, namespace: str, name: str) -> Json:
        found = self._inventory.find(kinds.SERVICE, namespace, name)
        if found is None:
            raise LookupError(f"there is no Service {name} in namespace {namespace}")
        return found

    # --- routes ----------------------------------------------------------------------------------------------

    def weights(self, service: Json, form: Weights) -> list[Json]:
        if sum(form.weights.values()) != 100:
            raise ValueError(f"the shares add up to {sum(form.weights.values())}; they must add up to 100")
        known = self.versions(service)
        if missing := sorted(form.weights.keys() - known):
            raise ValueError(f"no pod of the service has version {', '.join(missing)}; there are {', '.join(known)}")
        if not _routes(service):
            raise ValueError("all ports of the service are TLS or UDP; for TLS, write a VirtualService with tls routes")
        rule, traffic = self.rule(service), self.traffic(service)
        subsets = traffic["spec"].setdefault("subsets", [])
        names = {version: _subset(subsets, version, known[version]) for version in form.weights}
        host = service["metadata"]["name"]
        routes = [
            {"destination": {"host": host, "subset": names[version]}, "weight": weight}
            for version, weight in form.weights.items()
        ]
        for route in _there(last(rule["spec"][_routes(service) or "http"]), "delegate"):
            route["route"] = copy.deepcopy(routes)
        return [traffic, rule]

    def limits(self, service: Json, form: Limits) -> list[Json]:
        rule = self._requests(service)
        for http in _there(rule["spec"]["http"]):
            _set(http, "timeout", form.timeout)
            retries = {"retryOn": TRIED_AGAIN, **(http.get("retries") or {}), "attempts": form.attempts}
            _set(retries, "perTryTimeout", form.perTryTimeout)
            # without the field, requests are tried again twice
            _set(http, "retries", retries if form.attempts else {"attempts": 0} if form.attempts == 0 else None)
        return [rule]

    def fault(self, service: Json, form: Fault) -> list[Json]:
        if form.delayed and not form.delay:
            raise ValueError("enter how long requests are to be delayed")
        rule = self._requests(service)
        delay = {"fixedDelay": form.delay, "percentage": {"value": form.delayed}} if form.delayed else None
        abort = {"httpStatus": form.status, "percentage": {"value": form.aborted}} if form.aborted else None
        fault = {k: v for k, v in (("delay", delay), ("abort", abort)) if v}
        for http in _there(rule["spec"]["http"]):
            _set(http, "fault", fault)
        return [rule]

    # --- connections and policies ----------------------------------------------------------------------------

    def breaker(self, service: Json, form: Breaker) -> list[Json]:
        traffic = self.traffic(service)
        policy = traffic["spec"].setdefault("trafficPolicy", {})
        pool = policy.setdefault("connectionPool", {})
        tcp, http = dict(pool.get("tcp") or {}), dict(pool.get("http") or {})
        _set(tcp, "maxConnections", form.connections)
        _set(http, "http1MaxPendingRequests", form.pending)
        # between sidecars requests share connections (HTTP/2) and do not queue, so requests themselves are limited
        _set(http, "http2MaxRequests", form.connections and form.connections + form.pending)
        _set(pool, "tcp", tcp)
        _set(pool, "http", http)
        _set(policy, "connectionPool", pool)
        detection = {"consecutive5xxErrors": form.errors, "baseEjectionTime": form.ejection or "30s"}
        _set(policy, "outlierDetection", detection if form.errors else None)
        return [traffic]

    def mutual_tls(self, service: Json, form: MutualTls) -> list[Json]:
        """A PeerAuthentication for the service's workloads."""
        policy = self._new(kinds.PEER_AUTHENTICATION, service)
        policy["spec"] = {"selector": {"matchLabels": _selector(service)}, "mtls": {"mode": form.mode}}
        return [policy]

    def callers(self, service: Json, form: Callers) -> list[Json]:
        """An AuthorizationPolicy that allows exactly these workloads, by their service accounts."""
        principals = []
        for caller in form.callers:
            namespace, _, name = caller.partition("/")
            page = self._inventory.workload(namespace, name)
            if page is None or not page["account"]:
                raise ValueError(f"there is no workload {caller} with a pod, so its identity is unknown")
            principals.append(f"{TRUST_DOMAIN}/ns/{namespace}/sa/{page['account']}")
        policy = self._new(kinds.AUTHORIZATION_POLICY, service)
        policy["spec"] = {"selector": {"matchLabels": _selector(service)}, "action": "ALLOW"}
        if principals:  # without rules nobody is allowed
            policy["spec"]["rules"] = [{"from": [{"source": {"principals": sorted(set(principals))}}]}]
        return [policy]

    def expose(self, service: Json, form: Expose) -> list[Json]:
        """A Gateway of its own on port 80 of the ingress gateway, and the route to the service."""
        ports = {int(p["port"]): port_protocol(p) for p in dig(service, "spec", "ports", default=[])}
        if form.port not in ports:
            raise ValueError(f"the service has no port {form.port}; it has {', '.join(map(str, ports)) or 'none'}")
        if (protocol := ports[form.port]) in WITHOUT_REQUESTS:
            raise ValueError(f"port {form.port} carries {protocol}, not HTTP; write a Gateway with a server for it")
        meta = service["metadata"]
        gateway = self._new(kinds.GATEWAY, service, "-exposed")
        server = {"port": {"number": 80, "name": "http", "protocol": "HTTP"}, "hosts": [form.host]}
        gateway["spec"] = {"selector": {"istio": "ingressgateway"}, "servers": [server]}
        rule = self._new(kinds.VIRTUAL_SERVICE, service, "-exposed")
        route = {"destination": {"host": meta["name"], "port": {"number": form.port}}}
        http = {"match": [{"uri": {"prefix": form.path}}], "route": [route]}
        rule["spec"] = {"hosts": [form.host], "gateways": [gateway["metadata"]["name"]], "http": [http]}
        return [gateway, rule]

    # --- existing objects ---------------------------------------------------------------------------------------

    def versions(self, service: Json) -> dict[str, dict[str, str]]:
        """The labels of the pods of each version."""
        meta = service["metadata"]
        page = self._inventory.service(meta["namespace"], meta["name"])
        found = {
            w["version"]: self._inventory.labels(w["namespace"], w["kind"], w["name"])
            for w in (page["behind"] if page else ())
        }
        return dict(sorted(found.items()))

    def rule(self, service: Json) -> Json:
        """The service's VirtualService in its own namespace, or a new one."""
        found = self._existing(
            kinds.VIRTUAL_SERVICE, service, lambda spec: "mesh" in (spec.get("gateways") or ["mesh"])
        )
        rule = found or self._new(kinds.VIRTUAL_SERVICE, service)
        host = service["metadata"]["name"]
        rule["spec"] = rule.get("spec") or {"hosts": [host]}
        rule["spec"].setdefault(_routes(service) or "http", [{"route": [{"destination": {"host": host}}]}])
        return rule

    def _requests(self, service: Json) -> Json:
        """``rule`` of a service whose proxies see requests."""
        if _routes(service) != "http":
            raise ValueError(
                "no port of the service is HTTP; proxies see its connections, not requests, so this has no effect"
            )
        return self.rule(service)

    def traffic(self, service: Json) -> Json:
        found = self._existing(kinds.DESTINATION_RULE, service, lambda spec: not spec.get("workloadSelector"))
        rule = found or self._new(kinds.DESTINATION_RULE, service)
        rule["spec"] = rule.get("spec") or {"host": service["metadata"]["name"]}
        return rule

    def _existing(self, kind: kinds.Kind, service: Json, fits: Callable[[Json], bool]) -> Json | None:
        """A copy of the first object of a kind that is about the service's host alone."""
        meta, names = service["metadata"], self.names(service)
        for ref in self._inventory.rules(meta["namespace"], meta["name"]):
            obj = self._inventory.find(kind, ref.namespace, ref.name) if kind.id == (ref.group, ref.kind) else None
            if obj is None or ref.namespace != meta["namespace"]:
                continue
            spec = obj.get("spec") or {}
            if set(spec.get("hosts") or [spec.get("host")]) <= names and fits(spec):
                return kind.typed(copy.deepcopy(obj))
        return None

    def names(self, service: Json) -> set[str]:
        """What rules in the service's own namespace may call it."""
        meta = service["metadata"]
        return {meta["name"], *self._inventory.hosts(meta["namespace"], meta["name"])}

    def replaced(self, service: Json) -> dict[str, list[str]]:
        """By wizard, the objects that it would replace as a whole."""
        namespace, name = service["metadata"]["namespace"], service["metadata"]["name"]
        return {
            wizard: [
                str(kind.ref(namespace, name + suffix))
                for kind in own
                if self._inventory.find(kind, namespace, name + suffix) is not None
            ]
            for wizard, (own, suffix) in OWN.items()
        }

    def _new(self, kind: kinds.Kind, service: Json, suffix: str = "") -> Json:
        """An object named after the service; the present one of that name is replaced, so that its version is known."""
        meta = service["metadata"]
        out: Json = {"apiVersion": kind.api_version, "kind": kind.kind}
        out["metadata"] = {"name": f"{meta['name']}{suffix}", "namespace": meta["namespace"]}
        old = self._inventory.find(kind, meta["namespace"], out["metadata"]["name"])
        if old is not None:
            base = {k: old["metadata"].get(k) for k in ("resourceVersion", "generation")}
            out["metadata"] |= {k: v for k, v in base.items() if v}
        return out


Form = tuple[type[Struct], Callable[..., list[Json]]]
OWN: Mapping[str, tuple[tuple[kinds.Kind, ...], str]] = {
    "mutual-tls": ((kinds.PEER_AUTHENTICATION,), ""),
    "callers": ((kinds.AUTHORIZATION_POLICY,), ""),
    "expose": ((kinds.GATEWAY, kinds.VIRTUAL_SERVICE), "-exposed"),
}
"""The objects that a wizard writes anew: their kinds, and what follows the service's name in theirs."""
FORMS: Mapping[str, Form] = {
    "weights": (Weights, Wizards.weights),
    "limits": (Limits, Wizards.limits),
    "fault": (Fault, Wizards.fault),
    "breaker": (Breaker, Wizards.breaker),
    "mutual-tls": (MutualTls, Wizards.mutual_tls),
    "callers": (Callers, Wizards.callers),
    "expose": (Expose, Wizards.expose),
}


def last(routes: list[Json]) -> list[Json]:
    """The routes for requests that no other match is about; all where each has a match."""
    return [r for r in routes if not r.get("match")] or routes


def sending(routes: list[Json], *others: str) -> list[Json]:
    """Those that send requests to a service. ``others``: fields of a route in place of destinations."""
    return [r for r in routes if not any(r.get(field) for field in ("redirect", "directResponse", *others))]


def _there(routes: list[Json], *others: str) -> list[Json]:
    """``sending``. Raises ValueError where there is none."""
    if found := sending(routes, *others):
        return found
    raise ValueError("the service's VirtualService answers or redirects all requests itself; change it in the editor")


def _routes(service: Json) -> str:
    """The routes of a VirtualService that a service's traffic goes by: ``http``, ``tcp``, or none of these."""
    protocols = {port_protocol(p) for p in dig(service, "spec", "ports", default=[])}
    if not protocols or protocols - WITHOUT_REQUESTS:
        return "http"
    return "tcp" if protocols - {"tls", "https", "udp"} else ""


def _subset(subsets: list[Json], version: str, labels: Mapping[str, str]) -> str:
    """The name of the subset of a version's pods; one is added where there is none. Raises ValueError."""
    by = next((k for k in REVISIONS if labels.get(k)), "")
    if not by:
        raise ValueError("some pods of the service have no label version, so no rule can tell them apart: add one")
    for subset in subsets:
        chosen = subset.get("labels") or {}
        if chosen.get(by) == labels[by] and chosen.items() <= labels.items():
            return str(subset["name"])
    taken = {s["name"] for s in subsets}
    base = re.sub(r"[^a-z0-9]+", "-", version.lower()).strip("-")[:60]
    name = next(n for i in itertools.count(1) if (n := base if i == 1 else f"{base}-{i}") not in taken)
    subsets.append({"name": name, "labels": {by: labels[by]}})
    return name


def _set(obj: Json, key: str, value: object) -> None:
    """Set a field, or remove it if there is no value."""
    if value:
        obj[key] = value
    else:
        obj.pop(key, None)


def _selector(service: Json) -> Json:
    found: Json = dict(dig(service, "spec", "selector", default={}))
    if not found:
        raise ValueError("the service selects no pods, so no workload can be named")
    return found
