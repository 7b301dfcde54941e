"""The filters of a workload's policies: CUSTOM first, then AUDIT, DENY and ALLOW, as Istio evaluates them."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from envoy.config.core.v3 import grpc_service_pb2, http_uri_pb2
from envoy.config.listener.v3 import listener_components_pb2 as lc
from envoy.config.rbac.v3 import rbac_pb2
from envoy.extensions.filters.http.ext_authz.v3 import ext_authz_pb2 as http_ext
from envoy.extensions.filters.http.rbac.v3 import rbac_pb2 as http_rbac
from envoy.extensions.filters.network.ext_authz.v3 import ext_authz_pb2 as tcp_ext
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm
from envoy.extensions.filters.network.rbac.v3 import rbac_pb2 as tcp_rbac
from envoy.type.matcher.v3 import metadata_pb2, string_pb2, value_pb2
from google.protobuf import any_pb2

from lateen.api import objects as o
from lateen.api.mesh import ExtAuthzGrpc, ExtAuthzHttp, ExtensionProvider
from lateen.api.security import AuthorizationPolicy
from lateen.mesh.inbound_view import Authorization
from lateen.wire import names
from lateen.xds import pb
from lateen.xds.authz import matchers, rules
from lateen.xds.authz.shorter import shorter
from lateen.xds.authz.tokens import Places, unverified

Policies = tuple[o.Resource[AuthorizationPolicy], ...]
HTTP_RBAC, TCP_RBAC = "envoy.filters.http.rbac", "envoy.filters.network.rbac"
HTTP_EXT, TCP_EXT = "envoy.filters.http.ext_authz", "envoy.filters.network.ext_authz"
EXT_PREFIX = "istio_ext_authz_"
ALLOWED, DENIED = "istio_dry_run_allow_", "istio_dry_run_deny_"
LOGGED = "istio_audit_"
BAD = "-deny-due-to-bad-CUSTOM-action"
"""Istio's suffix of the names of policies whose provider is unusable"""
_ACTION = {"ALLOW": "ALLOW", "AUDIT": "LOG"}
EXT_KEY = "istio_ext_authz_shadow_effective_policy_id"
TIMEOUT_S = 600.0


def _rbac(
    policies: Iterable[o.Resource[AuthorizationPolicy]],
    action: str,
    tcp: bool,
    domains: tuple[str, ...],
    prefix: str = "",
    spelled: bool = False,
    suffix: str = "",
) -> Any:
    """An RBAC filter; None without policies. On TCP, rules about requests are left out. ``spelled``: as proxies get it
    (``rules.Scope``, ``shorter``), not literally as in Istio."""
    found = list(policies)
    if not found:
        return None
    out = rbac_pb2.RBAC(action=_ACTION.get(action, "DENY"))
    for p in found:
        scope = rules.Scope(p.ref.namespace, domains, tcp, action != "ALLOW", spelled)
        name = f"{prefix}ns[{p.ref.namespace}]-policy[{p.ref.name}]"
        if not p.spec.rules:
            out.policies[f"{name}-rule[0]{suffix}"].CopyFrom(rules.never())
        for i, rule in enumerate(p.spec.rules):
            try:
                made = rules.policy(rule, scope)
            except rules.HttpOnly:
                continue
            out.policies[f"{name}-rule[{i}]{suffix}"].CopyFrom(made)
    return shorter(out) if spelled else out


def _filter(tcp: bool, enforced: Any, shadow: Any, prefix: str) -> Any:
    if tcp:
        config = tcp_rbac.RBAC(rules=enforced, shadow_rules=shadow, shadow_rules_stat_prefix=prefix, stat_prefix="tcp.")
        return lc.Filter(name=TCP_RBAC, typed_config=pb.any_of(config))
    found = http_rbac.RBAC(rules=enforced, shadow_rules=shadow, shadow_rules_stat_prefix=prefix)
    return hcm.HttpFilter(name=HTTP_RBAC, typed_config=pb.any_of(found))


@lru_cache(maxsize=4096)
def plain(policies: Policies, tcp: bool, domains: tuple[str, ...] = (), spelled: bool = False) -> tuple[Any, ...]:
    """The filters of AUDIT, DENY and ALLOW policies."""
    out = []
    for action in ("AUDIT", "DENY", "ALLOW"):
        mine = [p for p in policies if p.spec.action == action]
        enforced = _rbac((p for p in mine if not p.dry_run), action, tcp, domains, spelled=spelled)
        shadow = _rbac((p for p in mine if p.dry_run), action, tcp, domains, spelled=spelled)
        if enforced is not None or shadow is not None:
            out.append(_filter(tcp, enforced, shadow, _dry_run_prefix(action, shadow)))
    return tuple(out)


