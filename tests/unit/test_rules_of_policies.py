"""What validation says of policies, telemetry and extensions, each rule with a neighbour that is accepted."""

import json

from rules import check, table


def ap(action="ALLOW", rules=({},), **more):
    return {"action": action, "rules": list(rules), **more}


def source(action="ALLOW", **given):
    return ap(action, [{"from": [{"source": given}]}])


def operation(action="ALLOW", **given):
    return ap(action, [{"to": [{"operation": given}]}])


def when(key, *values, action="ALLOW", **more):
    return ap(action, [{"when": [{"key": key, "values": list(values), **more}]}])


CUSTOM = {"provider": {"name": "authz"}}


@table(
    ("nobody is let in", {}, None),
    ("everybody is", ap(), None),
    ("nobody is kept out", ap("DENY", []), "no DENY action without `rules` is meaningless"),
    ("nobody is asked about", ap("CUSTOM", [], **CUSTOM), "no CUSTOM action without `rules` is meaningless"),
    ("an authorizer is asked", ap("CUSTOM", **CUSTOM), None),
    ("which one", ap("CUSTOM"), "no `provider.name` must not be empty"),
    ("nobody is asked", ap("DENY", **CUSTOM), "no `provider` must not be with non CUSTOM action, found DENY"),
    ("from somewhere", ap(rules=[{"from": []}]), "no `from` must not be empty"),
    ("to something", ap(rules=[{"to": []}]), "no `to` must not be empty"),
    ("a source says something", source(), "no `from.source` must not be empty"),
    ("an operation does", operation(), "no `to.operation` must not be empty"),
    ("an empty list is not everything", operation(paths=["/"], methods=[]), "no methods must not be empty"),
    ("an empty text matches nothing", source(principals=[""]), "no empty value not allowed, found in Principals"),
    ("nor does it in paths", operation(notPaths=[""]), "no empty value not allowed, found in NotPaths"),
    ("an account", source(serviceAccounts=["a", "ns/a"]), None),
    ("has no wildcard", source(serviceAccounts=["ns/*"]), "no wildcard not allowed, found in ServiceAccounts"),
    ("has one namespace", source(notServiceAccounts=["a/b/c"]), "no expected format 'serviceAccount' or"),
    ("a written one", source(serviceAccounts=["/a"]), "no expected format 'serviceAccount' or"),
    ("there are few", source(serviceAccounts=["a"] * 17), "no may not have more than 16 values"),
    (
        "an account is an identity already",
        source(serviceAccounts=["a"], namespaces=["b"]),
        "no cannot set serviceAccounts",
    ),
    ("a trust domain", source(trustDomains=["td", "td-*", "*.test", "*"]), None),
    ("without a path", source(trustDomains=["td/ns"]), "no trust domain must not contain"),
    ("one wildcard", source(notTrustDomains=["a*b"]), "no wildcard is only allowed at the start or end"),
    ("an address or a range", source(ipBlocks=["10.0.0.1", "10.0.0.0/8", "::1/64"]), None),
    ("not a mask", source(remoteIpBlocks=["10.0.0.0/255.0.0.0"]), "no bad CIDR range"),
    ("not a name", source(notIpBlocks=["a.test"]), "no bad IP address"),
    ("a port", operation(ports=["0", "65535"]), None),
    ("is a number", operation(ports=["http"]), "no bad port (http)"),
    ("of digits", operation(notPorts=["٣"]), "no bad port"),
    ("namespaces have wildcards anywhere", source(namespaces=["a*b*"]), None),
    ("principals at an end", source(principals=["a*b"]), "warn is taken literally and matches nothing"),
    (
        "authorizers do not know identities",
        ap("CUSTOM", [{"from": [{"source": {"namespaces": ["a"]}}]}], **CUSTOM),
        "no From.Namespaces is currently not supported with CUSTOM",
    ),
    (
        "nor trust domains",
        ap("CUSTOM", [{"from": [{"source": {"trustDomains": ["a"]}}]}], **CUSTOM),
        "no From.TrustDomains is currently",
    ),
    ("but addresses", ap("CUSTOM", [{"from": [{"source": {"ipBlocks": ["10.0.0.1"]}}]}], **CUSTOM), None),
)
def test_authorization(spec, says):
    check("AuthorizationPolicy", spec, says)


