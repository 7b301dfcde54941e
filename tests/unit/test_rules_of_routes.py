"""What validation says of VirtualServices, each rule with a neighbour that is accepted."""

from rules import check, table

TO = [{"destination": {"host": "reviews"}}]


def vs(hosts=("reviews",), gateways=(), **rules):
    return {"hosts": list(hosts), "gateways": list(gateways), **(rules or {"http": [{"route": TO}]})}


def http(**route):
    return vs(http=[{"route": TO, **route}])


def match(bound=(), **match):
    return vs(gateways=bound, http=[{"route": TO, "match": [match]}])


def alone(**route):
    return vs(http=[route])


def sni(name, hosts, gateways=()):
    return vs(hosts, gateways, tls=[{"match": [{"sniHosts": [name]}], "route": TO}])


LONG = "a" * 64


@table(
    ("a short name is a service of the own namespace", vs(["reviews"]), None),
    ("a full name is taken", vs(["reviews.shop.svc.cluster.local"]), None),
    ("a name may end with a dot", vs(["reviews.shop.svc.cluster.local."]), None),
    ("a wildcard is taken", vs(["*.test"]), None),
    ("an address is taken", vs(["10.0.0.1"]), None),
    ("a single label may be a number", vs(["123"]), None),
    ("a name whose last label is a number is nobody's", vs(["a.123"]), "no cannot be all-numeric"),
    ("a wildcard in the middle matches nothing", vs(["a.*.test"]), 'no (label "*" invalid)'),
    ("a label has 63 characters at most", vs([f"{LONG}.test"]), "no invalid (label"),
    ("a first label has 63 characters at most", vs([LONG]), "no invalid (label"),
    ("a name has 255 characters at most", vs([".".join(["a" * 60] * 5)]), "no too long (max 255)"),
    ("an underscore is for no host", vs(["a_b.test"]), "no invalid (label"),
    ("all hosts of the mesh cannot be one rule's", vs(["*"]), "no wildcard host * is not allowed"),
    ("nor beside gateways", vs(["*"], ["gw", "mesh"]), "no wildcard host * is not allowed"),
    ("all hosts of a gateway can", vs(["*"], ["gw"]), None),
    ("a host is written once", vs(["a.test", "a.test"]), "no duplicate hosts in virtual service: a.test & a.test"),
    ("a wildcard has the host already", vs(["*.test", "a.test"]), "no duplicate hosts"),
    ("a wider wildcard has the wildcard already", vs(["*.a.test", "*.test"]), "no duplicate hosts"),
    ("* has every host already", vs(["a.test", "*"], ["gw"]), "no duplicate hosts"),
    ("different hosts are different", vs(["a.test", "*.b.test"]), None),
)
def test_hosts(spec, says):
    check("VirtualService", spec, says)


@table(
    ("a name is of the own namespace", vs(gateways=["gw"]), None),
    ("or of another one", vs(gateways=["ns/gw", "mesh"]), None),
    (
        "the old spelling still works",
        vs(gateways=["gw.ns.svc.cluster.local"]),
        'warn prefer the <namespace>/<name> format: "ns/gw"',
    ),
    ("every one is looked at", vs(gateways=["gw", "n s/gw"]), 'no invalid value for namespace: "n s"'),
    ("a Gateway's name has no dot", vs(gateways=["ns/a.b"]), 'no invalid value for gateway name: "a.b"'),
    ("there is one slash", vs(gateways=["ns/a/b"]), "no invalid value for gateway name"),
    ("both parts are written", vs(gateways=["/gw"]), "no cannot be empty"),
    ("matches name gateways in the same way", match(["gw"], gateways=["a/b/c"]), "no invalid value for gateway name"),
)
def test_gateways(spec, says):
    check("VirtualService", spec, says)


@table(
    ("a delegate has HTTP routes only", {"http": [{"route": TO}]}, None),
    ("a delegate's root says the gateways", {"gateways": ["gw"], "http": [{"route": TO}]}, "no must have no gateways"),
    ("there are no delegates for TCP", {"tcp": [{"route": TO}]}, "no must have no tcp route"),
    ("there is one level", {"http": [{"route": TO, "delegate": {"name": "a"}}]}, "no cannot contain delegate"),
    ("a delegate may match on the root's gateways", {"http": [{"route": TO, "match": [{"gateways": ["gw"]}]}]}, None),
    ("a root only names its delegate", alone(delegate={"name": "a"}), None),
    ("a root sends nothing itself", alone(name="r", delegate={"name": "a"}, route=TO), "no root HTTP route r must not"),
    ("a root does not redirect", alone(delegate={"name": "a"}, redirect={"uri": "/"}), "no must not specify redirect"),
    ("a root's answer has no effect", alone(delegate={"name": "a"}, directResponse={"status": 200}), "warn no effect"),
    ("a delegate has a name", alone(delegate={}), "no must be specified"),
)
def test_delegates(spec, says):
    check("VirtualService", spec, says)


