"""Istio's task "Rate Limiting using Envoy": its EnvoyFilters and the rate limit service, at the gateway."""

import pytest
from world import SAMPLES

pytestmark = pytest.mark.system

SETTINGS = """
apiVersion: v1
kind: ConfigMap
metadata: {name: ratelimit-config}
data:
  config.yaml: |
    domain: ratelimit
    descriptors:
    - {key: PATH, value: /productpage, rate_limit: {unit: minute, requests_per_unit: 1}}
    - {key: PATH, rate_limit: {unit: minute, requests_per_unit: 100}}
"""
FILTERS = """
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: filter-ratelimit, namespace: istio-system}
spec:
  workloadSelector: {labels: {istio: ingressgateway}}
  configPatches:
  - applyTo: HTTP_FILTER
    match:
      context: GATEWAY
      listener:
        filterChain:
          filter:
            name: envoy.filters.network.http_connection_manager
            subFilter: {name: envoy.filters.http.router}
    patch:
      operation: INSERT_BEFORE
      value:
        name: envoy.filters.http.ratelimit
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimit
          domain: ratelimit
          failure_mode_deny: true
          timeout: 10s
          rate_limit_service:
            grpc_service:
              envoy_grpc:
                cluster_name: outbound|8081||ratelimit.default.svc.cluster.local
                authority: ratelimit.default.svc.cluster.local
            transport_api_version: V3
---
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: filter-ratelimit-svc, namespace: istio-system}
spec:
  workloadSelector: {labels: {istio: ingressgateway}}
  configPatches:
  - applyTo: VIRTUAL_HOST
    match:
      context: GATEWAY
      routeConfiguration: {vhost: {name: "", route: {action: ANY}}}
    patch:
      operation: MERGE
      value:
        rate_limits:
        - actions: [{request_headers: {header_name: ":path", descriptor_key: PATH}}]
"""


@pytest.fixture
def task(mesh):
    """The service is there before the gateway asks it: without an answer it denies every request."""
    sample = str(SAMPLES.parent / "ratelimit" / "rate-limit-service.yaml")
    try:
        mesh.apply(SETTINGS)
        mesh.kubectl("apply", "-f", sample)
        mesh.kubectl("rollout", "status", "deploy/ratelimit", "--timeout=60s", timeout=70)
        mesh.apply(FILTERS)
        for name in ("filter-ratelimit", "filter-ratelimit-svc"):
            where = ("envoyfilter", name, "-n", "istio-system")
            mesh.kubectl("wait", *where, "--for=condition=Reconciled", "--timeout=30s")
        yield mesh
    finally:
        for text in (FILTERS, SETTINGS):
            mesh.kubectl("delete", "-f", "-", "--ignore-not-found", stdin=text, ok=False)
        mesh.kubectl("delete", "-f", sample, "--ignore-not-found", ok=False)
        mesh.until(lambda: mesh.page()[0] == 200, what="the page without a limit")


def test_the_page_is_limited_and_other_paths_are_not(task):
    task.until(lambda: task.page()[0] == 429, what="the limit of one request a minute")
    assert {task.page("/login")[0] for _ in range(4)} <= {200, 302, 404, 405}
    where = ("deploy/istio-ingressgateway", "-n", "istio-system")
    named = "refused by EnvoyFilter filter-ratelimit.istio-system"
    task.until(lambda: named in task.lateen("logs", "--explain", *where).stdout, what="the filter in the explained log")
