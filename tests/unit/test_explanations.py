"""Access logs read back, and what their flags and details mean."""

import pytest

from lateen.api import kinds
from lateen.dump import ConfigDump
from lateen.dump.lines import Parser
from lateen.dump.origins import origins
from lateen.dump.outcomes import DETAILS, FLAGS, RESETS, SIDES, detail, explain, told
from lateen.dump.refusals import refused_by
from lateen.wire.names import NO_HTTP

LINE = (
    '[2026-11-26T04:00:00.000Z] "GET /reviews/0 HTTP/1.1" 503 UF,URX '
    "upstream_reset_before_response_started{remote_connection_failure|delayed_connect_error:_Connection_refused} - "
    '"delayed connect error: Connection refused" 0 95 12 - "-" "curl/8" "b7e0" "reviews:9080" "10.244.0.9:9080" '
    "outbound|9080|v1|reviews.default.svc.cluster.local - 10.96.1.1:9080 10.244.0.5:41000 - default"
)


def test_a_line_in_istios_format_is_read():
    found = Parser().read(LINE)
    assert found == {
        "start": "2026-11-26T04:00:00.000Z",
        "method": "GET",
        "path": "/reviews/0",
        "protocol": "HTTP/1.1",
        "status": 503,
        "flags": "UF,URX",
        "details": "upstream_reset_before_response_started{remote_connection_failure|delayed_connect_error:"
        "_Connection_refused}",
        "failure": "delayed connect error: Connection refused",
        "durationMs": 12,
        "requestId": "b7e0",
        "authority": "reviews:9080",
        "destination": "10.244.0.9:9080",
        "cluster": "outbound|9080|v1|reviews.default.svc.cluster.local",
        "local": "10.96.1.1:9080",
        "source": "10.244.0.5:41000",
        "route": "default",
    }


def test_json_lines_and_formats_of_the_user_are_read():
    assert Parser().read('{"response_code":404,"path":"/a","response_flags":"-","duration":3}') == {
        "status": 404,
        "path": "/a",
        "durationMs": 3,
    }
    own = Parser("%RESPONSE_CODE% <%REQ(:PATH)%> %REQ(X-OWN)% %DURATION%ms")
    assert own.read("200 </a b> x 7ms") == {"status": 200, "path": "/a b", "durationMs": 7}
    labelled = Parser(labels={"c": "%RESPONSE_CODE%", "other": "a %PROTOCOL%"})
    assert labelled.read('{"c":"503","other":"a HTTP/2"}') == {"status": 503}


@pytest.mark.parametrize(
    "line", ["", "{", "[]", '{"message": "hello"}', "2026-11-26 info envoy main starting", '[x] "GET', "{" * 70_000]
)
def test_other_lines_are_no_requests(line):
    assert Parser().read(line) is None


def test_a_refused_connection_is_explained_with_the_users_objects():
    found = Parser().read(LINE)
    says = explain(found["flags"], found["details"], found["failure"], ("VirtualService reviews.default",))
    assert says[0] == "delayed connect error: Connection refused: nothing listens on that port"
    assert "UF: the connection to the endpoint failed (the connection to the called end)" in says
    assert "routed by VirtualService reviews.default" in says
    assert any(s.startswith("hint: check that the application listens on the Service's targetPort") for s in says)


def test_the_policy_that_denied_is_named():
    matched = explain("-", "rbac_access_denied_matched_policy[ns[shop]-policy[no-posts]-rule[1]]")
    assert matched[0] == "denied by AuthorizationPolicy no-posts.shop, rule 1"
    custom = "matched_policy[istio-ext-authz-none-ns[shop]-policy[ask]-rule[0]-deny-due-to-bad-CUSTOM-action]"
    said = explain("-", f"rbac_access_denied_{custom}")[0]
    assert said.startswith("denied by AuthorizationPolicy ask.shop, rule 0; its provider is not one of")
    unnamed = custom.replace("-none-", "-")
    assert explain("-", f"rbac_access_denied_{unnamed}")[0] == said
    other = unnamed.replace("-deny-due-to-bad-CUSTOM-action", NO_HTTP)
    said = explain("-", f"rbac_access_denied_{other}")[0]
    assert said.startswith("denied by AuthorizationPolicy ask.shop, rule 0; its provider is asked over HTTP")
    assert "appProtocol: tcp" in said
    for rule, says in {
        "basicAuth-broken": "whose basicAuth cannot be used (its status says why)",
        "rule[default]": "by its defaultAction",
        "rule[inside]": "rule inside",
    }.items():
        said = explain("-", f"rbac_access_denied_matched_policy[ns[shop]-policy[SecurityPolicy/own]-{rule}]")[0]
        assert said == f"denied by SecurityPolicy own.shop, {says}"
    nothing = explain("-", "rbac_access_denied_matched_policy[none]")
    assert nothing[0] == "denied because no rule of an ALLOW policy for this workload matches it"