def _dry_run_prefix(action: str, shadow: Any) -> str:
    """The metadata prefix of dry runs; without dry-run rules it is unused, and Istio uses that of ALLOW."""
    return ALLOWED if shadow is None else {"ALLOW": ALLOWED, "DENY": DENIED}.get(action, "")


def custom(
    policies: Policies,
    tcp: bool,
    providers: tuple[ExtensionProvider, ...],
    domains: tuple[str, ...] = (),
    spelled: bool = False,
) -> tuple[Any, ...]:
    """CUSTOM: shadow rules decide whether a policy matches; if one does, Envoy asks its provider. Policies of several
    providers are asked one after another, and all must allow. A policy with an unknown
    provider denies everything that it matches, before anybody is asked."""
    by_name = {p.name: p for p in providers}
    refused: list[Any] = []
    out: list[Any] = []
    for name in asked(policies):
        mine = of_provider(policies, name)
        provider, prefix = by_name.get(name), f"istio-ext-authz-{name}" if name else "istio-ext-authz"
        if provider is None:
            refused.append(_filter(tcp, _rbac(mine, "CUSTOM", tcp, domains, f"{prefix}-", spelled, BAD), None, ""))
        elif not tcp or provider.envoy_ext_authz_grpc:  # an HTTP provider cannot authorize TCP connections
            shadow = _rbac(mine, "CUSTOM", tcp, domains, f"{prefix}-", spelled)
            # with what follows the provider's name, which may be the beginning of another one's
            chosen = f"{prefix}-ns[" if spelled else prefix
            out += (_filter(tcp, None, shadow, EXT_PREFIX), _ext_authz(provider, tcp, chosen))
    return (*refused, *out)


def unasked(access: Authorization) -> tuple[Any, ...]:
    """Denies connections that CUSTOM policies match whose provider speaks HTTP, which cannot be asked about them. For
    ports of unknown protocol, where it is the client that decides what is taken for HTTP: a request after an empty line
    is not, but servers answer it. On TCP ports such policies have no effect, as in Istio."""
    http = [p.name for p in access.providers if not p.envoy_ext_authz_grpc]
    mine = [p for name in http for p in of_provider(access.policies, name)]
    denied = _rbac(mine, "CUSTOM", True, access.domains, "istio-ext-authz-", True, names.NO_HTTP)
    return () if denied is None else (_filter(True, denied, None, ""),)


def asked(policies: Policies) -> tuple[str, ...]:
    """The providers of CUSTOM policies, in the order in which they are asked."""
    return tuple(sorted({_provider(p) for p in policies if p.spec.action == "CUSTOM" and not p.dry_run}))


def answered(access: Authorization) -> tuple[str, ...]:
    """The headers in which HTTP providers tell the application who asks, as far as they are named."""
    mine = set(asked(access.policies))
    given = (p.envoy_ext_authz_http for p in access.providers if p.name in mine)
    return tuple(h for http in given if http for h in http.headers_to_upstream_on_allow if "*" not in h)


def of_provider(policies: Policies, name: str) -> Policies:
    """The CUSTOM policies that ask one provider."""
    return tuple(p for p in policies if p.spec.action == "CUSTOM" and not p.dry_run and _provider(p) == name)


def _provider(policy: o.Resource[AuthorizationPolicy]) -> str:
    """The policy's provider; empty if it names none, which is treated like an unknown one."""
    return policy.spec.provider.name if policy.spec.provider else ""


def of_workload(access: Authorization, policies: Policies, tcp: bool) -> tuple[Any, ...]:
    """CUSTOM, then AUDIT, DENY and ALLOW: those of ``policies``, which are all or some of the workload's."""
    if not policies:
        return ()
    questions = custom(policies, tcp, access.providers, access.domains, spelled=True)
    return (*questions, *plain(policies, tcp, access.domains, spelled=True))


def audited(policies: Policies, domains: tuple[str, ...]) -> any_pb2.Any:
    """AUDIT decides nothing. As in Istio, a match sets ``access_log_hint`` in the metadata ``envoy.common``; ours also
    counts it and names the policy, which shadow rules do."""
    logged = _rbac(policies, "AUDIT", False, domains, spelled=True)
    seen = rbac_pb2.RBAC()
    seen.CopyFrom(logged)
    seen.action = rbac_pb2.RBAC.ALLOW
    return pb.any_of(http_rbac.RBAC(rules=logged, shadow_rules=seen, shadow_rules_stat_prefix=LOGGED))


