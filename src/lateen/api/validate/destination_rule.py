"""The rules of DestinationRule between its fields.

Source: istio.io/istio ``pkg/config/validation/validation.go``, ValidateDestinationRule.
"""

from __future__ import annotations

from lateen.api import networking as n
from lateen.api.validate import scalars as s
from lateen.api.validate.client_tls import client_tls
from lateen.api.validate.common import connection_pool, selector, subset_name
from lateen.api.validate.findings import Findings, hint, no, warn
from lateen.api.validate.locality import locality_lb, zone_aware_lb
from lateen.kit.jsons import Json

MAX_MAGLEV, MAX_RING = 5_000_011, 8_388_608
COOKIE_ATTRIBUTES = 64


def destination_rule(dr: n.DestinationRule, meta: Json) -> Findings:
    namespace = str(meta.get("namespace") or "")
    yield from s.wildcard_domain(dr.host, "spec.host")
    yield from traffic_policy(dr.traffic_policy, "spec.trafficPolicy", namespace)
    seen: set[str] = set()
    for i, subset in enumerate(dr.subsets):
        at = f"spec.subsets[{i}]"
        yield from subset_name(subset.name, f"{at}.name")
        if subset.name in seen:
            yield no(f"{at}.name", f"duplicate subset names: {subset.name}")
        seen.add(subset.name)
        yield from s.labels(subset.labels, f"{at}.labels")
        yield from traffic_policy(subset.traffic_policy, f"{at}.trafficPolicy", namespace)
    yield from s.export_to(namespace, dr.export_to, service_entry=False)
    yield from selector(dr.workload_selector, "spec.workloadSelector")
    if dr.workload_selector and any(to not in (".", namespace) for to in dr.export_to):
        own = bool({".", namespace} & set(dr.export_to))
        what = "multiple entries in exportTo" if own else "exportTo beyond current namespace"
        says = f"destination rule with workload selector cannot have {what}"
        yield no("spec.exportTo", f'{says}; leave it out, or write "."')


def traffic_policy(p: n.TrafficPolicy | None, at: str, namespace: str) -> Findings:
    if p is None:
        return
    if not _given(p):
        yield no(at, "traffic policy must have at least one field")
    if p.tunnel and p.proxy_protocol:
        yield no(at, "tunnel and proxyProtocol must not be set together")
    yield from _common(p, at, namespace)
    yield from _tunnel(p.tunnel, f"{at}.tunnel")
    for i, port in enumerate(p.port_level_settings):
        where = f"{at}.portLevelSettings[{i}]"
        if port.port is None:
            yield no(f"{where}.port", "portTrafficPolicy must have valid port")
        elif not port.port.number:
            yield hint(f"{where}.port", "portTrafficPolicy must have valid port: these settings are of no port")
        else:
            yield from s.port(port.port.number, f"{where}.port.number")
        if not _given(port, "port"):
            yield no(where, "port traffic policy must have at least one field")
        yield from _common(port, where, namespace)
    if p.retry_budget and p.retry_budget.percent is not None:
        yield from s.percent(p.retry_budget.percent, f"{at}.retryBudget.percent")


def _given(policy: n.TrafficPolicy | n.PortTrafficPolicy, *but: str) -> bool:
    return any(getattr(policy, f) for f in policy.__struct_fields__ if f not in but)


def _common(p: n.TrafficPolicy | n.PortTrafficPolicy, at: str, namespace: str) -> Findings:
    """What both the policy of a host and that of one of its ports have."""
    yield from outlier_detection(p.outlier_detection, f"{at}.outlierDetection")
    yield from connection_pool(p.connection_pool, f"{at}.connectionPool")
    yield from _load_balancer(p.load_balancer, p.outlier_detection, f"{at}.loadBalancer")
    yield from client_tls(p.tls, f"{at}.tls", namespace)


def _tunnel(t: n.Tunnel | None, at: str) -> Findings:
    if t is None:
        return
    if t.protocol not in ("", "CONNECT", "POST"):
        yield no(f"{at}.protocol", f'tunnel protocol must be "CONNECT" or "POST", is "{t.protocol}"')
    if not s.is_ip(t.target_host):
        for found in s.fqdn(t.target_host, at):
            yield no(f"{at}.targetHost", f"tunnel target host must be valid FQDN or IP address: {found.says}")
    for found in s.port(t.target_port, at):
        yield no(f"{at}.targetPort", f"tunnel target port is invalid: {found.says}")


def outlier_detection(o: n.OutlierDetection | None, at: str) -> Findings:
    if o is None:
        return
    yield from s.duration(o.base_ejection_time, f"{at}.baseEjectionTime")
    yield from s.duration(o.interval, f"{at}.interval")
    if o.consecutive_errors:
        says = "consecutive errors is deprecated, use consecutiveGatewayErrors or consecutive5xxErrors instead"
        yield warn(f"{at}.consecutiveErrors", f"outlier detection {says}")
    if not o.split_external_local_origin_errors and (o.consecutive_local_origin_failures or 0) > 0:
        says = "consecutive local origin failures is specified, but split external local origin errors is set to false"
        yield no(f"{at}.consecutiveLocalOriginFailures", f"outlier detection {says}")
    yield from s.percent(o.max_ejection_percent or 0, f"{at}.maxEjectionPercent")
    yield from s.percent(o.min_health_percent or 0, f"{at}.minHealthPercent")
    for i, code in enumerate(o.outlier_detection_http_error_codes):
        if not 100 <= code <= 599:
            yield no(f"{at}.outlierDetectionHttpErrorCodes[{i}]", f"{code} is not between 100 and 599")


