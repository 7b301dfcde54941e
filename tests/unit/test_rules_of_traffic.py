"""What validation says of DestinationRules and Gateways, each rule with a neighbour that is accepted."""

from rules import check, table


def dr(**policy):
    return {"host": "reviews", "trafficPolicy": policy}


def lb(**balancer):
    return dr(loadBalancer=balancer)


def hashed(**more):
    return lb(consistentHash={"useSourceIp": True, **more})


def tls(**settings):
    return dr(tls=settings)


def port(**settings):
    return dr(portLevelSettings=[{"port": {"number": 80}, **settings}])


POOL = {"tcp": {"maxConnections": 1}}


@table(
    ("a policy says something", {"host": "a", "trafficPolicy": {}}, "no traffic policy must have at least one field"),
    ("so does one of a port", port(), "no port traffic policy must have at least one field"),
    ("a port's policy is taken", port(connectionPool=POOL), None),
    ("a port is named", dr(portLevelSettings=[{"connectionPool": POOL}]), "no must have valid port"),
    ("port 0 is no port", dr(portLevelSettings=[{"port": {}, "connectionPool": POOL}]), "warn of no port"),
    ("a pool says something", dr(connectionPool={}), "no connection pool must have at least one field"),
    (
        "a count of connections is signed",
        dr(connectionPool={"tcp": {"maxConnections": 2**31}}),
        "no is larger than 2147483647",
    ),
    (
        "one of errors is not",
        dr(outlierDetection={"consecutive5xxErrors": 2**32}),
        "no is larger than 4294967295",
    ),
    ("an unsigned count", dr(outlierDetection={"consecutive5xxErrors": 2**32 - 1}), None),
    ("a count is not negative", dr(connectionPool={"http": {"maxRetries": -1}}), "no maxRetries must be non-negative"),
    ("connections may be idle for ever", dr(connectionPool={"tcp": {"idleTimeout": "0s"}}), None),
    ("requests may not", dr(connectionPool={"http": {"idleTimeout": "0s"}}), "no duration must be greater than 1ms"),
    (
        "HTTP/2 for all, or the client's choice",
        dr(connectionPool={"http": {"h2UpgradePolicy": "UPGRADE", "useClientProtocol": True}}),
        "no use client protocol must not be true when H2UpgradePolicy is UPGRADE",
    ),
    ("a share of hosts", dr(outlierDetection={"maxEjectionPercent": 101}), "no percentage 101 is not in range 0..100"),
    ("the old counter", dr(outlierDetection={"consecutiveErrors": 1}), "warn consecutive errors is deprecated"),
    (
        "errors of our own side are counted apart",
        dr(outlierDetection={"consecutiveLocalOriginFailures": 1}),
        "no split external local origin errors is set to false",
    ),
    ("a tunnel leads somewhere", dr(tunnel={"targetHost": "", "targetPort": 1}), "no tunnel target host must be valid"),
    ("to an address, too", dr(tunnel={"targetHost": "10.0.0.1", "targetPort": 1}), None),
    ("to a port", dr(tunnel={"targetHost": "a.test", "targetPort": 0}), "no tunnel target port is invalid"),
    ("a budget is a share", dr(retryBudget={"percent": 101}), "no percentage 101"),
)
def test_settings_of_a_traffic_policy(spec, says):
    check("DestinationRule", spec, says)


