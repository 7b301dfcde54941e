"""Authorization policies for tests, and the filters that they become."""

import judge
import meshes as mesh
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm

from lateen.api import kinds
from lateen.api import objects as o
from lateen.api.config import decode
from lateen.api.mesh import ExtensionProvider
from lateen.api.security import AuthorizationPolicy
from lateen.mesh.settings import MeshConfig, Trust
from lateen.wire import names

EVERYTHING = """
kind: AuthorizationPolicy
metadata: {name: allow, namespace: default}
spec:
  selector: {matchLabels: {app: productpage}}
  rules:
  - from:
    - source:
        principals: ["*", "cluster.local/ns/a/sa/b", "x/*", "*/sa/y"]
        notPrincipals: [z]
        namespaces: [a, "b-*"]
        ipBlocks: [10.0.0.0/8, "::1"]
        remoteIpBlocks: [1.2.3.4]
        requestPrincipals: ["a/b", "*", "c/*", "*/d"]
    - source: {serviceAccounts: [a/b, c], trustDomains: [td, "*", "*.test", "td-*"]}
    to:
    - operation:
        hosts: ["*.a.b", c]
        methods: [GET]
        paths: ["/a/*", "*/b", "/c/{*}/d", "/e/{**}"]
        notPorts: ["1", "2"]
    when:
    - {key: "request.headers[x-y]", values: ["a*"]}
    - {key: "request.experimental.inline.headers[x-z]", values: ["a", "b*"], notValues: ["*"]}
    - {key: "request.auth.claims[a][b]", values: [c], notValues: [d]}
    - {key: request.auth.audiences, values: [e]}
    - {key: destination.ip, values: [10.1.0.0/16]}
    - {key: connection.sni, values: ["*.x"]}
    - {key: source.ip, notValues: [9.9.9.9]}
---
kind: AuthorizationPolicy
metadata: {name: deny, namespace: istio-system}
spec: {action: DENY, rules: [{to: [{operation: {paths: [/secret]}}]}]}
---
kind: AuthorizationPolicy
metadata: {name: ask, namespace: default}
spec: {action: CUSTOM, provider: {name: PROVIDER}, rules: [{to: [{operation: {paths: [/asked]}}]}]}
---
kind: AuthorizationPolicy
metadata: {name: elsewhere, namespace: other}
spec: {action: DENY, rules: [{}]}
"""
GRPC = {"name": "grpc", "envoyExtAuthzGrpc": {"service": "ratings.default.svc.cluster.local", "port": 9080}}
HTTP = {
    "name": "http",
    "envoyExtAuthzHttp": {
        "service": "default/ratings.default.svc.cluster.local",
        "port": 9080,
        "timeout": "2s",
        "pathPrefix": "/check",
        "statusOnError": "503",
        "includeRequestHeadersInCheck": ["x-a", "x-b*"],
        "includeAdditionalHeadersInCheck": {"x-c": "d"},
        "headersToUpstreamOnAllow": ["x-user"],
        "includeRequestBodyInCheck": {"maxRequestBytes": 1024, "allowPartialMessage": True},
    },
}
CONFIG = MeshConfig(trust=Trust(providers=tuple(decode(ExtensionProvider, p) for p in (GRPC, HTTP))))


def chain_filters(text, protocol="http", config=CONFIG):
    """The kinds of the filters before the last one that hold something, for port 9080 of productpage."""
    found = judge.messages(mesh.view(mesh.objects(text, config, protocol=protocol)))
    chain = next(c for c in chains(found) if c.filter_chain_match.destination_port.value == 9080)
    if protocol == "tcp":
        return [f.name for f in chain.filters[:-1]]
    manager = hcm.HttpConnectionManager()
    chain.filters[-1].typed_config.Unpack(manager)
    slots = [found[names.ECDS][f.name] for f in manager.http_filters[:-1] if f.HasField("config_discovery")]
    held = [f.typed_config for s in slots for f in (judge.inside(s) or [s])]
    return [h.type_url.rpartition(".")[2] for h in held if h.value and h.value != unrestricted().value]


def unrestricted():
    """What the slot for DENY holds without policies."""
    return judge.messages(mesh.view(mesh.objects("")))[names.ECDS]["istio.authorization.deny"].typed_config


def chains(found):
    return found[names.LDS]["virtualInbound"].filter_chains


def policy(name, action, dry_run=False, provider="", rules=({},)):
    spec = {"action": action, "rules": list(rules), **({"provider": {"name": provider}} if provider else {})}
    ref = kinds.AUTHORIZATION_POLICY.ref("default", name)
    return o.Resource(ref, "file", "", "", decode(AuthorizationPolicy, spec), dry_run=dry_run)


def unpacked(filter_, kind):
    out = kind()
    filter_.typed_config.Unpack(out)
    return out
