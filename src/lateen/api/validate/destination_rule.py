"""The rules of DestinationRule between its fields."""

from __future__ import annotations

from lateen.api import networking as n
from lateen.api.validate import scalars as s
from lateen.api.validate.common import connection_pool, selector
from lateen.api.validate.findings import Findings, no, warn
from lateen.kit.jsons import Json

MAX_MAGLEV = 5_000_011
COOKIE_ATTRIBUTES = 64


def destination_rule(dr: n.DestinationRule, meta: Json) -> Findings:
    namespace = str(meta.get("namespace") or "")
    yield from s.wildcard_domain(dr.host, "spec.host")
    yield from traffic_policy(dr.traffic_policy, "spec.trafficPolicy")
    seen: set[str] = set()
    for i, subset in enumerate(dr.subsets):
        at = f"spec.subsets[{i}]"
        if not s._LABEL.fullmatch(subset.name):
            yield no(f"{at}.name", f'subset name "{subset.name}" is not valid')
        if subset.name in seen:
            yield no(f"{at}.name", f"duplicate subset names: {subset.name}")
        seen.add(subset.name)
        yield from s.labels(subset.labels, f"{at}.labels")
        yield from traffic_policy(subset.traffic_policy, f"{at}.trafficPolicy")
    yield from s.export_to(namespace, dr.export_to, service_entry=False)
    yield from selector(dr.workload_selector, "spec.workloadSelector")
    if dr.workload_selector and any(to not in (".", namespace) for to in dr.export_to):
        yield no("spec.exportTo", 'a destination rule with workloadSelector can be exported only to "."')


def traffic_policy(p: n.TrafficPolicy | None, at: str) -> Findings:
    if p is None:
        return
    parts = (
        p.load_balancer,
        p.connection_pool,
        p.outlier_detection,
        p.tls,
        p.port_level_settings,
        p.tunnel,
        p.proxy_protocol,
        p.retry_budget,
    )
    if not any(parts):
        yield no(at, "traffic policy must have at least one field")
    if p.tunnel and p.proxy_protocol:
        yield no(at, "tunnel and proxyProtocol must not be set together")
    yield from _outlier_detection(p.outlier_detection, f"{at}.outlierDetection")
    yield from connection_pool(p.connection_pool, f"{at}.connectionPool")
    yield from _load_balancer(p.load_balancer, p.outlier_detection, f"{at}.loadBalancer")
    yield from _tls(p.tls, f"{at}.tls")
    yield from _tunnel(p.tunnel, f"{at}.tunnel")
    for i, port in enumerate(p.port_level_settings):
        where = f"{at}.portLevelSettings[{i}]"
        if port.port is None or not port.port.number:
            yield no(f"{where}.port", "port level settings require a port number")
        else:
            yield from s.port(port.port.number, f"{where}.port.number")
        yield from _outlier_detection(port.outlier_detection, f"{where}.outlierDetection")
        yield from connection_pool(port.connection_pool, f"{where}.connectionPool")
        yield from _load_balancer(port.load_balancer, port.outlier_detection, f"{where}.loadBalancer")
        yield from _tls(port.tls, f"{where}.tls")
    if p.retry_budget and p.retry_budget.percent is not None:
        yield from s.percent(p.retry_budget.percent, f"{at}.retryBudget.percent")


def _tunnel(t: n.Tunnel | None, at: str) -> Findings:
    if t is None:
        return
    if t.protocol not in ("", "CONNECT", "POST"):
        yield no(f"{at}.protocol", f'tunnel protocol must be "CONNECT" or "POST", is "{t.protocol}"')
    if not s.is_ip(t.target_host):
        yield from s.fqdn(t.target_host, f"{at}.targetHost")
    yield from s.port(t.target_port, f"{at}.targetPort")


def _outlier_detection(o: n.OutlierDetection | None, at: str) -> Findings:
    if o is None:
        return
    yield from s.duration(o.base_ejection_time, f"{at}.baseEjectionTime")
    yield from s.duration(o.interval, f"{at}.interval")
    if o.consecutive_errors:
        yield warn(
            f"{at}.consecutiveErrors",
            "consecutiveErrors is deprecated, use consecutiveGatewayErrors or consecutive5xxErrors instead",
        )
    if not o.split_external_local_origin_errors and (o.consecutive_local_origin_failures or 0) > 0:
        yield no(
            f"{at}.consecutiveLocalOriginFailures",
            "outlier detection consecutive local origin failures needs split_external_local_origin_errors",
        )
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
        yield warn(f"{at}.warmup", "warm-up works only with ROUND_ROBIN and LEAST_REQUEST; it is ignored here")
    yield from s.duration(lb.warmup_duration_secs, f"{at}.warmupDurationSecs")
    if w := lb.warmup:
        yield from s.duration(w.duration, f"{at}.warmup.duration")
        if w.aggression is not None and w.aggression < 1:
            yield no(f"{at}.warmup.aggression", "aggression must be at least 1")
        yield from s.percent(w.minimum_percent or 0, f"{at}.warmup.minimumPercent")
    yield from _consistent_hash(lb.consistent_hash, f"{at}.consistentHash")
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
                yield no(f"{at}.httpCookie.attributes[{i}].name", "must not be empty")
            if a.name.lower() in seen:
                yield no(f"{at}.httpCookie.attributes[{i}].name", f'"{a.name}" is given twice')
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
        yield no(at, "consistent hash needs a key: httpHeaderName, httpCookie, useSourceIp or httpQueryParameterName")
    if len(given) > 1:
        yield no(at, f"has {' and '.join(given)}; give only one key")
    yield from _table(h, at)


