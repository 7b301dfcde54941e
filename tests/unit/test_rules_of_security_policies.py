"""What validation says of SecurityPolicies."""

import pytest
from rules import check


def spec(**more):
    return {"targetRefs": [{"kind": "Service", "name": "a"}], **more}


def keys(**more):
    return spec(apiKeyAuth={"credentialRefs": [{"name": "a"}], "extractFrom": [{"headers": ["x"]}], **more})


def oidc(**more):
    given = {"provider": {"issuer": "https://a.test"}, "clientID": "a", "clientSecret": {"name": "a"}}
    return spec(oidc={**given, **more})


GATEWAY_API = "gateway.networking.k8s.io"
KEPT = {"remoteJWKS": {"uri": "https://a.test/keys"}}


def tokens_of(*issuers):
    """A rule for the tokens of the first of several providers."""
    providers = [{"name": f"p{i}", "issuer": issuer, **KEPT} for i, issuer in enumerate(issuers)]
    return {**rule(jwt={"provider": "p0", "scopes": ["x"]}), "jwt": {"providers": providers}}


def passing(optional, **provider):
    jwt = {"optional": optional, "providers": [{"name": "a", **KEPT, **provider}]}
    return oidc(passThroughAuthHeader=True) | {"jwt": jwt}


def asking(**http):
    return spec(extAuth={"http": {"backendRefs": [{"name": "a", "port": 1}], **http}})


def ends(**given):
    some = {"authorizationEndpoint": "https://a.test/authorize", "tokenEndpoint": "https://a.test/token"}
    return oidc(provider={"issuer": "https://a.test", **some, **given})


