"""What Kubernetes would refuse of an installation's gateways and Services, said before anything is changed."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from lateen.install.objects import NAMESPACE
from lateen.kit.jsons import Json, dig

KINDS = ("ingressGateways", "egressGateways")
_NAME = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
"""RFC 1035, section 2.3.1, in lower case: the name of a Service."""
_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_TYPES = ("ClusterIP", "NodePort", "LoadBalancer")


def problems(spec: Json, path: str = "spec") -> Iterator[str]:
    """One sentence each, which begins with the path of the field. The types of all fields must be right."""
    yield from _service(dig(spec, "components", "pilot", "k8s", "service", default={}), f"{path}.components.pilot")
    seen: set[tuple[str, str]] = set()
    for kind in KINDS:
        for gateway in dig(spec, "components", kind, default=[]):
            if gateway.get("enabled"):
                at = f"{path}.components.{kind}[name:{gateway['name']}]"
                yield from _one(gateway, at)
                here = (str(gateway.get("namespace") or NAMESPACE), str(gateway["name"]))
                if here in seen:
                    yield f"{at}: another gateway of namespace {here[0]} has the same name"
                seen.add(here)


def _one(gateway: Json, at: str) -> Iterator[str]:
    name, namespace = str(gateway["name"]), str(gateway.get("namespace") or "")
    if not _NAME.fullmatch(name):
        yield f'{at}.name: "{name}" is not the name of a Service; use at most 63 lower-case letters, digits and hyphens'
    if namespace and not _NAMESPACE.fullmatch(namespace):
        yield f'{at}.namespace: "{namespace}" is not the name of a namespace'
    yield from _service(dig(gateway, "k8s", "service", default={}), at)


def _service(service: Json, at: str) -> Iterator[str]:
    if (kind := service.get("type")) and kind not in _TYPES:
        yield f'{at}.k8s.service.type: "{kind}" is not {" or ".join(_TYPES)}'
    yield from _ports(service.get("ports") or [], f"{at}.k8s.service.ports")


def _ports(ports: list[Json], at: str) -> Iterator[str]:
    for i, port in enumerate(ports):
        for name in ("port", "targetPort", "nodePort"):
            number = port.get(name)
            if isinstance(number, int) and not 0 < number < 65536:
                yield f"{at}[{i}].{name}: {number} is not a port (1 to 65535)"
        if len(ports) > 1 and not port.get("name"):
            yield f"{at}[{i}]: of several ports, each needs a name"
    for what, value, times in _twice(ports):
        yield f"{at}: {times} ports have the {what} {value}"


def _twice(ports: list[Json]) -> Iterator[tuple[str, str, int]]:
    numbers = Counter(f"{p.get('port')}/{p.get('protocol') or 'TCP'}" for p in ports)
    names = Counter(f'"{p["name"]}"' for p in ports if p.get("name"))
    for what, counted in (("number", numbers), ("name", names)):
        yield from ((what, value, times) for value, times in counted.items() if times > 1)
