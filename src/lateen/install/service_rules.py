"""What Kubernetes would refuse of an installation's gateways, namespaces and Services, said before anything is changed.

Source: Kubernetes ``pkg/apis/core/validation`` (ValidateService).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence

from lateen.install import control_plane, k8s, options
from lateen.install.objects import NAMESPACE
from lateen.kit.jsons import Json, dig

KINDS = ("ingressGateways", "egressGateways")
_NAME = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
"""RFC 1035, section 2.3.1, in lower case: the name of a Service."""
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
"""RFC 1123: the name of a namespace, or of a port."""
_POLICIES = ("Cluster", "Local")
_CHOICES = {
    "type": ("ClusterIP", "NodePort", "LoadBalancer"),
    "externalTrafficPolicy": _POLICIES,
    "internalTrafficPolicy": _POLICIES,
    "ipFamilies": ("IPv4", "IPv6"),
    "ipFamilyPolicy": ("SingleStack", "PreferDualStack", "RequireDualStack"),
    "sessionAffinity": ("None", "ClientIP"),
}
_PROTOCOLS = ("TCP", "UDP", "SCTP")


def problems(spec: Json, path: str = "spec") -> Iterator[str]:
    """One sentence each, which begins with the path of the field. The types of all fields must be right."""
    given = dig(spec, "components", "pilot", "k8s", "service", default={})
    yield from _service(given, f"{path}.components.pilot.k8s.service", control_plane.PORTS)
    for name, kind in options.COMPONENTS.items():
        if issubclass(kind, options.ServiceValues):
            yield from _service(k8s.declared(dig(spec, "values", *name.split("."), default={}), kind),
                                f"{path}.values.{name}")  # fmt: skip
    if dig(spec, "components", "cni", "enabled"):
        yield from _namespace(dig(spec, "components", "cni", default={}), f"{path}.components.cni")
    seen: set[tuple[str, str]] = set()
    for kind_ in KINDS:
        for gateway in dig(spec, "components", kind_, default=[]):
            if gateway.get("enabled"):
                at = f"{path}.components.{kind_}[name:{gateway['name']}]"
                yield from _gateway(gateway, at)
                here = (str(gateway.get("namespace") or NAMESPACE), str(gateway["name"]))
                if here in seen:
                    yield f"{at}: another gateway of namespace {here[0]} has the same name"
                seen.add(here)


def _gateway(gateway: Json, at: str) -> Iterator[str]:
    name = str(gateway["name"])
    if not _NAME.fullmatch(name):
        yield f'{at}.name: "{name}" is not the name of a Service; use at most 63 lower-case letters, digits and hyphens'
    yield from _namespace(gateway, at)
    yield from _service(dig(gateway, "k8s", "service", default={}), f"{at}.k8s.service")


def _namespace(component: Json, at: str) -> Iterator[str]:
    if (name := str(component.get("namespace") or "")) and not _LABEL.fullmatch(name):
        yield f'{at}.namespace: "{name}" is not the name of a namespace'


def _service(service: Json, at: str, own: Sequence[Json] = ()) -> Iterator[str]:
    """``own``: the ports that the Service has anyway."""
    for field, allowed in _CHOICES.items():
        given = service.get(field) or ()
        for value in (given,) if isinstance(given, str) else given:
            if value not in allowed:
                yield f'{at}.{field}: "{value}" is not {" or ".join(allowed)}'
    yield from _ports(service.get("ports") or [], f"{at}.ports", own)


def _ports(given: list[Json], at: str, own: Sequence[Json]) -> Iterator[str]:
    merged = k8s.ports(own, given)
    for i, port in enumerate(given):
        for name in ("port", "targetPort", "nodePort"):
            number = port.get(name)
            if isinstance(number, int) and not 0 < number < 65536:
                yield f"{at}[{i}].{name}: {number} is not a port (1 to 65535)"
        if (protocol := port.get("protocol")) and protocol not in _PROTOCOLS:
            yield f'{at}[{i}].protocol: "{protocol}" is not {" or ".join(_PROTOCOLS)}'
        if (named := port.get("name")) and not _LABEL.fullmatch(named):
            yield f'{at}[{i}].name: "{named}" is not the name of a port'
        if len(merged) > 1 and not merged[k8s.number(port)].get("name"):
            yield f"{at}[{i}]: of several ports, each needs a name"
    numbers = Counter("/".join(map(str, k8s.number(p))) for p in given)
    names = Counter(f'"{p["name"]}"' for p in merged.values() if p.get("name"))
    for what, counted in (("number", numbers), ("name", names)):
        for value, times in counted.items():
            if times > 1:
                yield f"{at}: {times} ports have the {what} {value}" + (
                    ", with those that are there anyway" if own else ""
                )