def denied(policies: Policies, domains: tuple[str, ...], where: Places) -> any_pb2.Any:
    """The filter for requests denied by DENY policies, or without any policy. ``where`` tokens are looked for."""
    out = http_rbac.RBAC()
    for found in plain(policies, False, domains, spelled=True):
        found.typed_config.Unpack(out)
    out.rules.action = rbac_pb2.RBAC.DENY
    out.rules.policies[names.SEVERAL_HOSTS].CopyFrom(rules.several_hosts())
    for name, policy in unverified(where):
        out.rules.policies[name].CopyFrom(policy)
    return pb.any_of(out)


def _ext_authz(provider: ExtensionProvider, tcp: bool, prefix: str) -> Any:
    chosen = metadata_pb2.MetadataMatcher(
        filter=TCP_RBAC if tcp else HTTP_RBAC,
        path=[metadata_pb2.MetadataMatcher.PathSegment(key=EXT_KEY)],
        value=value_pb2.ValueMatcher(string_match=string_pb2.StringMatcher(prefix=prefix)),
    )
    if tcp and (grpc := provider.envoy_ext_authz_grpc):
        config = tcp_ext.ExtAuthz(
            stat_prefix="tcp.",
            grpc_service=_grpc(grpc),
            failure_mode_allow=grpc.fail_open,
            transport_api_version="V3",
            filter_enabled_metadata=chosen,
        )
        return lc.Filter(name=TCP_EXT, typed_config=pb.any_of(config))
    found = asking(provider)
    found.filter_enabled_metadata.CopyFrom(chosen)
    return hcm.HttpFilter(name=HTTP_EXT, typed_config=pb.any_of(found))


def asking(provider: ExtensionProvider) -> http_ext.ExtAuthz:
    """The ext_authz filter for a provider."""
    if grpc := provider.envoy_ext_authz_grpc:
        found = http_ext.ExtAuthz(
            grpc_service=_grpc(grpc), failure_mode_allow=grpc.fail_open, transport_api_version="V3"
        )
        _common(found, grpc)
        return found
    http = provider.envoy_ext_authz_http
    assert http is not None
    found = http_ext.ExtAuthz(failure_mode_allow=http.fail_open, transport_api_version="V3")
    found.http_service.CopyFrom(_http(http))
    patterns = http.include_request_headers_in_check or http.include_headers_in_check
    if patterns:
        found.allowed_headers.patterns.extend(_header_pattern(h) for h in patterns)
    _common(found, http)
    return found


def _host(service: str) -> str:
    """``namespace/host`` or a host."""
    return service.rpartition("/")[2]


def _grpc(given: ExtAuthzGrpc) -> grpc_service_pb2.GrpcService:
    host = _host(given.service)
    return grpc_service_pb2.GrpcService(
        envoy_grpc=grpc_service_pb2.GrpcService.EnvoyGrpc(
            cluster_name=names.outbound(host, given.port), authority=host
        ),
        timeout=pb.duration(given.timeout.seconds if given.timeout else TIMEOUT_S),
    )


def _http(given: ExtAuthzHttp) -> http_ext.HttpService:
    host = _host(given.service)
    uri = http_uri_pb2.HttpUri(
        uri=f"http://{host}",
        cluster=names.outbound(host, given.port),
        timeout=pb.duration(given.timeout.seconds if given.timeout else TIMEOUT_S),
    )
    out = http_ext.HttpService(server_uri=uri, path_prefix=given.path_prefix)
    for key, value in sorted(given.include_additional_headers_in_check.items()):
        added = out.authorization_request.headers_to_add.add()
        added.key, added.value = key, value
    for field, patterns in (
        ("allowed_upstream_headers", given.headers_to_upstream_on_allow),
        ("allowed_client_headers", given.headers_to_downstream_on_deny),
        ("allowed_client_headers_on_success", given.headers_to_downstream_on_allow),
    ):
        if patterns:
            getattr(out.authorization_response, field).patterns.extend(_header_pattern(h) for h in patterns)
    return out


def _header_pattern(text: str) -> Any:
    out = matchers.string(text)
    out.ignore_case = True
    return out


def _common(found: Any, given: ExtAuthzGrpc | ExtAuthzHttp) -> None:
    if given.status_on_error:
        found.status_on_error.code = int(given.status_on_error)
    if body := given.include_request_body_in_check:
        found.with_request_body.max_request_bytes = body.max_request_bytes
        found.with_request_body.allow_partial_message = body.allow_partial_message
        found.with_request_body.pack_as_bytes = body.pack_as_bytes
    if given.clear_route_cache:
        found.clear_route_cache = True
