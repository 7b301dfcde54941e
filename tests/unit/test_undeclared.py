"""What the analysis says of ports without a protocol behind policies about requests."""

import json

from lateen.analysis import Snapshot, Source, analyze

PORTS = [
    {"port": 5432},
    {"port": 80, "name": "http"},
    {"port": 6379, "appProtocol": "tcp"},
    {"port": 53, "protocol": "UDP"},
]
ASKED = {"service": "ask.shop.svc.cluster.local", "port": 80}
MESH = {
    "extensionProviders": [{"name": "web", "envoyExtAuthzHttp": ASKED}, {"name": "rpc", "envoyExtAuthzGrpc": ASKED}]
}


def obj(kind, version, name, namespace="shop", **more):
    return Source({"apiVersion": version, "kind": kind, "metadata": {"name": name, "namespace": namespace}, **more})


def service(name, namespace="shop"):
    return obj("Service", "v1", name, namespace, spec={"ports": PORTS, "selector": {"app": name}})


def pod(name, namespace="shop", container="istio-proxy"):
    found = {"name": name, "namespace": namespace, "labels": {"app": name}}
    return Source({"apiVersion": "v1", "kind": "Pod", "metadata": found, "spec": {"containers": [{"name": container}]}})


def found(*policies):
    config = obj("ConfigMap", "v1", "istio", "istio-system", data={"mesh": json.dumps(MESH)})
    services = [service("db"), service("web"), service("db", "other"), service("alone")]
    pods = [pod("db"), pod("web"), pod("db", "other"), pod("alone", container="app")]
    messages = analyze(Snapshot([config, *services, *pods, *policies]))
    return [m.text for m in messages if m.kind.code == "LAT0132"]


def asking(namespace="shop", provider="web", action="CUSTOM", **more):
    spec = {"action": action, "provider": {"name": provider}, "rules": [{}], **more}
    return obj("AuthorizationPolicy", "security.istio.io/v1", "ask", namespace, spec=spec)


def limited(rules, **target):
    spec = {
        "targetRefs": [{"group": "", "kind": "Service", "name": "db", **target}],
        "rateLimit": {"local": {"rules": rules}},
    }
    return obj("BackendTrafficPolicy", "gateway.envoyproxy.io/v1alpha1", "slow", spec=spec)


def test_ports_are_named_where_a_provider_is_asked_over_http():
    (said,) = found(asking())
    assert said.startswith("The protocol of port 5432 of Service shop/db, 5432 of Service shop/web is not declared")
    assert "is denied where the policy matches, since provider web is asked over HTTP" in said
    (said,) = found(asking(selector={"matchLabels": {"app": "db"}}))
    assert "shop/db" in said
    assert "shop/web" not in said
    (said,) = found(asking("istio-system"))
    assert "other/db" in said
    assert "shop/alone" not in said, "it has no proxy that would deny"
    for other in (asking(provider="rpc"), asking(provider="none"), asking(action="DENY")):
        assert found(other) == []


def test_ports_are_named_where_requests_are_limited():
    rule = {"limit": {"requests": 1, "unit": "Second"}}
    (said,) = found(limited([rule]))
    assert "port 5432 of Service shop/db is not declared: what Envoy does not take for HTTP is closed" in said
    assert found(limited([rule], sectionName="http")) == []
    assert found(limited([{**rule, "shadowMode": True}])) == []