@pytest.mark.parametrize(
    ("details", "says"),
    [
        ("upstream_reset_before_response_started{connection_termination}", "it closed the connection"),
        ("jwt_authn_access_denied{Jwt_is_missing}", "its token is missing or was rejected"),
        ("http1.headers_too_large", "the message is not valid HTTP/1.1 (headers too large)"),
        ("downstream_local_disconnect(on_idle_timeout)", "this proxy closed the caller's connection"),
        ("something_new{a}", "Envoy says: something new"),
    ],
)
def test_details_with_more_behind_them_are_explained(details, says):
    assert any(says in s for s in explain("", details))


def test_what_the_application_answered_itself_needs_no_explanation():
    assert explain("-", "via_upstream") == explain("-", "via_upstream", status=404) == []
    (said,) = explain("-", "via_upstream", status=503)
    assert "the called application answered so itself" in said
    assert explain("", "") == []
    assert detail("-") is None


@pytest.mark.parametrize("table", [FLAGS, DETAILS, RESETS])
def test_every_meaning_says_who_and_what(table):
    for name, meaning in table.items():
        assert meaning.who in SIDES, name
        assert meaning.says, name
        assert not meaning.says.endswith("."), name


def route(name, cluster, made_by):
    config = f"/apis/networking.istio.io/v1/namespaces/default/virtual-service/{made_by}"
    return {"name": name, "route": {"cluster": cluster}, "metadata": {"filter_metadata": {"istio": {"config": config}}}}


def test_objects_are_found_by_route_host_and_cluster():
    rule = "/apis/networking.istio.io/v1/namespaces/default/destination-rule/versions"
    cluster = {"name": "c1", "metadata": {"filter_metadata": {"istio": {"config": rule}}}}
    hosts = [
        {"domains": ["other"], "routes": [route("default", "c1", "other")]},
        {
            "domains": ["reviews", "reviews:9080"],
            "routes": [route("a", "c1", "first"), route("default", "c1", "second")],
        },
    ]
    prefix = "type.googleapis.com/envoy.admin.v3."
    dump = ConfigDump(
        {
            "configs": [
                {"@type": f"{prefix}ClustersConfigDump", "dynamic_active_clusters": [{"cluster": cluster}]},
                {
                    "@type": f"{prefix}RoutesConfigDump",
                    "dynamic_route_configs": [{"route_config": {"virtual_hosts": hosts}}],
                },
            ]
        }
    )
    seen = {"route": "default", "cluster": "c1", "authority": "reviews:9080"}
    assert origins(dump, seen) == ("VirtualService second.default", "DestinationRule versions.default")
    assert origins(dump, seen | {"authority": "nobody"}) == ("DestinationRule versions.default",)
    assert origins(dump, {"route": "default", "authority": "reviews"}) == ("VirtualService second.default",)


def policy(name, namespace, mode="", ports=None, targets=(), **labels):
    spec = ({"selector": {"matchLabels": labels}} if labels else {}) | ({"mtls": {"mode": mode}} if mode else {})
    spec |= {"portLevelMtls": {str(port): {"mode": m} for port, m in ports.items()}} if ports else {}
    spec |= {"targetRefs": list(targets)} if targets else {}
    return {"metadata": {"name": name, "namespace": namespace}, "spec": spec}


WEB = {"metadata": {"name": "web-1", "namespace": "shop", "labels": {"app": "web", "v": "1"}}}


def plain(*rules, pod=WEB, local="10.0.0.1:8080"):
    """The PeerAuthentications named for a connection in plain text."""
    seen = {"details": "filter_chain_not_found", "local": local}
    return refused_by(seen, None, {kinds.PEER_AUTHENTICATION: rules}, pod, "istio-system")