@table(
    ("one segment", operation(paths=["/a/{*}/b"]), None),
    ("any rest", operation(paths=["/a/{**}"]), None),
    ("with text after it", operation(paths=["/a/{**}/b/"]), None),
    ("but nothing more that varies", operation(paths=["/{**}/{*}"]), "no {**} is not the last operator"),
    ("a template is a segment", operation(paths=["/a{*}"]), "no Contains '{' or '}' beyond a supported path template"),
    ("a name is no template", operation(paths=["/{id}"]), "no Contains '{' or '}' beyond a supported path template"),
    ("a wildcard beside it", operation(notPaths=["/{*}/a*"]), "no Contains segment a* with invalid string literal"),
    ("a space beside it", operation(paths=["/{*}/a b"]), "no Contains segment a b with invalid string literal"),
    ("a wildcard alone", operation(paths=["/a/*"]), None),
)
def test_paths(spec, says):
    check("AuthorizationPolicy", spec, says)


@table(
    ("a header", when("request.headers[x-a]", "b"), None),
    ("a header that is a list", when("request.experimental.inline.headers[x-a]", "b"), None),
    ("has a name", when("request.headers", "b"), "no bad key (request.headers): should have format a[b]"),
    ("a claim in a claim", when("request.auth.claims[a][b]", "c"), None),
    ("an address", when("source.ip", "10.0.0.0/8"), None),
    ("is an address", when("remote.ip", "a.test"), "no bad IP address (a.test)"),
    ("a port", when("destination.port", "80"), None),
    ("is a number", when("destination.port", "http"), "no bad port (http)"),
    ("an account", when("source.serviceAccount", "ns/*"), "no wildcard not allowed"),
    ("a trust domain", when("source.trustDomain", "a/b"), "no trust domain must not contain"),
    ("a filter's own", when("experimental.envoy.filters.network.mysql_proxy[db.table]", "[update]"), None),
    (
        "something",
        when("connection.sni"),
        "no at least one of `values` or `notValues` must be set for key connection.sni",
    ),
    ("not nothing", when("request.headers[a]", ""), "no empty value not allowed, found in request.headers[a]"),
    ("a key", when("", "a"), "no `key` must not be empty"),
    ("a known one", when("source.port", "a"), "no unknown attribute: source.port"),
    ("which labels are not", when("destination.labels[a]", "b"), "no is replaced by the workload selector"),
    ("nor namespaces", when("destination.namespace", "b"), "no is replaced by the metadata.namespace"),
    ("nor names", when("destination.user", "b"), "no deprecated attribute destination.user"),
    (
        "authorizers do not know tokens",
        ap("CUSTOM", [{"when": [{"key": "request.auth.claims[a]", "values": ["b"]}]}], **CUSTOM),
        "no request.auth.claims[a] is currently not supported with CUSTOM action",
    ),
)
def test_conditions(spec, says):
    check("AuthorizationPolicy", spec, says)


@table(
    (
        "methods are HTTP's",
        operation("DENY", methods=["GET"]),
        "warn will deny all traffic to TCP ports under its scope",
    ),
    ("on ports of HTTP", operation("DENY", methods=["GET"], ports=["80"]), None),
    ("a path has other spellings", operation("DENY", paths=["/a"], ports=["80"]), "warn /a/, /a;x, /a%20 and /A are"),
    ("an exempt one, too", operation(notPaths=["/a"]), "warn list /a* as well"),
    ("not if all are listed", operation("DENY", paths=["/a", "/a*"], ports=["80"]), None),
    ("nor if it is let in", operation(paths=["/a"]), None),
    ("a host has its ports", operation("DENY", hosts=["a.test"], ports=["80"]), None),
    ("principals are everybody's", source("DENY", principals=["td/ns/a/sa/b"]), None),
    ("tokens are HTTP's", source("DENY", requestPrincipals=["*"]), "warn will deny all traffic to TCP ports"),
    (
        "whoever does it",
        ap("DENY", [{"from": [{"source": {"principals": ["a"]}}], "to": [{"operation": {"methods": ["GET"]}}]}]),
        "warn will deny all traffic to TCP",
    ),
    ("letting in is no danger", operation("ALLOW", methods=["GET"]), None),
)
def test_denying_connections_with_requests_words(spec, says):
    check("AuthorizationPolicy", spec, says)


