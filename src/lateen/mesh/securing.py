"""SecurityPolicies: those that apply to a workload's port, and to routes and listeners of gateways."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from lateen.api import kinds
from lateen.api import objects as o
from lateen.api import security_policy as sp
from lateen.api.domain import service_host
from lateen.api.envoy_gateway import TargetReference, targets
from lateen.api.mesh import ExtensionProvider
from lateen.kit.queries import query
from lateen.mesh import secured
from lateen.mesh.authentication import KeySource
from lateen.mesh.limiting import Limiting, aimed, older, target_of
from lateen.mesh.objects import Key
from lateen.mesh.outcomes import Outcome, Problem
from lateen.mesh.protocols import REQUESTS, protocol
from lateen.mesh.routing import HostRoutes
from lateen.mesh.secured import Broken, Login, Policy, Secured
from lateen.mesh.workloads import container_port
from lateen.wire import names

T = TypeVar("T")
Aim = tuple[o.Ref, str]
"""A policy's target: an object, and the name of a part of it (a listener, a rule, a port); empty for all of it"""


class Securing(Limiting):
    def secured_of_port(self, pod: o.Pod, number: int) -> tuple[Secured, ...]:
        """The policies of a workload's port: those of every Service with this target port apply together, because a
        sidecar cannot tell their requests apart."""
        if not self.objects.security_policies:
            return ()
        found: dict[o.Ref, Policy] = {}
        for service in self.services_of(pod):
            ref = kinds.SERVICE.ref(service.namespace, service.name)
            for port in service.ports:
                if container_port(pod, port) == number:
                    policy = self._securing((ref, port.name), (ref, ""))
                    found |= {policy.ref: policy} if policy else {}
        return tuple(self.secured(*_key(p)) for p in sorted(found.values(), key=lambda p: p.age_order))

    def secured_at(self, hosts: Iterable[HostRoutes]) -> tuple[tuple[int, int, Secured], ...]:
        """The policies at a gateway: (position of the host, of its route, the policy). The most specific policy
        replaces all others, as in Envoy Gateway: that of a rule, of its route, of a listener, of its Gateway. If the
        requests of several listeners cannot be told apart, the policies of all of them apply together."""
        if not self.objects.security_policies:
            return ()
        out = []
        for at, h in enumerate(hosts):
            for i, route in enumerate(h.routes):
                if own := self._securing((route.rule, route.name), (route.rule, "")):
                    found = [own]
                else:
                    each = (self._securing((of, name), (of, "")) for of, name in h.places)
                    found = list(dict.fromkeys(p for p in each if p is not None))
                out += [(at, i, self.secured(*_key(policy))) for policy in found]
        return tuple(out)

    def _securing(self, *aims: Aim) -> Policy | None:
        """The oldest policy for the first of the targets that has any."""
        for target, section in aims:
            found = sorted(self._security_policies_at.get(target), key=lambda p: p.age_order)
            mine = (p for p in found for ref in aimed(p, target) if ref.section_name == section)
            if policy := next(mine, None):
                return policy
        return None

    # --- references of a policy ---------------------------------------------------------------------------------------

    @query
    def secured(self, namespace: str, name: str) -> Secured:
        policy: Policy = self.objects.security_policies[namespace, name]
        spec, secrets, root = policy.spec, self.objects.credentials, self.root_namespace
        broken: list[tuple[str, str]] = []

        def part(called: str, given: T | None, make: Callable[[T], object]) -> object:
            try:
                return make(given) if given is not None else None
            except Broken as e:
                broken.append((called, str(e)))
                return None

        keys = part("apiKeyAuth", spec.api_key_auth, lambda a: secured.api_keys(policy, a, secrets, root))
        users = part("basicAuth", spec.basic_auth, lambda a: secured.users(policy, a, secrets, root))
        asked = part("extAuth", spec.ext_auth, lambda e: self._asked(policy, e))
        login = part("oidc", spec.oidc, lambda oidc: self._login(policy, oidc))
        return Secured(
            policy,
            secured.tokens(spec.jwt, self.token_keys) if spec.jwt else (),
            keys if isinstance(keys, tuple) else (),
            users if isinstance(users, str) else "",
            asked if isinstance(asked, ExtensionProvider) else None,
            login if isinstance(login, Login) else None,
            tuple(broken),
        )

    def _asked(self, policy: Policy, ext: sp.ExtAuth) -> ExtensionProvider:
        given = ext.grpc or ext.http
        backend = sp.backend(given) if given else None
        if backend is None:
            raise Broken("no authorization service is named")
        host = service_host(backend.name, policy.ref.namespace, self.cluster.domain)
        service = self.service(host)
        if service is None or backend.port not in {p.port for p in service.ports}:
            raise Broken(f'there is no Service "{backend.name}" with port {backend.port} in {policy.ref.namespace}')
        return secured.provider(ext, host, backend.port)

    def _login(self, policy: Policy, oidc: sp.OIDC) -> Login:
        secrets, root = self.objects.credentials, self.root_namespace
        ends = secured.endpoints(oidc, self.token_keys)
        at = secured.server(ends.token)
        host = self.resolve(at.host, policy.ref.namespace)
        service = self.service(host, policy.ref.namespace)
        # the client secret is sent there: TLS of https endpoints is always verified, even if the host is in the mesh
        inside = not at.tls and service is not None and at.port in {p.port for p in service.ports}
        return Login(
            *ends,
            names.outbound(host, at.port) if inside else names.login(*at),
            None if inside else at,
            secured.client_secret(policy, oidc, secrets, root),
            secured.cookie_key(policy, secrets, root),
        )

    @query
    def fetched_sources(self) -> dict[KeySource, float]:
        """All sources that istiod fetches -> the timeout in seconds; 0 if none is given."""
        out = dict(self.key_sources())
        for policy in self.objects.security_policies.values():
            for _, found in secured.sources(policy.spec):
                out.setdefault(found, 0)
        return out

    @query
    def secret_namespaces(self) -> frozenset[str]:
        """The namespaces of Secrets that policies refer to."""
        found = self.objects.security_policies.values()
        return frozenset(p.ref.namespace for p in found if sp.secrets(p.spec))

    @query
    def has_logins(self) -> bool:
        return any(p.spec.oidc for p in self.objects.security_policies.values())

    def broken(self, namespace: str, name: str) -> list[str]:
        """Sentences about the broken parts of a policy. Only a running mesh knows them, because it reads Secrets and
        fetches documents."""
        found = self.secured(namespace, name).broken
        return [f"spec.{part}: {why}, so all requests are rejected" for part, why in found]

    # --- outcomes ----------------------------------------------------------------------------------------------

    def security_outcomes(self) -> list[Outcome]:
        return [self._security_outcome(key) for key, _ in self.objects.security_policies.items()]

    @query
    def _security_outcome(self, key: Key) -> Outcome:
        policy: Policy = self.objects.security_policies[key]
        many = bool(policy.spec.target_refs)
        found: list[Problem] = []
        for i, ref in enumerate(targets(policy.spec)):
            if says := self._unsecured(policy, ref):
                path = ("spec", "targetRefs", i) if many else ("spec", "targetRef")
                found.append(Problem("NotSecured", says, path))
        return Outcome(policy.ref, tuple(found))

    def _unsecured(self, policy: Policy, ref: TargetReference) -> str:
        """Why a policy has no effect on a target; empty if it has one."""
        target = target_of(ref, policy.ref.namespace)
        if why := self.no_target(ref, target):
            return f"it does nothing here: {why}"
        if target.group_kind == kinds.SERVICE.id:
            meant = self.ports_meant(ref, target)
            if plain := [p.name or str(p.port) for p in meant if protocol(p) not in REQUESTS]:
                return f"port {', '.join(plain)} is not HTTP, so it is closed"
        elif ref.section_name and ref.section_name not in self._sections(target):
            return f'it does nothing here: {target} has nothing named "{ref.section_name}"'
        why = older(policy, ref, target, self._security_policies_at.get(target))
        return f"it does nothing here: {why}" if why else ""

    def _sections(self, target: o.Ref) -> Sequence[str]:
        found = self.objects.of(kinds.TABLE[target.group_kind])[target.namespace, target.name]
        if target.group_kind == kinds.GATEWAY.id:
            return [s.name for s in found.spec.servers]
        if target.group_kind == kinds.KUBERNETES_GATEWAY.id:
            return [li.name for li in found.spec.listeners]
        return [r.name for r in found.spec.rules if r.name]


def _key(policy: Policy) -> Key:
    return policy.ref.namespace, policy.ref.name