def test_plain_text_is_refused_by_what_makes_mutual_tls_strict():
    mesh, web = policy("default", "istio-system", "PERMISSIVE"), policy("web", "shop", "STRICT", app="web")
    found = plain(mesh, web)
    assert explain("NR", "filter_chain_not_found", refusing=found)[0] == "refused by PeerAuthentication web.shop"
    gateway = WEB | {"spec": {"containers": [{"name": "istio-proxy", "args": ["proxy", "router"]}]}}
    assert plain(mesh, web, pod=gateway) == ()


def test_of_several_strict_policies_the_one_that_decides_about_the_port_is_named():
    mesh, space = policy("default", "istio-system", "STRICT"), policy("all", "shop", "STRICT")
    assert plain(mesh, space) == ("PeerAuthentication all.shop",)
    web = policy("web", "shop", ports={9090: "STRICT"}, app="web")
    assert plain(mesh, web) == ("PeerAuthentication default.istio-system",)
    assert plain(mesh, web, local="10.0.0.1:9090") == ("PeerAuthentication web.shop",)
    assert plain(mesh, web, local="") == ("PeerAuthentication default.istio-system", "PeerAuthentication web.shop")
    open_port = policy("web", "shop", "STRICT", {9090: "PERMISSIVE"}, app="web")
    assert plain(mesh, open_port, local="[::1]:9090") == ()


def test_rules_of_tokens_that_may_have_refused_a_request_are_those_of_its_workload():
    rules = [
        policy("all", "istio-system"),
        policy("web", "shop", app="web"),
        policy("cart", "shop", app="cart"),
        policy("theirs", "other"),
        policy("door", "shop", targets=[{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "door"}]),
        policy("by-service", "shop", targets=[{"group": "", "kind": "Service", "name": "web"}]),
        policy("of-cart", "shop", targets=[{"group": "", "kind": "Service", "name": "cart"}]),
    ]
    services = [
        {"metadata": {"name": name, "namespace": "shop"}, "spec": {"selector": {"app": name}}}
        for name in ("web", "cart")
    ]
    objects = {kinds.REQUEST_AUTHENTICATION: rules, kinds.SERVICE: services}
    details = "jwt_authn_access_denied{Jwt_is_expired}"
    found = refused_by({"details": details}, None, objects, WEB, "istio-system")
    assert found == tuple(f"RequestAuthentication {n}" for n in ("all.istio-system", "by-service.shop", "web.shop"))
    assert explain("-", details, refusing=found)[0] == f"refused by one of {', '.join(found)}"
    assert refused_by({"details": "via_upstream"}, None, objects, WEB, "istio-system") == ()


@pytest.mark.parametrize(
    ("details", "filters"),
    [
        ("local_rate_limited", {"descriptors": [{"entries": [{"key": "rule", "value": "shop/limits/0"}]}]}),
        (
            "rate_limited_by_quota",
            {"bucket_id_builder": {"bucket_id_builder": {"rule": {"string_value": "shop/limits/0"}}}},
        ),
    ],
)
@pytest.mark.parametrize("at", ["EcdsConfigDump", "RoutesConfigDump"])
def test_the_rule_of_a_rate_limit_is_named_at_sidecars_and_at_gateways(at, details, filters):
    slot = "lateen.quota.0.80" if details == "rate_limited_by_quota" else "lateen.rate_limiting/80"
    part = {
        "EcdsConfigDump": {"ecds_filters": [{"ecds_filter": {"name": slot, "typed_config": filters}}]},
        "RoutesConfigDump": {"dynamic_route_configs": [{"route_config": {"typed_per_filter_config": {"a": filters}}}]},
    }[at]
    dump = ConfigDump({"configs": [{"@type": f"type.googleapis.com/envoy.admin.v3.{at}", **part}]})
    pod = {"metadata": {"name": "web-1", "namespace": "shop"}}
    (found,) = refused_by({"details": details}, dump, {}, pod, "istio-system")
    assert found == "BackendTrafficPolicy limits.shop, rule 0"
    assert explain("RL", details, refusing=(found,))[0] == f"refused by {found}"
    assert "cache" not in str(explain("RFCF", "rate_limited_by_quota"))


def named(slot, *filters):
    chain = {"typed_config": [{"name": name, "typed_config": {}} for name in filters]}
    action = {"name": "chain", "typed_config": {"filter_chain": chain}}
    return {"ecds_filter": {"name": slot, "typed_config": {"xds_matcher": {"on_no_match": {"action": action}}}}}