@table(
    ("a key is taken", hashed(), None),
    ("without a key nothing is hashed", lb(consistentHash={}), "warn requests are spread at random"),
    ("one key", hashed(httpHeaderName="a"), "no give only one key"),
    ("a cookie has a name", lb(consistentHash={"httpCookie": {"name": ""}}), "no name required for HttpCookie"),
    (
        "an attribute is written once",
        lb(consistentHash={"httpCookie": {"name": "a", "attributes": [{"name": "b"}, {"name": "b"}]}}),
        "no duplicate cookie attribute name: b",
    ),
    ("a table has a size", hashed(maglev={}), "no tableSize must be set for maglev"),
    ("a prime number", hashed(maglev={"tableSize": 65537}), None),
    ("and no other", hashed(maglev={"tableSize": 65536}), "no must be a prime number"),
    ("below a limit", hashed(maglev={"tableSize": 5000011}), "no must be less than 5000011"),
    ("the old ring", hashed(minimumRingSize=1), "warn consistent hash MinimumRingSize is deprecated"),
    ("one size", hashed(minimumRingSize=1, maglev={"tableSize": 65537}), "no only one of MinimumRingSize or"),
    ("one table", hashed(ringHash={"minimumRingSize": 1}, maglev={"tableSize": 65537}), "no ringHash and maglev"),
    ("a ring has a limit", hashed(ringHash={"minimumRingSize": 2**24}), "no Envoy's rings have at most"),
    ("one way to choose", lb(simple="RANDOM", consistentHash={"useSourceIp": True}), "no simple and consistentHash"),
    ("warming up takes time", lb(warmup={}), "no duration"),
    ("it does not stand still", lb(warmup={"duration": "1s", "aggression": 0}), "no should be greater than 0"),
    ("it may begin fast", lb(warmup={"duration": "1s", "aggression": 0.5}), None),
    ("one spelling of it", lb(warmup={"duration": "1s"}, warmupDurationSecs="1s"), "no only one of warmupDurationSecs"),
    (
        "one way to prefer what is near",
        lb(localityLbSetting={}, zoneAwareLbSetting={}),
        "no only one of localityLbSetting and zoneAwareLbSetting",
    ),
    (
        "zones are weighed by themselves",
        lb(zoneAwareLbSetting={"failoverPriority": ["topology.kubernetes.io/zone"]}),
        "no must not use topology label",
    ),
    (
        "from one region to another",
        lb(zoneAwareLbSetting={"failover": [{"from": "a", "to": "a"}]}),
        "no zone aware lb failover settings must specify different regions",
    ),
    (
        "it begins with a share",
        lb(warmup={"duration": "1s", "minimumPercent": 101}),
        "no should be less than or equal to 100",
    ),
    (
        "nor with less than nothing",
        lb(warmup={"duration": "1s", "minimumPercent": -5}),
        "no should be greater than or equal to 0",
    ),
)
def test_how_endpoints_are_chosen(spec, says):
    check("DestinationRule", spec, says)


def local(**setting):
    return dr(loadBalancer={"localityLbSetting": setting}, outlierDetection={"consecutive5xxErrors": 1})


ELSEWHERE = {"to": {"b/*": 100}}


@table(
    ("shares add up to 100", local(distribute=[{"from": "a/*", "to": {"b/*": 80, "a/*": 20}}]), None),
    ("exactly", local(distribute=[{"from": "a/*", "to": {"b/*": 80}}]), "no total locality weight 80 != 100"),
    ("none is 0", local(distribute=[{"from": "a/*", "to": {"b/*": 100, "c/*": 0}}]), "no must be in range [1, 100]"),
    ("a place is complete", local(distribute=[{"from": "a//c", **ELSEWHERE}]), "no must not contain empty region"),
    ("a wildcard is the end", local(distribute=[{"from": "*/b", **ELSEWHERE}]), "no must be in the end"),
    (
        "a place is told once",
        local(distribute=[{"from": "a/*", **ELSEWHERE}, {"from": "a/b", **ELSEWHERE}]),
        "no locality a/b overlap with previous specified ones",
    ),
    ("the rest comes last", local(distribute=[{"from": "a/b", **ELSEWHERE}, {"from": "*", **ELSEWHERE}]), None),
    (
        "shares, or another region",
        local(distribute=[{"from": "a", **ELSEWHERE}], failover=[{"from": "a", "to": "b"}]),
        "no can not simultaneously specify 'distribute' and 'failover'",
    ),
    (
        "labels say less than shares",
        local(distribute=[{"from": "a", **ELSEWHERE}], failoverPriority=["version"]),
        "warn no effect beside distribute",
    ),
    (
        "a label that is the region says it twice",
        local(failover=[{"from": "a", "to": "b"}], failoverPriority=["topology.kubernetes.io/region"]),
        "no can not simultaneously set 'failover' and topology label",
    ),
    ("other labels may", local(failover=[{"from": "a", "to": "b"}], failoverPriority=["version"]), None),
    ("another region", local(failover=[{"from": "a", "to": "a"}]), "no must specify different regions"),
    ("a region is no zone", local(failover=[{"from": "a/b", "to": "c"}]), "no failover only specify region"),
    ("nor a wildcard", local(failover=[{"from": "*", "to": "c"}]), "no should not contain '*' wildcard"),
    (
        "who is ejected is known by outlier detection",
        lb(localityLbSetting={"failoverPriority": ["version"]}),
        "warn outlier detection policy must be provided for failover",
    ),
)
def test_localities(spec, says):
    check("DestinationRule", spec, says)


