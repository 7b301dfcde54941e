"""security.istio.io. Field names and meanings are Istio's."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from lateen.api.config import Config, Duration, Limits, one_of, one_target, rules
from lateen.api.networking import PolicyTargetReference, WorkloadSelector

Url = Annotated[str, Limits(min_length=1, max_length=2048)]
Mode = Literal["UNSET", "DISABLE", "PERMISSIVE", "STRICT"]


class MutualTLS(Config):
    mode: Mode = "UNSET"


class PeerAuthentication(Config):
    selector: WorkloadSelector | None = None
    mtls: MutualTLS | None = None
    port_level_mtls: dict[str, MutualTLS] = {}


class JWTHeader(Config):
    name: str
    prefix: str = ""


class ClaimToHeader(Config):
    header: str = ""
    claim: str = ""


class JWTRule(Config):
    RULES = rules(one_of("only one of jwks or jwksUri can be set", "jwksUri", "jwks_uri", "jwks"))

    issuer: Annotated[str, Limits(min_length=1)] = ""
    audiences: tuple[str, ...] = ()
    jwks_uri: Url = ""
    jwks_uri_old: Url = msgspec.field(default="", name="jwks_uri")
    jwks: str = ""
    from_headers: tuple[JWTHeader, ...] = ()
    from_params: tuple[str, ...] = ()
    from_cookies: tuple[str, ...] = ()
    output_payload_to_header: str = ""
    forward_original_token: bool = False
    output_claim_to_headers: tuple[ClaimToHeader, ...] = ()
    space_delimited_claims: tuple[str, ...] = ()
    presence: Literal["OPTIONAL", "REQUIRED"] = "OPTIONAL"
    timeout: Duration | None = None


class RequestAuthentication(Config):
    RULES = rules(one_target("selector", "targetRef", "targetRefs"))

    selector: WorkloadSelector | None = None
    target_ref: PolicyTargetReference | None = None
    target_refs: tuple[PolicyTargetReference, ...] = ()
    jwt_rules: Annotated[tuple[JWTRule, ...], Limits(max_items=4096)] = ()


class Source(Config):
    RULES = rules(
        one_of(
            "Cannot set serviceAccounts with namespaces or principals",
            "serviceAccounts notServiceAccounts",
            "principals notPrincipals namespaces notNamespaces",
        ),
    )

    principals: tuple[str, ...] | None = None
    not_principals: tuple[str, ...] | None = None
    request_principals: tuple[str, ...] | None = None
    not_request_principals: tuple[str, ...] | None = None
    namespaces: tuple[str, ...] | None = None
    not_namespaces: tuple[str, ...] | None = None
    service_accounts: tuple[str, ...] | None = None
    not_service_accounts: tuple[str, ...] | None = None
    trust_domains: tuple[str, ...] | None = None
    not_trust_domains: tuple[str, ...] | None = None
    ip_blocks: tuple[str, ...] | None = None
    not_ip_blocks: tuple[str, ...] | None = None
    remote_ip_blocks: tuple[str, ...] | None = None
    not_remote_ip_blocks: tuple[str, ...] | None = None


class Operation(Config):
    hosts: tuple[str, ...] | None = None
    not_hosts: tuple[str, ...] | None = None
    ports: tuple[str, ...] | None = None
    not_ports: tuple[str, ...] | None = None
    methods: tuple[str, ...] | None = None
    not_methods: tuple[str, ...] | None = None
    paths: tuple[str, ...] | None = None
    not_paths: tuple[str, ...] | None = None


class From(Config):
    source: Source | None = None


class To(Config):
    operation: Operation | None = None


class Condition(Config):
    key: str = ""
    values: tuple[str, ...] = ()
    not_values: tuple[str, ...] = ()


class Rule(Config):
    from_: Annotated[tuple[From, ...], Limits(max_items=512)] | None = msgspec.field(default=None, name="from")
    to: tuple[To, ...] | None = None
    when: tuple[Condition, ...] = ()


class ExtensionProvider(Config):
    name: str = ""


class AuthorizationPolicy(Config):
    RULES = rules(one_target("selector", "targetRef", "targetRefs"))

    selector: WorkloadSelector | None = None
    target_ref: PolicyTargetReference | None = None
    target_refs: tuple[PolicyTargetReference, ...] = ()
    rules: Annotated[tuple[Rule, ...], Limits(max_items=512)] = ()
    action: Literal["ALLOW", "DENY", "AUDIT", "CUSTOM"] = "ALLOW"
    provider: ExtensionProvider | None = None