@pytest.mark.parametrize(
    ("details", "route", "expected"),
    [
        ("no_credential_found_for_basic_auth", None, ["SecurityPolicy own.shop", "SecurityPolicy users.shop"]),
        ("invalid_credential_for_basic_auth", "own", ["SecurityPolicy own.shop"]),
        ("unknown_api_key", None, ["SecurityPolicy keys.shop"]),
        ("via_upstream", None, []),
    ],
)
def test_wrong_passwords_and_keys_name_the_security_policy(details, route, expected):
    """At a gateway the one whose slot the request's route turns on; else all of the proxy that have the part."""
    filters = [
        named("lateen.security/shop/own", "lateen.security.basic/shop/own"),
        named("lateen.security/8080", "lateen.security.basic/shop/users", "lateen.security.keys/shop/keys"),
    ]
    config = {f"lateen.security/shop/{route}/first": {}} if route else {}
    hosts = [{"domains": ["*"], "routes": [{"name": "r", "typed_per_filter_config": config}]}]
    parts = {
        "EcdsConfigDump": {"ecds_filters": filters},
        "RoutesConfigDump": {"dynamic_route_configs": [{"route_config": {"virtual_hosts": hosts}}]},
    }
    dump = ConfigDump(
        {"configs": [{"@type": f"type.googleapis.com/envoy.admin.v3.{k}", **v} for k, v in parts.items()]}
    )
    seen = {"details": details, "route": "r", "authority": "shop.example"}
    found = refused_by(seen, dump, {}, WEB, "istio-system")
    assert list(found) == expected
    if route:
        assert explain("-", details, refusing=found)[0] == "refused by SecurityPolicy own.shop"


GATE = {
    "metadata": {"name": "gate-1", "namespace": "edge", "labels": {"istio": "gate"}},
    "spec": {"containers": [{"name": "istio-proxy", "args": ["proxy", "router"]}]},
}
VERIFY = (
    "TLS_error:|268435581:SSL_routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED:verify_cert_failed:_%s:TLS_error_end"
)
REFUSED = (
    '[2026-11-27T07:08:01.345Z] "- - -" 0 - - - "%s" 0 0 15 - "-" "-" "-" "-" "-" - - 10.0.0.4:8443 10.0.0.1:4545 %s -'
)


def server(name, mode, *hosts):
    return {"port": {"number": 443, "name": name}, "hosts": list(hosts), "tls": {"mode": mode}}


def gateway(name, *servers, **selector):
    return {"metadata": {"name": name, "namespace": "shop"}, "spec": {"selector": selector, "servers": list(servers)}}


def shut(failure, sni="staff.test", pod=GATE):
    """What is said of a connection whose TLS has failed."""
    seen = Parser().read(REFUSED % (failure, sni))
    gateways = [
        gateway("web", server("https-staff", "MUTUAL", "shop/staff.test"), server("open", "SIMPLE", "*"), istio="gate"),
        gateway("wide", server("https-wide", "OPTIONAL_MUTUAL", "*.test"), istio="gate"),
        gateway("other", server("https", "MUTUAL", "*"), istio="other"),
    ]
    flags, details, words = told(seen)
    return explain(flags, details, words, (), refused_by(seen, None, {kinds.GATEWAY: gateways}, pod, "istio-system"))


@pytest.mark.parametrize(
    ("failure", "says"),
    [
        (VERIFY % "certificate_has_expired", "the client's certificate has expired"),
        (VERIFY % "certificate_revocation_check_failed:_certificate_revoked", "the client's certificate is revoked"),
        (VERIFY % "unable_to_get_certificate_CRL", "there is no revocation list of the CA"),
        (VERIFY % "CRL_has_expired", "the revocation list has expired"),
        (
            VERIFY % "unable_to_get_local_issuer_certificate",
            "the client's certificate is from no CA that is trusted here",
        ),
        (VERIFY % "SAN_matcher", "the client's certificate has none of the names that may come in"),
        (
            "TLS_error:|268435648:PEER_DID_NOT_RETURN_A_CERTIFICATE:TLS_error_end",
            "the client has no certificate, and needs",
        ),
    ],
)
def test_certificates_of_clients_that_are_refused_name_the_servers_that_want_them(failure, says):
    who, why = shut(failure)
    assert who == "refused by one of Gateway web.shop, server https-staff, Gateway wide.shop, server https-wide"
    assert why.startswith(says)
    assert failure in why
    assert shut(failure, "a.test")[0] == "refused by Gateway wide.shop, server https-wide"
    assert len(shut(failure, pod=WEB)) == 1, "a sidecar asks for the mesh's own certificates"