@table(
    ("a CA in a Secret", tls(mode="SIMPLE", credentialName="a"), None),
    (
        "or in files, not both",
        tls(mode="SIMPLE", credentialName="a", caCertificates="/b"),
        "no If credentialName is set",
    ),
    (
        "a client has a certificate",
        tls(mode="MUTUAL", privateKey="/k"),
        "no client certificate required for mutual tls",
    ),
    ("and a key", tls(mode="MUTUAL", clientCertificate="/c"), "no private key required for mutual tls"),
    ("nothing is verified", tls(mode="SIMPLE", insecureSkipVerify=True), None),
    (
        "so no names are",
        tls(mode="SIMPLE", insecureSkipVerify=True, subjectAltNames=["a"]),
        "no SubjectAltNames when InsecureSkipVerify is set true",
    ),
    (
        "and no CA is",
        tls(mode="MUTUAL", insecureSkipVerify=True, caCertificates="/c", clientCertificate="/c", privateKey="/k"),
        "no cannot specify CaCertificates or SubjectAltNames",
    ),
    ("the mesh has its own certificates", tls(mode="ISTIO_MUTUAL", privateKey="/k"), "warn does not use privateKey"),
    ("a server's name is for any mode", tls(mode="ISTIO_MUTUAL", sni="a.test"), None),
    (
        "a ConfigMap of another namespace",
        tls(mode="SIMPLE", credentialName="configmap://a/b"),
        "no namespace must match",
    ),
    (
        "a ConfigMap with a CA",
        tls(mode="SIMPLE", credentialName="configmap://shop/b"),
        None,
    ),
)
def test_tls_of_clients(spec, says):
    check("DestinationRule", spec, says)


@table(
    ("subsets have names", {"host": "a", "subsets": [{"name": "v1"}]}, None),
    ("all of them", {"host": "a", "subsets": [{"name": ""}]}, "no subset name cannot be empty"),
    ("made of letters", {"host": "a", "subsets": [{"name": "v 1"}]}, "no subset name is invalid"),
    (
        "everybody's or somebody's",
        {"host": "a", "exportTo": ["*", "b"]},
        "no cannot have both public (*) and non-public",
    ),
    (
        "each once",
        {"host": "a", "exportTo": [".", "shop"]},
        "no duplicate entries in exportTo: . and current namespace",
    ),
    ("a namespace is a label", {"host": "a", "exportTo": ["b.c"]}, "no valid DNS 1123 label is allowed as exportTo"),
    ("not nobody's", {"host": "a", "exportTo": ["~"]}, "no exportTo ~ (none) is not allowed"),
    (
        "a rule of some workloads stays where they are",
        {"host": "a", "exportTo": ["b"], "workloadSelector": {"matchLabels": {"a": "b"}}},
        "no cannot have exportTo beyond current namespace",
    ),
    (
        "and says so once",
        {"host": "a", "exportTo": [".", "b"], "workloadSelector": {"matchLabels": {"a": "b"}}},
        "no cannot have multiple entries in exportTo",
    ),
    (
        "a selector has no wildcards",
        {"host": "a", "workloadSelector": {"matchLabels": {"a": "b*"}}},
        'no wildcard is not supported in selector: "a=b*"',
    ),
    (
        "no labels, all workloads",
        {"host": "a", "workloadSelector": {}},
        "warn workload selector specified without labels",
    ),
)
def test_who_has_a_rule(spec, says):
    check("DestinationRule", spec, says)


# --- gateways --------------------------------------------------------------------------------------------------------


def gw(protocol="HTTPS", number=443, name="p", **server):
    return {
        "servers": [{"port": {"number": number, "protocol": protocol, "name": name}, "hosts": ["a.test"], **server}]
    }


def secure(**settings):
    return gw(tls=settings)