def test_an_audit_of_a_policy_is_for_allow_and_deny():
    check("AuthorizationPolicy", ap("DENY"), None, annotations={"istio.io/dry-run": "true"})
    check("AuthorizationPolicy", ap("DENY"), "no invalid value (yes)", annotations={"istio.io/dry-run": "yes"})
    custom = ap("CUSTOM", **CUSTOM)
    check("AuthorizationPolicy", custom, "no only supports action ALLOW/DENY", annotations={"istio.io/dry-run": "true"})


REF = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "a"}


@table(
    ("a gateway", {"targetRefs": [REF]}, None),
    ("or a selector", {"targetRefs": [REF], "selector": {"matchLabels": {"a": "b"}}}, "no only one of targetRefs or"),
    ("by name", {"targetRefs": [{**REF, "name": ""}]}, "no targetRef name must be set"),
    ("here", {"targetRefs": [{**REF, "namespace": "b"}]}, "no targetRef namespace must not be set"),
    ("of a kind that takes policies", {"targetRefs": [{**REF, "kind": "Pod"}]}, "no targetRef must be to one of"),
    ("a service of the core group", {"targetRefs": [{"group": "core", "kind": "Service", "name": "a"}]}, None),
    ("a class", {"targetRef": {**REF, "kind": "GatewayClass"}}, None),
    ("few of them", {"targetRefs": [REF] * 17}, "no must have at most 16 items"),
    ("labels", {"selector": {"matchLabels": {}}}, "warn workload selector specified without labels"),
    ("without wildcards", {"selector": {"matchLabels": {"*": "b"}}}, 'no wildcard is not supported in selector: "*=b"'),
    ("with keys", {"selector": {"matchLabels": {"": "b"}}}, 'no empty key is not supported in selector: "=b"'),
)
def test_what_a_policy_is_for(spec, says):
    for kind in ("AuthorizationPolicy", "RequestAuthentication", "Telemetry"):
        check(kind, spec, says)


def jwt(**rule):
    return {"jwtRules": [{"issuer": "https://a.test", **rule}]}


RSA = {"kty": "RSA", "n": "AQ", "e": "AQAB"}
EC = {
    "kty": "EC",
    "crv": "P-256",
    "x": "X3HkX2cwPF-A4Ah608gVcd6l5fMKaprh4FbMJlhy7ew",
    "y": "EVRWrv2URSiwkkgvmnwUd6SOAtTOfaEcWpoPpZ7NKNg",
}