def test_a_gateway_of_the_gateway_api_is_named_by_its_pods():
    labels = {"gateway.networking.k8s.io/gateway-name": "door"}
    pod = GATE | {"metadata": {"name": "door-1", "namespace": "edge", "labels": labels}}
    assert shut(VERIFY % "certificate_has_expired", pod=pod)[0] == "refused by Gateway door.edge"


@pytest.mark.parametrize(
    ("failure", "says"),
    [
        (
            "TLS_error:|268435612:SSL_routines:OPENSSL_internal:HTTP_REQUEST:TLS_error_end",
            "the client does not speak TLS",
        ),
        ("TLS_error:|1:SSLV3_ALERT_CERTIFICATE_UNKNOWN:TLS_error_end", "the client does not trust the certificate"),
        ("TLS_error:|1:NO_SHARED_CIPHER:TLS_error_end", "the client has no version or cipher of TLS in common"),
        ("something new", "TLS with the client has failed (something new)"),
    ],
)
def test_where_no_certificate_of_a_client_is_refused_no_gateway_is_named(failure, says):
    (only,) = shut(failure)
    assert only.startswith(says)


def test_failures_of_tls_with_a_server_stay_what_they_are():
    seen = {"failure": "TLS_error: CERTIFICATE_VERIFY_FAILED", "destination": "10.0.0.9:80", "flags": "UF"}
    assert told(seen) == ("UF", "", "TLS_error: CERTIFICATE_VERIFY_FAILED")


@pytest.mark.parametrize(
    "seen",
    [
        {"status": 302, "details": "oauth.missing_credentials", "route": "r"},
        {"status": 401, "details": "Unauthorized,_and_redirecting_to_OAuth_server_is_not_allowed:_/get", "route": "r"},
        {"status": 401, "details": "CSRF_token_validation_failed", "route": "r"},
    ],
)
def test_who_is_not_logged_in_is_told_of_the_security_policy(seen):
    here, there = ("lateen.security.oidc/shop/login", "lateen.security.oidc/shop/other")
    hosts = [
        {
            "domains": ["*"],
            "routes": [{"name": "r", "typed_per_filter_config": {"lateen.security/shop/login/first": {}}}],
        }
    ]
    listener = {"filter_chains": [{"filters": [{"name": here}, {"name": there}]}]}
    parts = {
        "ListenersConfigDump": {"dynamic_listeners": [{"active_state": {"listener": listener}}]},
        "RoutesConfigDump": {"dynamic_route_configs": [{"route_config": {"virtual_hosts": hosts}}]},
    }
    dump = ConfigDump(
        {"configs": [{"@type": f"type.googleapis.com/envoy.admin.v3.{k}", **v} for k, v in parts.items()]}
    )
    found = refused_by(seen, dump, {}, GATE, "istio-system")
    assert found == ("SecurityPolicy login.shop",)
    flags, details, failure = told(seen)
    who, why = explain(flags, details, failure, (), found)
    assert who == "refused by SecurityPolicy login.shop"
    assert "OIDC" in why


def test_a_rate_limit_service_is_asked_by_envoy_filters():
    asks = {"applyTo": "HTTP_FILTER", "patch": {"value": {"name": "envoy.filters.http.ratelimit"}}}
    counts = {"applyTo": "VIRTUAL_HOST", "patch": {"value": {"rate_limits": []}}}

    def of(name, namespace, patch, **labels):
        spec = {"configPatches": [patch]} | ({"workloadSelector": {"labels": labels}} if labels else {})
        return {"metadata": {"name": name, "namespace": namespace}, "spec": spec}

    filters = [
        of("limit", "istio-system", asks, istio="gate"),
        of("elsewhere", "shop", asks),
        of("others", "edge", asks, istio="other"),
        of("counts", "edge", counts),
    ]
    found = refused_by({"details": "request_rate_limited"}, None, {kinds.ENVOY_FILTER: filters}, GATE, "istio-system")
    assert found == ("EnvoyFilter limit.istio-system",)


@pytest.mark.parametrize(
    "details", ["response_timeout", "upstream_per_try_timeout", "stream_idle_timeout", "request_overall_timeout"]
)
def test_a_late_answer_is_not_taken_for_an_address_that_does_not_answer(details):
    assert not any("does not answer" in said for said in explain("UT", details))
    inside = "upstream_reset_before_response_started{connection_timeout}"
    assert any("does not answer" in said for said in explain("UF", inside))