def _table(h: n.ConsistentHash, at: str) -> Findings:
    if h.minimum_ring_size:
        yield warn(f"{at}.minimumRingSize", "MinimumRingSize is deprecated, use ringHash.minimumRingSize instead")
        if h.ring_hash or h.maglev:
            yield no(at, "only one of MinimumRingSize or Maglev/Ringhash can be specified")
    if h.maglev and h.maglev.table_size is not None:
        size = h.maglev.table_size
        if not size:
            yield no(f"{at}.maglev.tableSize", "tableSize must be set for maglev")
        elif size >= MAX_MAGLEV:
            yield no(f"{at}.maglev.tableSize", f"tableSize must be less than {MAX_MAGLEV} for maglev, is {size}")
        elif not _prime(size):
            yield no(f"{at}.maglev.tableSize", f"tableSize must be a prime number for maglev, is {size}")


def _prime(n_: int) -> bool:
    return n_ > 1 and all(n_ % d for d in range(2, int(n_**0.5) + 1))


def locality_lb(lb: n.LocalityLb | None, at: str, outlier: n.OutlierDetection | None) -> Findings:
    if lb is None:
        return
    if sum(map(bool, (lb.distribute, lb.failover))) > 1:
        yield no(at, "can not simultaneously specify 'distribute' and 'failover'")
    if lb.distribute and lb.failover_priority:
        yield no(at, "can not simultaneously specify 'distribute' and 'failoverPriority'")
    if (lb.failover or lb.failover_priority) and outlier is None:
        yield warn(at, "locality failover works only with outlierDetection")
    sources = [d.from_ for d in lb.distribute]
    yield from localities(sources, f"{at}.distribute")
    for i, d in enumerate(lb.distribute):
        where = f"{at}.distribute[{i}]"
        if any(w == 0 for w in d.to.values()):
            yield no(f"{where}.to", "locality weight must be in range [1, 100]")
        elif sum(d.to.values()) != 100:
            yield no(f"{where}.to", f"total locality weight {sum(d.to.values())} != 100")
        yield from localities(list(d.to), f"{where}.to")
    for i, f in enumerate(lb.failover):
        where = f"{at}.failover[{i}]"
        if f.from_ == f.to:
            yield no(where, f"locality lb failover settings must specify different regions, both are {f.from_}")
        for side in (f.from_, f.to):
            if "*" in side:
                yield no(where, f'locality lb failover region "{side}" should not contain "*" wildcard')
            if "/" in side:
                yield no(where, f'locality lb failover only specify region, is "{side}"')


def localities(given: list[str], at: str) -> Findings:
    """region/zone/subzone, a wildcard only at the end; none may lie in another."""
    for text in given:
        parts = text.split("/")
        if not text or any(not p for p in parts) or len(parts) > 3:
            yield no(at, f'locality "{text}" must be written as region/zone/subzone')
        if "*" in text and (text.count("*") > 1 or not text.endswith("*")):
            yield no(at, f'locality "{text}" wildcard "*" number can not exceed 1 and should be in the end')
    for i, a in enumerate(given):
        for b in given[i + 1 :]:
            if a == b or _inside(a, b) or _inside(b, a):
                yield no(at, f'locality "{a}" and "{b}" overlap')


def _inside(wide: str, narrow: str) -> bool:
    prefix = wide.removesuffix("*").removesuffix("/")
    return narrow == prefix or narrow.startswith(f"{prefix}/") if prefix else True


def _tls(tls: n.ClientTLS | None, at: str) -> Findings:
    if tls is None:
        return
    if tls.insecure_skip_verify and tls.mode in ("SIMPLE", "MUTUAL"):
        if tls.mode == "SIMPLE" and (tls.ca_certificates or tls.credential_name):
            yield no(at, "cannot specify caCertificates or credentialName when insecureSkipVerify is true")
        if tls.subject_alt_names:
            yield no(f"{at}.subjectAltNames", "cannot specify SubjectAltNames when insecureSkipVerify is true")
    if tls.mode in ("SIMPLE", "MUTUAL") and tls.credential_name:
        files = (tls.client_certificate, tls.private_key, tls.ca_certificates, tls.ca_crl)
        if any(files):
            yield no(
                at,
                "cannot specify client certificates, a private key, CA certificates or a CRL if credentialName is set",
            )
        return
    if tls.mode == "MUTUAL":
        if not tls.client_certificate:
            yield no(f"{at}.clientCertificate", "client certificate required for mutual tls")
        if not tls.private_key:
            yield no(f"{at}.privateKey", "private key required for mutual tls")