@table(
    ("a pseudo header can be matched", match(headers={":authority": {"exact": "a"}}), None),
    ("a header's name is a token", match(headers={"funky!$#_": {"exact": "a"}}), None),
    ("a space is in no header's name", match(headers={"a b": {"exact": "a"}}), "no not a valid header name"),
    ("there is no such pseudo header", match(headers={":port": {"exact": "a"}}), "no not a valid header name"),
    ("a header has a name", match(headers={"": {"exact": "a"}}), "no header name cannot be empty"),
    ("a header can be asked for", match(headers={"a": {}}), None),
    ("* is no regular expression", match(headers={"a": {"regex": "*"}}), "no regex-based match"),
    ("but asks for presence in withoutHeaders", match(withoutHeaders={"a": {"regex": "*"}}), None),
    ("an empty prefix of a header matches nothing", match(headers={"a": {"prefix": ""}}), "no prefix string match"),
    ("an empty prefix of a path is all paths", match(uri={"prefix": ""}), None),
    ("an empty prefix of a method is a mistake", match(method={"prefix": ""}), "no prefix string match"),
    ("an empty prefix of a parameter is a mistake", match(queryParams={"a": {"prefix": ""}}), "no prefix string match"),
    ("an empty expression is a mistake", match(uri={"regex": ""}), "no regex string match should not be empty"),
    ("an expression is RE2's", match(uri={"regex": "(?=a)"}), "no RE2 style"),
    (
        "what is wrong with it is said in words",
        match(uri={"regex": "["}),
        'no "[": error parsing regexp: missing closing ]: `[`; Istio uses',
    ),
    ("an expression has 1024 characters at most", match(uri={"regex": "a" * 1025}), "no regex is too large"),
    ("a namespace is a label", match(sourceNamespace="a.b"), "no sourceNamespace match a.b is invalid"),
    ("port 0 is any port", match(port=0), None),
    ("a port has a limit", match(port=65536), "no port number 65536"),
    ("labels are Kubernetes'", match(sourceLabels={"a b": "c"}), "no invalid tag key"),
    ("a gateway knows tokens", match(["gw"], headers={"@request.auth.claims.a": {"exact": "b"}}), None),
    ("a sidecar does not", match(headers={"@request.auth.claims[a][b]": {"exact": "b"}}), "no JWT claim based routing"),
    (
        "claims have names",
        match(headers={"@request.auth.claims.a.": {"exact": "b"}}),
        "no has an empty name of a claim",
    ),
    ("in whatever case", match(headers={"@Request.auth.claims.a": {"exact": "b"}}), "no JWT claim based routing"),
)
def test_matches(spec, says):
    check("VirtualService", spec, says)