FILES = {"serverCertificate": "/c", "privateKey": "/k"}


@table(
    ("a port has a name", gw("HTTP", name=""), "no port name must be set"),
    ("what a proxy of HTTP is asked is HTTP", gw("HTTP_PROXY"), None),
    ("of any letters", gw("HTTP", name="a_b.c"), None),
    (
        "a port is not mapped here",
        {"servers": [{"port": {"number": 1, "protocol": "HTTP", "name": "a", "targetPort": 2}, "hosts": ["*"]}]},
        "no targetPort has no impact on Gateways",
    ),
    ("a protocol is known", gw("KAFKA"), 'no invalid protocol "KAFKA"'),
    ("a socket has no port", gw("HTTP", bind="unix:///a"), "no port number must be 0 for unix domain socket"),
    ("a socket", gw("HTTP", number=0, bind="unix:///a"), None),
    ("a socket is a file", gw("HTTP", number=0, bind="unix:///a/"), "no is not an absolute path to a file"),
    ("a path alone is no socket", gw("HTTP", bind="/a"), "no /a is not a valid IP"),
    ("HTTPS has certificates", gw(), "no server must have TLS settings for HTTPS/TLS protocols"),
    (
        "HTTP has none",
        gw("HTTP", tls={"mode": "SIMPLE", **FILES}),
        "no cannot have TLS settings for plain text HTTP ports",
    ),
    ("but redirects", gw("HTTP", tls={"httpsRedirect": True}), None),
    (
        "HTTPS does not",
        secure(httpsRedirect=True, mode="SIMPLE", **FILES),
        "warn should only be used with http servers",
    ),
    ("TCP has none", gw("TCP", tls={"mode": "SIMPLE", **FILES}), "no for non HTTPS/TLS ports"),
)
def test_ports_of_gateways(spec, says):
    check("Gateway", spec, says)


@table(
    ("files", secure(mode="SIMPLE", **FILES), None),
    ("a Secret", secure(mode="MUTUAL", credentialName="a"), None),
    ("one or the other", secure(mode="SIMPLE", credentialName="a", **FILES), "no only one of credential_name"),
    (
        "one Secret or many",
        secure(mode="SIMPLE", credentialName="a", credentialNames=["b"]),
        "no only one of credential",
    ),
    ("in any mode", secure(mode="PASSTHROUGH", credentialName="a", **FILES), "no only one of credential_name"),
    (
        "nothing is terminated",
        secure(mode="PASSTHROUGH", credentialName="a"),
        "warn PASSTHROUGH mode does not use cert",
    ),
    ("a certificate has a key", secure(mode="SIMPLE", serverCertificate="/c"), "no SIMPLE TLS requires a private key"),
    ("a key has a certificate", secure(mode="SIMPLE", privateKey="/k"), "no SIMPLE TLS requires a server certificate"),
    ("clients have a CA", secure(mode="OPTIONAL_MUTUAL", **FILES), "no MUTUAL TLS requires a client CA bundle"),
    (
        "who has no clients has no list",
        secure(mode="SIMPLE", caCrl="/l", **FILES),
        "no CRL is not supported with SIMPLE",
    ),
    ("two certificates", secure(mode="SIMPLE", credentialNames=["a", "b"]), None),
    ("not three", secure(mode="SIMPLE", tlsCertificates=[FILES] * 3), "warn SIMPLE TLS can support up to 2 server"),
    ("mesh certificates are the mesh's", secure(mode="ISTIO_MUTUAL"), None),
    ("not the user's", secure(mode="ISTIO_MUTUAL", credentialNames=["a"]), "no cannot have associated credentialNames"),
    ("ciphers are known", secure(mode="SIMPLE", cipherSuites=["AES128-SHA"], **FILES), None),
    (
        "or not used",
        secure(mode="SIMPLE", cipherSuites=["B", "A"], **FILES),
        "warn ignoring invalid cipher suites: [A B]",
    ),
    (
        "and written once",
        secure(mode="SIMPLE", cipherSuites=["AES128-SHA"] * 2, **FILES),
        "warn ignoring duplicate cipher suites: [AES128-SHA]",
    ),
)
def test_certificates_of_gateways(spec, says):
    check("Gateway", spec, says)