@table(
    ("an issuer", jwt(), None),
    ("or where its keys are", {"jwtRules": [{"jwksUri": "https://a.test/keys"}]}, None),
    ("one of both", {"jwtRules": [{}]}, "no issuer or jwksUri must be non-empty string"),
    ("an address of keys", jwt(jwksUri="ftp://a.test"), 'no URI scheme "ftp" is not supported'),
    ("with a port", jwt(jwksUri="https://a.test:x"), "no is not a URL"),
    ("of a host", jwt(jwksUri="https:///keys"), "no names no host"),
    ("or the keys", jwt(jwksUri="https://a.test", jwks=json.dumps({"keys": [RSA]})), "no only one of jwks or jwksUri"),
    ("keys", jwt(jwks=json.dumps({"keys": [EC]})), None),
    ("that can be used", jwt(jwks=json.dumps({"keys": [RSA]})), "no key 0 has 1 bits, not between 1024 and 16384"),
    ("at least one", jwt(jwks=json.dumps({"keys": [EC, RSA]})), "warn key 1 has 1 bits, not between 1024 and 16384"),
    ("for signatures", jwt(jwks=json.dumps({"keys": [{**EC, "use": "enc"}]})), "no key 0 is not for signatures"),
    ("on their curve", jwt(jwks=json.dumps({"keys": [{**EC, "y": "AQ"}]})), "no key 0 is not a point of its curve"),
    ("for their algorithm", jwt(jwks=json.dumps({"keys": [{**EC, "alg": "RS256"}]})), "no key 0 has the algorithm"),
    ("keys that can be found", {"jwtRules": [{"issuer": "me@a.test"}]}, "warn the issuer is no URL"),
    ("elsewhere", jwt(jwksUri="http://169.254.169.254/keys"), "warn istiod does not fetch from 169.254.169.254"),
    ("whatever the spelling", jwt(jwksUri="http://[::ffff:a9fe:a9fe]/"), "warn it is link-local"),
    ("in a list", jwt(jwks="{}"), 'no jwks parse error: there is no list "keys"'),
    ("of a type", jwt(jwks=json.dumps({"keys": [{"kid": "a"}]})), "no key 0 has no known type"),
    ("with their numbers", jwt(jwks=json.dumps({"keys": [{"kty": "RSA", "n": "AQ"}]})), "no key 0 lacks e"),
    ("in JSON", jwt(jwks="[" * 100_000), "no jwks parse error"),
    ("an audience", jwt(audiences=[""]), "no audience must be non-empty string"),
    ("a header", jwt(fromHeaders=[{"name": ""}]), "no location header name must be non-empty string"),
    ("with a name that Envoy takes", jwt(fromHeaders=[{"name": "a b"}]), "no is not a valid header name"),
    ("and a prefix", jwt(fromHeaders=[{"name": "a", "prefix": "Token \n"}]), "no has control characters"),
    ("for the claims, too", jwt(outputPayloadToHeader="a b"), "no is not a valid header name"),
    ("a parameter", jwt(fromParams=[""]), "no location query must be non-empty string"),
    ("a cookie", jwt(fromCookies=[""]), "no cookie name must be non-empty string"),
    ("a claim for the application", jwt(outputClaimToHeaders=[{"header": "x-a", "claim": "a"}]), None),
    (
        "with a name",
        jwt(outputClaimToHeaders=[{"header": "x-a"}]),
        "no header and claim value must be non-empty string",
    ),
    ("of letters", jwt(outputClaimToHeaders=[{"header": "x a", "claim": "a"}]), "no not a valid header name"),
    ("a time", jwt(timeout="0s"), "no duration must be greater than 1ms"),
)
def test_request_authentication(spec, says):
    check("RequestAuthentication", spec, says)


SELECTED = {"selector": {"matchLabels": {"a": "b"}}}


@table(
    ("a port of some workloads", {**SELECTED, "portLevelMtls": {"80": {"mode": "DISABLE"}}}, None),
    ("not of all", {"portLevelMtls": {"80": {"mode": "DISABLE"}}}, "no cannot have port level mTLS"),
    ("a number", {**SELECTED, "portLevelMtls": {"http": {}}}, "no port must be in range 1..65535"),
    ("one at least", {**SELECTED, "portLevelMtls": {}}, "no if defined, must have at least one element"),
    ("all workloads", {"mtls": {"mode": "STRICT"}}, None),
)
def test_peer_authentication(spec, says):
    check("PeerAuthentication", spec, says)


def tag(**value):
    return {"tracing": [{"customTags": {"a": value}}]}


def override(**tags):
    return {"metrics": [{"overrides": [{"tagOverrides": tags}]}]}


def log(expression):
    return {"accessLogging": [{"filter": {"expression": expression}}]}