@table(
    ("something happens to requests", alone(), "no HTTP route, redirect or direct_response is required"),
    ("only one thing does", http(redirect={"uri": "/"}), "no cannot contain both route and redirect"),
    ("or the other", http(directResponse={"status": 200}), "no cannot contain both route and direct_response"),
    (
        "not both answers",
        alone(redirect={"uri": "/"}, directResponse={"status": 200}),
        "no HTTP route rule cannot contain both direct_response and redirect",
    ),
    ("a redirect is not rewritten", alone(redirect={"uri": "/"}, rewrite={"uri": "/"}), "no both rewrite and redirect"),
    ("nor aborted", alone(redirect={"uri": "/"}, fault={"abort": {"httpStatus": 500}}), "no both fault and redirect"),
    ("a redirect leads somewhere", alone(redirect={}), "no redirect must specify URI, authority, scheme, or port"),
    ("port 0 leaves the port", alone(redirect={"port": 0}), None),
    ("a redirect's port has a limit", alone(redirect={"port": 70000}), "no port number"),
    ("a redirect says 3xx", alone(redirect={"uri": "/", "redirectCode": 400}), "no is not a valid redirect code"),
    ("Envoy does not say 304", alone(redirect={"uri": "/", "redirectCode": 304}), "warn 301 instead of 304"),
    ("a redirect is to HTTP", alone(redirect={"scheme": "ftp"}), "no invalid redirect scheme"),
    ("a status is Envoy's", alone(directResponse={"status": 600}), "no not in range 200-599"),
    ("a body is small", alone(directResponse={"status": 200, "body": {"string": "a" * 10}}), None),
    ("a large one costs", alone(directResponse={"status": 200, "body": {"string": "a" * 200_000}}), "warn may impact"),
    (
        "a very large one too much",
        alone(directResponse={"status": 200, "body": {"string": "a" * 1_100_000}}),
        "no must be less than 1MB",
    ),
    ("bytes are Base64", alone(directResponse={"status": 200, "body": {"bytes": "aGk="}}), None),
    ("and nothing else", alone(directResponse={"status": 200, "body": {"bytes": "!"}}), "no it is not Base64"),
    ("a rewrite changes something", http(rewrite={}), "no rewrite must specify at least one of URI"),
    (
        "the path once",
        http(rewrite={"uri": "/", "uriRegexRewrite": {"match": "a", "rewrite": "b"}}),
        "no may only contain one of URI or UriRegexRewrite",
    ),
    ("an expression has a replacement", http(rewrite={"uriRegexRewrite": {"match": "a"}}), "no requires both Rewrite"),
)
def test_what_happens_to_requests(spec, says):
    check("VirtualService", spec, says)


def headers(**request):
    return http(headers={"request": request})


def of_destination(**more):
    return vs(
        http=[{"route": [{"destination": {"host": "a"}, "headers": {"request": {"set": {"host": "a"}}}}], **more}]
    )


@table(
    ("text is taken", headers(set={"a": "b"}), None),
    ("Envoy knows the operator", headers(set={"a": "%REQ(x)%-%HOSTNAME%"}), None),
    ("Envoy does not, and would refuse the route", headers(set={"a": "%FOO%"}), "no Envoy has no operator %FOO%"),
    ("an operator that needs a name has one", headers(set={"a": "%REQ%"}), "no needs an argument"),
    ("state of a request is for headers", headers(set={"a": "%PER_REQUEST_STATE(x)%"}), None),
    ("a percent sign is doubled", headers(set={"a": "100%%"}), None),
    ("or begins an operator", headers(set={"a": "100%"}), "no is not an operator"),
    ("a line ends the header", headers(set={"a": "b\nc: d"}), "no it has control characters"),
    ("the authority can be set", headers(set={":authority": "a"}), None),
    ("but not removed", headers(remove=["Host"]), "no cannot set Host header"),
    (
        "a response has none",
        http(headers={"response": {"set": {":authority": "a"}}}),
        'no header cannot have ":" prefix',
    ),
    ("a pseudo header is the proxy's", headers(set={":path": "/"}), 'no header cannot have ":" prefix'),
    ("a header has a name", headers(add={"": "a"}), "no header name cannot be empty"),
    (
        "the authority is set once",
        http(rewrite={"authority": "a"}, headers={"request": {"set": {"host": "b"}}}),
        "no authority header cannot be set multiple times",
    ),
    (
        "adding is setting",
        headers(set={"host": "b"}, add={":authority": "c"}),
        "no authority header cannot be set multiple times",
    ),
    ("a destination's authority is stronger than its route's", of_destination(rewrite={"authority": "b"}), None),
)
def test_headers(spec, says):
    check("VirtualService", spec, says)


