"""Well-known ports and what they are for. They are Istio's."""

from __future__ import annotations

ADMIN = 15000  # Envoy's admin interface, on localhost only
OUTBOUND = 15001  # outgoing connections of the application are redirected here
INBOUND = 15006  # incoming connections of the application are redirected here
XDS = 15012  # istiod: delta ADS over mTLS; on the pod's loopback interface, debug xDS with tokens (istioctl)
CA = 15010  # istiod: issues certificates for service account tokens (TLS, no client certificate)
MONITORING = 15014  # istiod: metrics and debug
READINESS = 8080  # istiod: the same, at the port where Kiali and Istio's probes ask whether it is ready
CONTROLZ = 9876  # istiod: log levels, on the pod's loopback interface
WEBHOOK = 15017  # istiod: injection and validation
MERGED_METRICS = 15020  # agent: metrics of Envoy, the agent and the application; drain
DNS = 15053  # agent: the pod's DNS, if it is captured
HEALTH = 15021  # Envoy: /healthz/ready for the kubelet
ENVOY_METRICS = 15090  # Envoy, for the agent: /stats/prometheus
COLLECTOR = 9097  # the add-on prometheus, queried by the console; Prometheus' own port may belong to a real Prometheus

EXCLUDED_INBOUND = (ENVOY_METRICS, HEALTH, MERGED_METRICS)
PROXY_UID = 1337
TPROXY_MARK, TPROXY_OWN_MARK, TPROXY_TABLE = 1337, 1338, 133
"""Istio's marks of TPROXY packets and of the proxy's calls to its own workload, and the routing table for the
former."""

GUARD, GUARD_V6 = "127.0.0.6", "::6"
"""Istio's sources of connections to the application that are not redirected again: those of its proxy, and probes."""