@table(
    ("a tag has a value", tag(literal={"value": "a"}), None),
    ("a text", tag(literal={"value": ""}), "no literal tag value may not be empty"),
    ("a header", tag(header={"name": ""}), "no header tag name may not be empty"),
    ("a variable", tag(environment={"name": ""}), "no environment tag name may not be empty"),
    ("or none", tag(), "warn tag without a value"),
    ("one of them", tag(literal={"value": "a"}, header={"name": "b"}), "no has literal and header"),
    ("a share", {"tracing": [{"randomSamplingPercentage": 101}]}, "no must be in range [0.0, 100.0]"),
    ("one tracing", {"tracing": [{}, {}]}, "warn multiple tracing is not currently supported"),
    ("one provider", {"tracing": [{"providers": [{"name": "a"}, {"name": "b"}]}]}, "warn multiple providers is not"),
    ("with a name", {"accessLogging": [{"providers": [{"name": ""}]}]}, "no providers.name may not be empty"),
    ("a label is changed", override(a={"value": "request.host"}), None),
    ("to something", override(a={"operation": "UPSERT"}), "no must be set when operation is UPSERT"),
    ("to the route's name", override(a={"value": "xds.route_name"}), None),
    ("which is under xds", override(a={"value": "route_name"}), "warn it is xds.route_name"),
    ("of Envoy's attributes", override(a={"value": "node.id"}), "warn node is not an attribute of Envoy"),
    ("to a sum", override(a={"value": "response.code + 1"}), None),
    ("not to joined texts", override(a={"value": "'a-' + request.method"}), "warn Envoy does not join texts with +"),
    ("of headers", override(a={"value": "request.headers['a'] + request.host"}), "warn Envoy does not join texts"),
    ("with a plus in a text", override(a={"value": "request.host == 'a+b' ? 'c' : 'd'"}), None),
    ("with a name of Prometheus", override(**{"1st": {"value": "request.host"}}), "no cannot begin with a digit"),
    ("with a name of its own", override(lateen_labels={"value": "request.host"}), "no pass their labels to the agent"),
    ("which is not its own", override(__name__={"value": "request.host"}), "no Prometheus' own"),
    ("nor becomes so", override(**{"--a": {"value": "request.host"}}), "no Prometheus' own"),
    ("nor a bucket's", override(le={"value": "request.host"}), "no limits of histograms"),
    ("unless it is removed", override(le={"operation": "REMOVE"}), None),
    ("other names are adapted", override(**{"a-b": {"value": "request.host"}}), "warn under the name a_b"),
    (
        "to one of their own",
        override(**{"a-b": {"value": "request.host"}, "a_b": {"value": "request.method"}}),
        "no this tag and a-b under the same name, a_b",
    ),
    ("or removed", override(a={"operation": "REMOVE", "value": "b"}), "no may only be set when operation is UPSERT"),
    (
        "a label has a name",
        {"metrics": [{"overrides": [{"tagOverrides": {"": {"value": "a"}}}]}]},
        "warn may not be empty",
    ),
    ("a metric has one", {"metrics": [{"overrides": [{"match": {"customMetric": ""}}]}]}, "no customMetric may not be"),
    ("an interval", {"metrics": [{"reportingInterval": "0s"}]}, "no duration must be greater than 1ms"),
    ("some requests", log("response.code >= 400 && 'a' in request.headers"), None),
    ("by Envoy's attributes", log("destination_service == 'a'"), "warn destination_service is not an attribute"),
    ("of a type", log("type(response.code) == int"), None),
    ("of a condition that is whole", log("response.code >="), "no must be a valid CEL expression"),
    ("in CEL", log("response.code >= 400 and true"), "no must be a valid CEL expression"),
)
def test_telemetry(spec, says):
    check("Telemetry", spec, says)


def wasm(**more):
    return {"url": "oci://a.test/b:1", **more}