def _load_balancer(lb: n.LoadBalancer | None, outlier: n.OutlierDetection | None, at: str) -> Findings:
    if lb is None:
        return
    given = [
        k
        for k, v in (
            ("simple", lb.simple),
            ("consistentHash", lb.consistent_hash),
            ("backendUtilization", lb.backend_utilization),
        )
        if v is not None
    ]
    if len(given) > 1:
        yield no(at, f"has {' and '.join(given)}; give only one")
    if (lb.warmup_duration_secs or lb.warmup) and (
        lb.consistent_hash is not None or lb.simple in ("RANDOM", "PASSTHROUGH")
    ):
        yield hint(f"{at}.warmup", "warm-up works only with ROUND_ROBIN and LEAST_REQUEST; it is ignored here")
    yield from s.duration(lb.warmup_duration_secs, f"{at}.warmupDurationSecs")
    if w := lb.warmup:
        yield from s.duration(w.duration, f"{at}.warmup.duration")
        if w.aggression is not None and w.aggression <= 0:
            yield no(f"{at}.warmup.aggression", f"aggression should be greater than 0, is {w.aggression:g}")
        if lb.warmup_duration_secs:
            yield no(at, "only one of warmupDurationSecs or warmup can be set; warmupDurationSecs is deprecated")
        if w.minimum_percent is not None and not 0 <= w.minimum_percent <= 100:
            bound = "greater than or equal to 0" if w.minimum_percent < 0 else "less than or equal to 100"
            says = f"minimumPercent value should be {bound}, is {w.minimum_percent:g}"
            yield no(f"{at}.warmup.minimumPercent", says)
    yield from _consistent_hash(lb.consistent_hash, f"{at}.consistentHash")
    if lb.locality_lb_setting and lb.zone_aware_lb_setting:
        yield no(at, "only one of localityLbSetting and zoneAwareLbSetting can be set")
    yield from zone_aware_lb(lb.zone_aware_lb_setting, f"{at}.zoneAwareLbSetting", outlier)
    yield from locality_lb(lb.locality_lb_setting, f"{at}.localityLbSetting", outlier)


def _consistent_hash(h: n.ConsistentHash | None, at: str) -> Findings:
    if h is None:
        return
    if c := h.http_cookie:
        if not c.name:
            yield no(f"{at}.httpCookie.name", "name required for HttpCookie")
        seen: set[str] = set()
        if len(c.attributes) > COOKIE_ATTRIBUTES:
            yield no(f"{at}.httpCookie.attributes", f"too many attributes: the limit is {COOKIE_ATTRIBUTES}")
        for i, a in enumerate(c.attributes):
            if not a.name:
                yield no(f"{at}.httpCookie.attributes[{i}].name", "cookie attribute name cannot be empty")
            if a.name.lower() in seen:
                yield no(f"{at}.httpCookie.attributes[{i}].name", f"duplicate cookie attribute name: {a.name}")
            seen.add(a.name.lower())
    given = [
        k
        for k, v in (
            ("httpHeaderName", h.http_header_name),
            ("httpCookie", h.http_cookie),
            ("useSourceIp", h.use_source_ip),
            ("httpQueryParameterName", h.http_query_parameter_name),
        )
        if v
    ]
    if not given:
        known = "httpHeaderName, httpCookie, useSourceIp or httpQueryParameterName"
        yield hint(at, f"without a key ({known}), requests are spread at random")
    if len(given) > 1:
        yield no(at, f"has {' and '.join(given)}; give only one key")
    yield from _table(h, at)


def _table(h: n.ConsistentHash, at: str) -> Findings:
    if h.minimum_ring_size:
        says = "consistent hash MinimumRingSize is deprecated, use ConsistentHashLB's RingHash configuration instead"
        yield warn(f"{at}.minimumRingSize", says)
        if h.ring_hash or h.maglev:
            yield no(at, "only one of MinimumRingSize or Maglev/Ringhash can be specified")
    if h.ring_hash and h.maglev:
        yield no(at, "has ringHash and maglev; give only one")
    for where, ring in (("minimumRingSize", h.minimum_ring_size), ("ringHash.minimumRingSize", _ring(h))):
        if (ring or 0) > MAX_RING:
            yield no(f"{at}.{where}", f"Envoy's rings have at most {MAX_RING} places, is {ring}")
    if h.maglev:
        size = h.maglev.table_size or 0
        if not size:
            yield no(f"{at}.maglev.tableSize", "tableSize must be set for maglev, as in 65537")
        elif size >= MAX_MAGLEV:
            yield no(f"{at}.maglev.tableSize", f"tableSize must be less than {MAX_MAGLEV} for maglev, is {size}")
        elif not _prime(size):
            yield no(f"{at}.maglev.tableSize", f"tableSize must be a prime number for maglev, is {size}")


def _ring(h: n.ConsistentHash) -> int | None:
    return h.ring_hash.minimum_ring_size if h.ring_hash else None


def _prime(n_: int) -> bool:
    """As Envoy sees it, which takes 1 for a prime number."""
    return n_ > 0 and all(n_ % d for d in range(2, int(n_**0.5) + 1))