@table(
    ("a time is taken", http(timeout="2.5s"), None),
    ("no time at all is left out", http(timeout="0s"), "no duration must be greater than 1ms"),
    ("a millisecond is the least", http(timeout="1500us"), "no only durations to ms precision"),
    ("names of Envoy's and codes are taken", http(retries={"attempts": 1, "retryOn": "5xx,503"}), None),
    ("spaces are part of a name", http(retries={"attempts": 1, "retryOn": "5xx, reset"}), 'no " reset" is not a valid'),
    ("there is no such code", http(retries={"attempts": 1, "retryOn": "599"}), "no is not a valid retryOn policy"),
    ("an empty name is none", http(retries={"attempts": 1, "retryOn": "5xx,"}), 'no "" is not a valid retryOn'),
    ("no attempts is no retries", http(retries={"attempts": 0}), None),
    ("and has no settings", http(retries={"attempts": 0, "retryOn": "5xx"}), "no attempts are set to 0"),
    ("attempts are counted", http(retries={"attempts": -1}), "no attempts cannot be negative"),
    ("a try takes time", http(retries={"attempts": 1, "perTryTimeout": "0s"}), "no duration must be greater than 1ms"),
    ("a share is a percentage", http(mirror={"host": "a"}, mirrorPercentage={"value": 0.00001}), None),
    ("of a hundred", http(mirror={"host": "a"}, mirrorPercentage={"value": 101}), "no max value of 100"),
    (
        "mirrors have it too",
        http(mirrors=[{"destination": {"host": "a"}, "percentage": {"value": -1}}]),
        "no min value",
    ),
    ("the old name works", http(mirror={"host": "a"}, mirrorPercent=5), 'warn deprecated setting "mirrorPercent"'),
    ("one list of mirrors", http(mirror={"host": "a"}, mirrors=[{"destination": {"host": "b"}}]), "no both mirror and"),
    ("a mirror is somewhere", http(mirrors=[{"percentage": {"value": 1}}]), "no destination is required for mirrors"),
    ("a delay takes time", http(fault={"delay": {"fixedDelay": "0s"}}), "no duration must be greater than 1ms"),
    ("a delay without a time", http(fault={"delay": {"percentage": {"value": 1}}}), "warn fixedDelay not set"),
    ("an abort without a status", http(fault={"abort": {"percentage": {"value": 1}}}), "warn error type not set"),
    ("a fault does something", http(fault={}), "no must have an abort and/or a delay"),
    ("a status is HTTP's", http(fault={"abort": {"httpStatus": 600}}), "no not in range 200-599"),
    ("or gRPC's", http(fault={"abort": {"grpcStatus": "NOPE"}}), 'no gRPC status "NOPE" is not supported'),
    (
        "a very small share",
        http(fault={"abort": {"httpStatus": 500, "percentage": {"value": 0.00001}}}),
        "no neither 0.0",
    ),
)
def test_settings_of_a_route(spec, says):
    check("VirtualService", spec, says)


def cors(**policy):
    return http(corsPolicy=policy)


@table(
    ("an origin is taken", cors(allowOrigins=[{"exact": "https://a.test"}], maxAge="24h"), None),
    (
        "an origin is something",
        cors(allowOrigins=[{"exact": ""}]),
        "no is not a valid match type for CORS allow origins",
    ),
    ("an expression is checked", cors(allowOrigins=[{"regex": "*"}]), "no RE2 style"),
    ("a method is HTTP's", cors(allowMethods=["FETCH"]), 'no "FETCH" is not a supported HTTP method'),
    ("all methods are", cors(allowMethods=["*"]), None),
    ("a header is a token", cors(allowHeaders=["x.y~z"]), None),
    ("a space is in none", cors(exposeHeaders=["x y"]), "no not a valid header name"),
    ("ages are seconds", cors(maxAge="1500ms"), "no accurate only to seconds"),
    ("an age is a time", cors(maxAge="0s"), "no duration must be greater than 1ms"),
)
def test_cors(spec, says):
    check("VirtualService", spec, says)


def weights(*given):
    return vs(http=[{"route": [{"destination": {"host": "a"}, "weight": w} for w in given]}])


@table(
    ("shares add up to anything", weights(1, 2), None),
    ("but not to nothing", weights(0, 0), "no total destination weight = 0"),
    ("a share is not negative", weights(-1, 2), "no weight -1 < 0"),
    ("a share is signed, as in Istio", weights(1, 2**31), "no is larger than 2147483647"),
    ("a single destination gets everything", weights(0), "warn gets all requests"),
    ("a destination has a host", vs(http=[{"route": [{}]}]), "no destination is required"),
    ("of one service", vs(http=[{"route": [{"destination": {"host": "*"}}]}]), "no invalid destination host *"),
    (
        "a subset has a name",
        vs(http=[{"route": [{"destination": {"host": "a", "subset": "v 1"}}]}]),
        "no subset name is",
    ),
    (
        "a port is given by number",
        vs(http=[{"route": [{"destination": {"host": "a", "port": {}}}]}]),
        "no port number 0",
    ),
)
def test_destinations(spec, says):
    check("VirtualService", spec, says)