def rule(**principal):
    return spec(authorization={"rules": [{"action": "Allow", "principal": principal}]})


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (spec(), "no the policy asks for nothing"),
        (keys(), None),
        (keys(credentialRefs=[]), "no name at least one Secret"),
        (keys(credentialRefs=[{"name": "a", "kind": "ConfigMap"}]), "no it can be to a Secret"),
        (keys(extractFrom=[]), "no say where requests have their key"),
        (keys(extractFrom=[{}]), "no give headers, params or cookies"),
        (spec(basicAuth={}), "no name a Secret of the policy's namespace"),
        (spec(cors={"allowOrigins": ["shop.test"]}), "no is not an origin"),
        (spec(cors={"allowOrigins": ["*"], "allowCredentials": True}), "no every site could act as the user"),
        (spec(jwt={}), "no give at least one provider"),
        (spec(jwt={"providers": [{"name": "a"}]}), "no give either remoteJWKS"),
        (
            spec(jwt={"providers": [{"name": "a", "localJWKS": {"type": "ValueRef", "valueRef": {"name": "x"}}}]}),
            "no keys in a ConfigMap are not implemented",
        ),
        (oidc(), None),
        (oidc(clientID=""), "no the provider knows the client by an id"),
        (oidc(clientIDRef={"name": "a"}), "no a client id in a Secret is not implemented"),
        (oidc(provider={"issuer": "a.test"}), "no URI scheme"),
        (
            oidc(provider={"issuer": "https://a.test", "tokenEndpoint": "https://a.test/token"}),
            "no give both authorizationEndpoint and tokenEndpoint",
        ),
        (oidc(redirectURL="https://a.test"), "no must be one that the application does not have"),
        (oidc(redirectURL="https://a.test/a:b", logoutPath="/a:b"), "no to which the provider sends browsers back"),
        (oidc(redirectURL="https://a.test/a:b?x=/c", logoutPath="/c"), None),
        (oidc(redirectURL="https://a.test/bye", logoutPath="/bye"), "no to which the provider sends browsers back"),
        (oidc(cookieDomain="a b"), "no is not a domain"),
        (oidc(cookieConfig={"sameSite": "Strict"}), "warn come back from a provider of another site"),
        (oidc(cookieConfig={"sameSite": "Lax"}), None),
        (spec(extAuth={"failOpen": True, "http": {"backendRefs": [{"name": "a", "port": 80}]}}), None),
        (
            spec(
                extAuth={
                    "failOpen": True,
                    "http": {"backendRefs": [{"name": "a", "port": 80}], "headersToBackend": ["x-user"]},
                }
            ),
            "warn requests pass with what clients write",
        ),
        (spec(extAuth={}), "no one of grpc or http must be specified"),
        (spec(extAuth={"http": {}}), "no name the service that is asked"),
        (spec(extAuth={"http": {"backendRefs": [{"name": "a", "port": 0}]}}), "no port number 0"),
        (spec(extAuth={"http": {"backendRefs": [{"name": "a", "port": 1}] * 2}}), "no name one"),
        (asking(headersToBackend=["*"]), "no is no pattern"),
        (asking(headersToBackend=["x-*"]), "no is no pattern"),
        (asking(headersToBackend=["x-user"]), None),
        (rule(clientCIDRs=["10.0.0.0/99"]), "no is not a valid CIDR block"),
        (rule(), "no at least one of clientCIDRs"),
        (rule(jwt={"provider": "a", "scopes": ["x"]}), "no is not the name of a provider"),
        (tokens_of("https://a.test", "https://b.test"), None),
        (tokens_of("https://a.test", ""), None),
        (tokens_of("https://a.test", "https://a.test"), None),
        (oidc(passThroughAuthHeader=True), 'no whoever sends "Authorization: Bearer x" would pass'),
        (passing(optional=False, extractFrom={"cookies": ["x"]}), "no takes tokens from a header"),
        (passing(optional=True), None),
        (passing(optional=True, extractFrom={"headers": [{"name": "authorization", "valuePrefix": "Bearer "}]}), None),
        (passing(optional=True, extractFrom={"cookies": ["x"]}), "no takes tokens from a header"),
        (passing(optional=True, extractFrom={"headers": [{"name": "Authorization"}]}), None),
        (keys(extractFrom=[{"cookies": ["key"], "params": ["a b"]}]), None),
        (keys(extractFrom=[{"cookies": ["a\n"]}]), "no is not the name of a cookie"),
        (keys(extractFrom=[{"cookies": ["a b"]}]), "no is not the name of a cookie"),
        (keys(extractFrom=[{"params": ["a\x00"]}]), "no has control characters"),
        (keys(extractFrom=[{"params": ["a" * 1025]}]), "no must have at most 1024 characters, has 1025"),
        (keys(extractFrom=[{"headers": ["a" * 1025]}]), "no must have at most 1024 characters"),
        (keys(forwardClientIDHeader="a" * 1025), "no must have at most 1024 characters"),
        (ends(authorizationEndpoint="https://a.test/auth orize"), "no is not a URL for Envoy"),
        (ends(tokenEndpoint="https://a.test/{token}"), "no is not a URL for Envoy"),
        (ends(endSessionEndpoint="https://a.test/`"), "no is not a URL for Envoy"),
        (ends(endSessionEndpoint="https://a_b.test/"), "no is not a URL for Envoy"),
        (ends(endSessionEndpoint="https://a.test:/"), "no is not a URL for Envoy"),
        (ends(endSessionEndpoint="https://idp.test:8443/out?to=%20a&b=[c]~#d"), None),
        (rule(clientCIDRs=["10.0.0.0/8"]), "warn can set X-Forwarded-For"),
        (
            rule(clientCIDRs=["10.0.0.0/8"]) | {"targetRefs": [{"group": GATEWAY_API, "kind": "Gateway", "name": "g"}]},
            None,
        ),
        (
            spec(extAuth={"recomputeRoute": True, "http": {"backendRefs": [{"name": "a", "port": 1}]}}),
            "warn keeps the policy of its first route",
        ),
        (
            spec(jwt={"providers": [{"name": "a", "recomputeRoute": True, **KEPT}]}),
            "warn keeps the policy of its first route",
        ),
        (rule(headers=[{"name": "x", "values": []}]), "no give at least one value"),
        (rule(sourceCIDRs=["10.0.0.0/8"]), "no use ipBlocks of an AuthorizationPolicy"),
    ],
)
def test_mistakes_are_refused(given, says):
    check("SecurityPolicy", given, says)
