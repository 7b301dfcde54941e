"""Traffic rules between real proxies."""

import json

import pytest

pytestmark = pytest.mark.system

SOURCES = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: ratings, namespace: default}
spec:
  hosts: [ratings]
  http:
  - match: [{sourceLabels: {app: details}}]
    directResponse: {status: 418}
  - match: [{sourceNamespace: elsewhere}]
    directResponse: {status: 419}
  - route: [{destination: {host: ratings}}]
"""


def code(mesh, source):
    out = mesh.inside(
        source, "curl", "-s", "-m", "5", "-o", "/dev/null", "-w", "%{http_code}", "ratings:9080/ratings/0", ok=False
    )
    return int(out.stdout or 0)


def test_a_rule_can_be_for_some_clients_only(mesh):
    mesh.apply(SOURCES)
    try:
        mesh.until(lambda: code(mesh, "details") == 418, 15, "the rule for details")
        assert code(mesh, "productpage") == 200
        assert code(mesh, "reviews") == 200
    finally:
        mesh.kubectl("delete", "virtualservice", "ratings")
    mesh.until(lambda: code(mesh, "details") == 200, 15, "no rule")


HASHED = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews-hash}
spec:
  host: reviews
  trafficPolicy: {loadBalancer: {consistentHash: {%s}}}
"""


def pods(mesh, times, *curl):
    """The reviews pods that answered ``times`` requests from productpage."""
    loop = f"for i in $(seq {times}); do curl -s -m 5 {' '.join(curl)} reviews:9080/reviews/0; echo; done"
    out = mesh.inside("productpage", "sh", "-c", loop).stdout
    return {json.loads(line)["podname"] for line in out.splitlines() if line.startswith("{")}


def test_consistent_hash_keeps_a_key_at_one_endpoint(mesh):
    assert len(pods(mesh, 20)) == 3
    try:
        mesh.apply(HASHED % "httpHeaderName: x-user")
        mesh.until(lambda: len(pods(mesh, 15, "-H", "x-user:ann")) == 1, 20, "one endpoint for ann")
        by_user = {user: pods(mesh, 5, "-H", f"x-user:{user}") for user in ("ann", "bob", "cat", "dan", "eve", "fay")}
        assert all(len(found) == 1 for found in by_user.values())
        assert len(set.union(*by_user.values())) > 1
        mesh.apply(HASHED % "useSourceIp: true, maglev: {tableSize: 65537}")
        mesh.until(lambda: len(pods(mesh, 15)) == 1, 20, "one endpoint for one address")
        mesh.apply(HASHED % "httpCookie: {name: seat, path: /, ttl: 60s}")

        def cookie():
            head = mesh.inside("productpage", "curl", "-s", "-D-", "-o/dev/null", "reviews:9080/reviews/0").stdout
            return next((line.split(":", 1)[1].split(";")[0].strip() for line in head.splitlines()
                         if line.lower().startswith("set-cookie: seat=")), None)  # fmt: skip

        seat = mesh.until(cookie, 20, "the cookie that Envoy sets")
        assert len(pods(mesh, 15, "-H", f"'cookie: {seat}'")) == 1
    finally:
        mesh.kubectl("delete", "destinationrule", "reviews-hash")
    mesh.until(lambda: len(pods(mesh, 20)) == 3, 20, "all endpoints again")


def test_passthrough_leaves_the_choice_to_the_client(mesh):
    """The service's rules apply, and the request goes to the address that its client connected to."""
    chosen = mesh.get("pod", "-l", "app=reviews,version=v2", "-o", "jsonpath={.items[0].metadata.name}")
    address = mesh.get("pod", chosen, "-o", "jsonpath={.status.podIP}")
    loop = f"for i in $(seq 15); do curl -s -m 5 -H 'Host: reviews:9080' {address}:9080/reviews/0; echo; done"

    def answered():
        out = mesh.inside("productpage", "sh", "-c", loop).stdout
        return {json.loads(line)["podname"] for line in out.splitlines() if line.startswith("{")}

    assert len(answered()) == 3
    try:
        mesh.apply(HASHED.replace("consistentHash: {%s}", "simple: PASSTHROUGH"))
        mesh.until(lambda: answered() == {chosen}, 20, "only the pod whose address was called")
    finally:
        mesh.kubectl("delete", "destinationrule", "reviews-hash")


DELEGATED = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: ratings}
spec:
  hosts: [ratings]
  http:
  - {match: [{uri: {prefix: /ratings}}], delegate: {name: ratings-part}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: ratings-part}
spec:
  http:
  - {directResponse: {status: %s}}
"""


def test_a_delegate_can_change_separately(mesh):
    try:
        mesh.apply(DELEGATED % 418)
        mesh.until(lambda: code(mesh, "details") == 418, 15, "the delegate's answer")
        mesh.apply((DELEGATED % 419).split("---")[1])
        mesh.until(lambda: code(mesh, "details") == 419, 15, "the delegate's new answer")
    finally:
        mesh.kubectl("delete", "virtualservice", "ratings", "ratings-part")
    mesh.until(lambda: code(mesh, "details") == 200, 15, "no rule")