@table(
    ("a name of the hosts is taken", sni("a.test", ["*.test"]), None),
    ("a wildcard of them", sni("*.a.test", ["*.test"]), None),
    (
        "a wider one is not",
        sni("*.test", ["a.test"]),
        "no is not a compatible subset of any of the virtual service hosts",
    ),
    ("another one is not", sni("b.test", ["a.test"]), "no hosts: [a.test]"),
    ("TLS has no addresses", sni("10.0.0.1", ["a.test"]), "warn goes against SNI spec"),
    (
        "a gateway of the mesh is asked for clusters",
        sni("outbound_.80_._.a.test", ["outbound_.80_._.a.test"], ["gw"]),
        None,
    ),
    ("in this form", sni("outbound_80.a.test", ["*.test"], ["gw"]), "no outbound_.<PORT>_._.<HOSTNAME>"),
    ("sidecars are not", sni("a.test", ["outbound_.80_._.a.test", "a.test"]), "no invalid (label"),
    ("TLS is matched by name", vs(tls=[{"match": [], "route": TO}]), "no must have at least one match condition"),
    ("by one at least", vs(tls=[{"match": [{"sniHosts": []}], "route": TO}]), "no at least one SNI host"),
    ("TLS leads somewhere", vs(tls=[{"match": [{"sniHosts": ["reviews"]}]}]), "no TLS route is required"),
    ("so does TCP", vs(tcp=[{}]), "no TCP route is required"),
    ("a range has a length", vs(tcp=[{"match": [{"destinationSubnets": ["10.0.0.0/8"]}], "route": TO}]), None),
    (
        "not a mask",
        vs(tcp=[{"match": [{"destinationSubnets": ["10.0.0.0/255.0.0.0"]}], "route": TO}]),
        "no is not a valid CIDR block",
    ),
)
def test_tls_and_tcp(spec, says):
    check("VirtualService", spec, says)


@table(
    (
        "a rule after one for everything",
        vs(http=[{"route": TO}, {"route": TO, "match": [{"port": 1}]}]),
        "warn route without matches defined before",
    ),
    (
        "two rules for everything",
        vs(http=[{"route": TO}, {"route": TO}]),
        "warn only the last rule can have no matches",
    ),
    ("a match twice", vs(http=[{"route": TO, "match": [{"port": 1}]}] * 2), "warn all matches used by prior rules"),
    ("the rule for everything is the last", vs(http=[{"route": TO, "match": [{"port": 1}]}, {"route": TO}]), None),
)
def test_rules_that_no_request_reaches(spec, says):
    check("VirtualService", spec, says)


TO = {"route": [{"destination": {"host": "a"}}]}


def rules(*matches):
    """A VirtualService with a rule for each list of matches."""
    found = [{**({"match": m} if m else {}), **TO} for m in matches]
    return {"hosts": ["a"], "http": found}


def prefix(text, **more):
    return {"uri": {"prefix": text}, **more}


@table(
    ("what is different is reached", rules([prefix("/a")], [prefix("/b")], []), None),
    ("nothing is left after everything", rules([], [prefix("/a")]), "warn #1 not used (route without matches defined"),
    ("nor for a second rest", rules([], []), "warn #1 not used (only the last rule can have no matches)"),
    ("the same again", rules([prefix("/a")], [prefix("/a")]), "warn #1 not used (all matches used by prior rules)"),
    (
        "one of two",
        rules([prefix("/a")], [prefix("/a"), prefix("/b")]),
        "warn rule #1 match #0 is not used (duplicate/overlapping match in rule #0)",
    ),
    ("twice in a rule", rules([prefix("/a"), prefix("/a")]), "warn rule #0 match #1 is not used"),
    (
        "a longer prefix comes too late",
        rules([prefix("/a", name="short")], [prefix("/a/b")]),
        'warn match #0 of prefix /a/b is not used (duplicate/overlapping match in rule "short" of prefix /a on #0)',
    ),
    ("and in time before", rules([prefix("/a/b")], [prefix("/a")]), None),
    ("a header makes it another", rules([prefix("/a", headers={"x": {"exact": "1"}})], [prefix("/a/b")]), None),
    ("so does a port", rules([prefix("/a", port=80)], [prefix("/a/b")]), None),
    (
        "no method means GET here",
        rules([prefix("/a", method={"exact": "GET"})], [prefix("/a/b")]),
        "warn of prefix /a/b",
    ),
    ("another method is another", rules([prefix("/a")], [prefix("/a/b", method={"exact": "PUT"})]), None),
    ("a path is no prefix", rules([prefix("/a")], [{"uri": {"exact": "/a/b"}}]), None),
)
def test_rules_that_nothing_reaches(spec, says):
    check("VirtualService", spec, says)