@table(
    ("an image", wasm(), None),
    ("without a scheme", wasm(url="a.test:5000/b:1"), None),
    ("or a file", wasm(url="file:///b.wasm"), None),
    ("from somewhere", wasm(url=""), "no url field needs to be set"),
    ("not over FTP", wasm(url="ftp://a.test/b"), "no url contains unsupported scheme: ftp"),
    ("a port is a number", wasm(url="a:b"), "no failed to parse url"),
    ("a digest", wasm(sha256="a" * 64), None),
    ("of 64 characters", wasm(sha256="a"), "no sha256 field must be 64 characters long"),
    ("in hexadecimal", wasm(sha256="g" * 64), "no sha256 field must match [a-f0-9]{64} pattern"),
    ("a Secret's name", wasm(imagePullSecret="a" * 254), "no imagePullSecret field must be less than 253"),
    ("a plugin's name", wasm(pluginName="a" * 257), "no pluginName field must be less than 255"),
    ("a variable of any name", wasm(vmConfig={"env": [{"name": "a-b", "value": "c"}]}), None),
    ("a name", wasm(vmConfig={"env": [{"name": ""}]}), "no spec.vmConfig.env invalid"),
    ("once", wasm(vmConfig={"env": [{"name": "a"}, {"name": "a"}]}), "no duplicate env"),
    (
        "the machine's value",
        wasm(vmConfig={"env": [{"name": "a", "valueFrom": "HOST", "value": "b"}]}),
        "no only be set when valueFrom is INLINE",
    ),
    ("a port", wasm(match=[{"ports": [{"number": 0}]}]), "no spec.Match[0].Ports[0] is out of range: 0"),
    ("is a port", wasm(match=[{"ports": [None]}]), "no spec.Match[0].Ports[0] is nil"),
)
def test_wasm_plugins(spec, says):
    check("WasmPlugin", spec, says)
    if "match" not in spec:
        check("TrafficExtension", {"wasm": spec}, says)


def patch(apply_to="CLUSTER", operation="MERGE", value=(), **match):
    given = {"operation": operation} | ({} if value is None else {"value": dict(value)})
    return {"configPatches": [{"applyTo": apply_to, "match": match, "patch": given}]}


def waypoint(apply_to, **match):
    return patch(apply_to, context="WAYPOINT", waypoint=match)


HCM = "envoy.filters.network.http_connection_manager"


@table(
    ("a patch of a cluster", patch(), None),
    ("with a value", patch(value=None), "no missing patch value for non-remove operation"),
    ("removing needs none", patch(operation="REMOVE", value=None), None),
    ("a cluster is no listener", patch(listener={"name": "a"}), "no cannot have non cluster match"),
    ("a route is none", patch("HTTP_ROUTE", listener={"name": "a"}), "no cannot have non route configuration match"),
    (
        "a filter is no cluster",
        patch("HTTP_FILTER", value={"typed_config": {}}, cluster={"name": "a"}),
        "no non listener match",
    ),
    ("a version is an expression", patch(proxy={"proxyVersion": "("}), "no invalid regex for proxy version"),
    ("a socket has a type", patch(value={"transport_socket": {"name": "tls"}}), "warn without typed_config; tls"),
    ("in either spelling", patch(value={"transportSocket": {"typedConfig": {}}}), None),
    ("extensions are added", patch("EXTENSION_CONFIG", "MERGE"), "warn knows only ADD"),
    ("a listener's filter", patch("LISTENER", listener={"listenerFilter": "a"}), "warn it is for LISTENER_FILTER"),
    (
        "a waypoint is matched as one",
        patch(waypoint={"portNumber": 80}),
        "no only support waypointMatch when context is",
    ),
    ("a waypoint has no listeners", waypoint("LISTENER"), "no applyTo LISTENER is not supported for waypoint"),
    ("its filters have a place", waypoint("HTTP_FILTER"), "no must have filter match"),
    ("in HTTP", waypoint("HTTP_FILTER", filter={"name": "a"}), f"no requires name with {HCM}"),
    ("beside another", waypoint("HTTP_FILTER", filter={"name": HCM}), "no must have subFilter name to match on"),
    ("all of that", waypoint("HTTP_FILTER", filter={"name": HCM, "subFilter": {"name": "a"}}), None),
    ("a route is no filter", waypoint("HTTP_ROUTE", filter={"name": "a"}), "no cannot have filter match"),
    ("a cluster is no route", waypoint("CLUSTER", route={"name": "a"}), "no cannot have route match"),
)
def test_envoy_filters(spec, says):
    check("EnvoyFilter", spec, says)


@table(
    ("threads", {"concurrency": 2}, None),
    ("are counted", {"concurrency": -1}, "no concurrency must be greater than or equal to 0"),
    ("a variable is short", {"environmentVariables": {"A": "b" * 2049}}, "no may not be longer than 2048"),
)
def test_proxy_configs(spec, says):
    check("ProxyConfig", spec, says)
