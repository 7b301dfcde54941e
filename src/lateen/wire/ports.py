"""Well-known ports, each with its reason. They are Istio's."""

from __future__ import annotations

ADMIN = 15000  # Envoy's admin interface, on localhost only
OUTBOUND = 15001  # what leaves the application is redirected here
INBOUND = 15006  # what comes to the application is redirected here
XDS = 15012  # istiod: delta ADS over mTLS; on the pod's loopback interface, debug xDS with tokens (istioctl)
CA = 15010  # istiod: certificates against service-account tokens (TLS, no client certificate)
MONITORING = 15014  # istiod: metrics and debug
CONTROLZ = 9876  # istiod: log levels, on the pod's loopback interface
WEBHOOK = 15017  # istiod: injection and validation
MERGED_METRICS = 15020  # agent: metrics of Envoy, agent and application; drain
DNS = 15053  # agent: DNS of the pod, where it is captured
HEALTH = 15021  # Envoy: /healthz/ready for the kubelet
ENVOY_METRICS = 15090  # Envoy: /stats/prometheus

EXCLUDED_INBOUND = (ENVOY_METRICS, HEALTH, MERGED_METRICS)
PROXY_UID = 1337
SOCKET_MARK = 1337
"""Where user ids cannot be told apart (rootless), the proxy's own connections carry this mark instead."""
