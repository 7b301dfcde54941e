"""Whose report of a call counts: both ends may report it. Pure; ``COUNTED`` says the same in PromQL.

The client's report counts. The server's does

* where the caller is known by its certificate, and no proxy of its workload in its cluster reports: gRPC's own xDS
  clients, clusters whose proxies nobody reads, and workloads whose user turned the client's metrics off. A report
  without the cluster, whose label a Telemetry may remove, may be of any;
* where the caller has no identity, for as many calls as no client's proxy reports in plaintext to the same workload:
  a client in the mesh may call in plaintext, and its server cannot tell who it is.

A caller that has an identity, but no description in its certificate (SPIRE, Kubernetes' signers), has a proxy.
"""

from __future__ import annotations

from lateen.console.metrics import UNKNOWN, Added, Flow

PLAIN, MUTUAL_TLS = "none", "mutual_tls"
LEAST = 0.05
"""The share of a server's nameless calls below which all of them are the clients': the two are never read at the same
instant."""
_COUNTS = ("requests", "opened")

_NAMELESS = (
    'reporter="destination",'
    + "".join(f'{label}=~"{UNKNOWN}|",' for label in ("source_workload", "source_principal"))
    + f'connection_security_policy!="{MUTUAL_TLS}"'
)
_ON = "destination_workload, destination_workload_namespace, request_protocol"
_SERVERS = f"sum by ({_ON}) (rate(istio_requests_total{{{_NAMELESS}}}[$window]))"
_CLIENTS = (
    f'sum by ({_ON}) (rate(istio_requests_total{{reporter="source",connection_security_policy="{PLAIN}"}}[$window]))'
)
_NAMED = f'reporter="destination",source_workload!~"{UNKNOWN}|",source_cluster'
_ANYWHERE = "unless on (source_workload, source_workload_namespace) istio_requests_total"
COUNTED = (
    'rate($metric{reporter="source"$more}[$window])'
    f' or rate($metric{{{_NAMED}!~"{UNKNOWN}|"$more}}[$window])'
    " unless on (source_workload, source_workload_namespace, source_cluster)"
    ' istio_requests_total{reporter="source"}'
    f' {_ANYWHERE}{{reporter="source",source_cluster=~"{UNKNOWN}|"}}'
    f' or rate($metric{{{_NAMED}=~"{UNKNOWN}|"$more}}[$window]) {_ANYWHERE}{{reporter="source"}}'
    f" or rate($metric{{{_NAMELESS}$more}}[$window]) * on ({_ON}) group_left ()"
    f" (1 - ({_CLIENTS} or 0 * {_SERVERS}) / clamp_min({_SERVERS}, 1e-9) > {LEAST})"
)
"""PromQL: the rates of series such that each request counts once. ``$metric`` and ``$window`` are to be replaced, and
``$more`` by further matchers, each after a comma."""

Place = tuple[str, str, str]
"""(namespace, workload, protocol) of a server."""


class Reports:
    """How much of each report counts, by all that were made in some time."""

    def __init__(self, added: Added) -> None:
        self._clients: dict[tuple[str, str], set[str]] = {}
        """The workloads whose proxies report their calls -> in which clusters"""
        plain: dict[Place, float] = {}
        nameless: dict[Place, float] = {}
        for sample, value in added.items():
            flow = sample.flow
            if flow.reporter == "source":
                self._clients.setdefault(flow.source[:2], set()).add(flow.cluster)
            if sample.metric in _COUNTS:
                if flow.reporter == "source" and flow.policy == PLAIN:
                    plain[_place(flow)] = plain.get(_place(flow), 0.0) + value
                elif _is_nameless(flow):
                    nameless[_place(flow)] = nameless.get(_place(flow), 0.0) + value
        self._others = {at: 1 - plain.get(at, 0.0) / count for at, count in nameless.items() if count}
        """The share of nameless calls that no client's proxy reports."""

    def share(self, flow: Flow) -> float:
        """From 0 to 1."""
        if flow.reporter == "source":
            return 1.0
        if _is_nameless(flow):
            found = self._others.get(_place(flow), 1.0)
            return found if found > LEAST else 0.0
        clusters = self._clients.get(flow.source[:2], set())
        reports = bool(clusters & {flow.cluster, UNKNOWN}) or (flow.cluster == UNKNOWN and bool(clusters))
        return float(flow.source.name not in (UNKNOWN, "") and not reports)


def _place(flow: Flow) -> Place:
    return flow.destination.namespace, flow.destination.name, flow.protocol


def _is_nameless(flow: Flow) -> bool:
    return flow.reporter != "source" and flow.nameless and flow.policy != MUTUAL_TLS
