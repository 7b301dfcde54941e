"""Services, Endpoints, EndpointSlices and Ingresses: their addresses and ports become NAT rules of the node."""

from __future__ import annotations

import ipaddress
from typing import Any

from lateen.cluster.apiserver.validation import meta, names, pods
from lateen.cluster.apiserver.validation.containers import PROTOCOLS
from lateen.cluster.apiserver.validation.fields import Causes, bad, denied, duplicate, immutable, required, unsupported
from lateen.cluster.network import plan
from lateen.kit.digits import digits
from lateen.kit.jsons import Json

TYPES = ("ClusterIP", "NodePort", "LoadBalancer", "ExternalName")
DAY_S = 86400
_FAMILIES = ("IPv4", "IPv6")
_STACKS = ("SingleStack", "PreferDualStack", "RequireDualStack")
OWN = (plan.SERVICE_NET, plan.POD_NET)
_SPECIAL = {
    "0.0.0.0/32": "may not be unspecified (0.0.0.0 or ::)",
    "127.0.0.0/8": "may not be in the loopback range (127.0.0.0/8, ::1/128)",
    "169.254.0.0/16": "may not be in the link-local range (169.254.0.0/16, fe80::/10)",
    "224.0.0.0/24": "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)",
}
_DISTRIBUTIONS = ("PreferClose", "PreferSameNode", "PreferSameZone")
OF_ADDRESSES = ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy")
"""Fields of a Service that are about its own addresses; an ExternalName has none."""
NODE_PORTS = range(30000, 32768)
_PATH_TYPES = ("Exact", "Prefix", "ImplementationSpecific")


def service(spec: Json) -> Causes:
    kind = spec.get("type", "ClusterIP")
    out = _service_ports(spec.get("ports") or [], kind)
    if kind not in TYPES:
        out.append(unsupported("spec.type", kind, TYPES))
    if spec.get("sessionAffinity", "None") not in ("None", "ClientIP"):
        out.append(unsupported("spec.sessionAffinity", spec["sessionAffinity"], ("ClientIP", "None")))
    seconds = ((spec.get("sessionAffinityConfig") or {}).get("clientIP") or {}).get("timeoutSeconds", 1)
    if not 0 < seconds <= DAY_S:
        says = f"must be greater than 0 and less than {DAY_S}"
        out.append(bad("spec.sessionAffinityConfig.clientIP.timeoutSeconds", seconds, says))
    for key in ("externalTrafficPolicy", "internalTrafficPolicy"):
        reached = key == "internalTrafficPolicy" or kind in ("NodePort", "LoadBalancer")
        if reached and spec.get(key, "Cluster") not in ("Cluster", "Local"):
            out.append(unsupported(f"spec.{key}", spec[key], ("Cluster", "Local")))
    if spec.get("trafficDistribution") not in (None, *_DISTRIBUTIONS):
        out.append(unsupported("spec.trafficDistribution", spec["trafficDistribution"], _DISTRIBUTIONS))
    if kind != "LoadBalancer" and spec.get("allocateLoadBalancerNodePorts") is not None:
        says = "may only be used when `type` is 'LoadBalancer'"
        out.append(denied("spec.allocateLoadBalancerNodePorts", says))
    out += meta.labels(spec.get("selector") or {}, "spec.selector")
    out += _cluster_ips(spec, kind)
    for i, address in enumerate(spec.get("externalIPs") or []):
        out += pods.ip(address, f"spec.externalIPs[{i}]")
        for net, says in _SPECIAL.items():
            out += [bad(f"spec.externalIPs[{i}]", address, says)] if _lies_in(address, net) else []
        if any(_lies_in(address, net) for net in OWN):
            says = "is an address of the cluster's own networks, which belong to its pods and services"
            out.append(denied(f"spec.externalIPs[{i}]", says))
    for i, source in enumerate(spec.get("loadBalancerSourceRanges") or []):
        out += cidr(source, f"spec.LoadBalancerSourceRanges[{i}]")
    out += _traffic(spec, kind)
    if kind == "ExternalName":
        name = str(spec.get("externalName") or "").rstrip(".")
        out += (
            [bad("spec.externalName", name, s) for s in names.dns_subdomain(name)]
            if name
            else [required("spec.externalName")]
        )
    elif not spec.get("ports") and spec.get("clusterIP") != "None":
        out.append(required("spec.ports"))
    return out


def _traffic(spec: Json, kind: str) -> Causes:
    """What is only for Services that are reached from outside, and address families."""
    out: Causes = []
    if kind != "LoadBalancer" and spec.get("loadBalancerSourceRanges"):
        out.append(denied("spec.LoadBalancerSourceRanges", "may only be used when `type` is 'LoadBalancer'"))
    if kind != "LoadBalancer" and spec.get("loadBalancerClass"):
        out.append(denied("spec.loadBalancerClass", "may only be used when `type` is 'LoadBalancer'"))
    policy, reached = spec.get("externalTrafficPolicy"), kind in ("NodePort", "LoadBalancer")
    if policy and not reached and not (kind == "ClusterIP" and spec.get("externalIPs")):
        says = "may only be set for externally-accessible services"
        out.append(bad("spec.externalTrafficPolicy", policy, says))
    port = spec.get("healthCheckNodePort")
    if port and not (kind == "LoadBalancer" and policy == "Local"):
        says = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'"
        out.append(bad("spec.healthCheckNodePort", port, says))
    for i, family in enumerate(spec.get("ipFamilies") or []):
        if family not in _FAMILIES:
            out.append(unsupported(f"spec.ipFamilies[{i}]", family, _FAMILIES))
        elif family in (spec["ipFamilies"])[:i]:
            out.append(duplicate(f"spec.ipFamilies[{i}]", family))
        elif family != "IPv4" and kind != "ExternalName":
            out.append(bad(f"spec.ipFamilies[{i}]", family, "not configured on this cluster"))
    if spec.get("ipFamilyPolicy", _STACKS[0]) not in _STACKS:
        out.append(unsupported("spec.ipFamilyPolicy", spec["ipFamilyPolicy"], _STACKS))
    elif spec.get("ipFamilyPolicy") == "RequireDualStack" and kind != "ExternalName":
        says = "this cluster is not configured for dual-stack services"
        out.append(bad("spec.ipFamilyPolicy", "RequireDualStack", says))
    return out


def _cluster_ips(spec: Json, kind: str) -> Causes:
    if kind == "ExternalName":
        # clusterIP is the first of clusterIPs.
        found = sorted({"clusterIPs" if k == "clusterIP" else k for k in OF_ADDRESSES if spec.get(k)})
        return [denied(f"spec.{k}", "may not be set for ExternalName services") for k in found]
    address = spec.get("clusterIP") or ""
    out: Causes = []
    if address == "None":
        if kind in ("NodePort", "LoadBalancer"):
            out.append(bad("spec.clusterIPs[0]", "None", f"may not be set to 'None' for {kind} services"))
    elif address and not _address(address):
        out.append(bad("spec.clusterIPs[0]", address, "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"))
    given = spec.get("clusterIPs") or []
    if given and not address:
        out.append(bad("spec.clusterIPs", given, "must be empty when `clusterIP` is not specified"))
        says = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
        out += [bad(f"spec.clusterIPs[{i}]", a, says) for i, a in enumerate(given) if a != "None" and not _address(a)]
    elif given and given[0] != address:
        out.append(bad("spec.clusterIPs", given, "first value must match `clusterIP`"))
    if len(given) > 1:
        out.append(bad("spec.clusterIPs", given, "may only hold up to 1 value: this cluster has one address family"))
    return out


def _service_ports(ports: list[Json], kind: str) -> Causes:
    out: Causes = []
    seen: set[str] = set()
    pairs: set[tuple[str, int]] = set()
    for i, port in enumerate(ports):
        at, name, number = f"spec.ports[{i}]", str(port.get("name") or ""), port.get("port", 0)
        protocol = port.get("protocol", "TCP")
        if name:
            out += [bad(f"{at}.name", name, s) for s in names.dns_label(name)]
            out += [duplicate(f"{at}.name", name)] if name in seen else []
            seen.add(name)
        elif len(ports) > 1:
            out.append(required(f"{at}.name"))
        out += [bad(f"{at}.port", number, s) for s in names.port_number(number)]
        if protocol not in PROTOCOLS:
            out.append(unsupported(f"{at}.protocol", protocol, PROTOCOLS))
        out += _port_or_name(port.get("targetPort"), f"{at}.targetPort")
        if protocol_ := port.get("appProtocol"):
            out += [bad(f"{at}.appProtocol", protocol_, s) for s in names.qualified(protocol_)]
        if (protocol, number) in pairs:
            out.append(duplicate(at, {"protocol": protocol, "port": number}))
        pairs.add((protocol, number))
        out += _node_port(port.get("nodePort", 0), f"{at}.nodePort", kind)
    return out


def _node_port(port: int, path: str, kind: str) -> Causes:
    if not port:
        return []
    if kind not in ("NodePort", "LoadBalancer"):
        return [denied(path, f"may not be used when `type` is '{kind}'")]
    if port in NODE_PORTS:
        return []
    says = "provided port is not in the valid range. The range of valid ports is 30000-32767"
    return [bad(path, port, says)]


def _port_or_name(port: Any, path: str) -> Causes:
    if port is None:
        return []
    if isinstance(port, str) and not digits(port):
        return [bad(path, port, s) for s in names.port_name(port)]
    return [bad(path, port, s) for s in names.port_number(int(port))]


def endpoints(obj: Json) -> Causes:
    out: Causes = []
    for i, subset in enumerate(obj.get("subsets") or []):
        at = f"subsets[{i}]"
        if not subset.get("addresses") and not subset.get("notReadyAddresses"):
            out.append(required(at, "must specify `addresses` or `notReadyAddresses`"))
        for key in ("addresses", "notReadyAddresses"):
            for j, a in enumerate(subset.get(key) or []):
                out += endpoint_address(str(a.get("ip") or ""), f"{at}.{key}[{j}].ip")
                out += _label(a.get("hostname"), f"{at}.{key}[{j}].hostname")
        ports = subset.get("ports") or []
        for j, port in enumerate(ports):
            where = f"{at}.ports[{j}]"
            if len(ports) > 1 and not port.get("name"):
                out.append(required(f"{where}.name"))
            out += _label(port.get("name"), f"{where}.name")
            out += [bad(f"{where}.port", port.get("port", 0), s) for s in names.port_number(port.get("port", 0))]
            out += _protocol(port, where)
    return out


def endpoint_slice(obj: Json, old: Json | None) -> Causes:
    kind = obj.get("addressType")
    out: Causes = []
    if old is not None and kind != old.get("addressType"):
        return [immutable("addressType", kind)]
    if not kind:
        out.append(required("addressType"))
    elif kind not in ("IPv4", "IPv6", "FQDN"):
        out.append(unsupported("addressType", kind, ("FQDN", "IPv4", "IPv6")))
    for i, e in enumerate(obj.get("endpoints") or []):
        if not e.get("addresses"):
            out.append(required(f"endpoints[{i}].addresses", "must contain at least 1 address"))
        for j, a in enumerate(e.get("addresses") or []):
            path = f"endpoints[{i}].addresses[{j}]"
            out += [bad(path, a, s) for s in names.dns_subdomain(a)] if kind == "FQDN" else endpoint_address(a, path)
            if kind == "IPv6" and ":" not in a:
                out.append(bad(f"endpoints[{i}].addresses", a, "must be an IPv6 address"))
        out += _label(e.get("hostname"), f"endpoints[{i}].hostname")
        if node := e.get("nodeName"):
            out += [bad(f"endpoints[{i}].nodeName", node, s) for s in names.dns_subdomain(node)]
    seen: set[str] = set()
    for i, port in enumerate(obj.get("ports") or []):
        out += _label(port.get("name"), f"ports[{i}].name")
        if (name := str(port.get("name") or "")) in seen:
            out.append(duplicate(f"ports[{i}].name", name))
        seen.add(name)
        if app := port.get("appProtocol"):
            out += [bad(f"ports[{i}].appProtocol", app, s) for s in names.qualified(app)]
        if port.get("port") is not None:
            out += [bad(f"ports[{i}].port", port["port"], s) for s in names.port_number(port["port"])]
        out += _protocol(port, f"ports[{i}]")
    return out


def endpoint_address(value: str, path: str) -> Causes:
    """An address that traffic may be sent to: not one of the local machine or link."""
    found = _address(value)
    if found is None:
        return [bad(path, value, "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)")]
    if found.is_unspecified:
        return [bad(path, value, "may not be unspecified (0.0.0.0 or ::)")]
    if found.is_loopback:
        return [bad(path, value, "may not be in the loopback range (127.0.0.0/8, ::1/128)")]
    if found.is_link_local:
        return [bad(path, value, "may not be in the link-local range (169.254.0.0/16, fe80::/10)")]
    return []


def _address(value: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(value)
    except ValueError:
        return None


def _network(value: str) -> bool:
    try:
        ipaddress.ip_network(value.strip(), strict=False)
        return True
    except ValueError:
        return False


def _label(value: Any, path: str) -> Causes:
    return [bad(path, value, s) for s in names.dns_label(value)] if value else []


def cidr(value: str, path: str) -> Causes:
    says = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"
    return [] if _network(value) else [bad(path, value, says)]


def _protocol(port: Json, path: str) -> Causes:
    value = port.get("protocol", "TCP")
    return [] if value in PROTOCOLS else [unsupported(f"{path}.protocol", value, PROTOCOLS)]


def ingress(spec: Json) -> Causes:
    out: Causes = []
    if not spec.get("rules") and spec.get("defaultBackend") is None:
        out.append(bad("spec", spec, "either `defaultBackend` or `rules` must be specified"))
    if spec.get("defaultBackend") is not None:
        out += _backend(spec["defaultBackend"], "spec.defaultBackend")
    if spec.get("ingressClassName") is not None:
        name = spec["ingressClassName"]
        out += [bad("spec.ingressClassName", name, s) for s in names.dns_subdomain(name)]
    for i, entry in enumerate(spec.get("tls") or []):
        for j, host in enumerate(entry.get("hosts") or []):
            out += _host(host, f"spec.tls[{i}].hosts[{j}]")
        if secret := entry.get("secretName"):
            out += [bad(f"spec.tls[{i}].secretName", secret, s) for s in names.dns_subdomain(secret)]
    for i, rule in enumerate(spec.get("rules") or []):
        at = f"spec.rules[{i}]"
        if rule.get("host"):
            out += _host(rule["host"], f"{at}.host")
        http = rule.get("http")
        if http is not None and not http.get("paths"):
            out.append(required(f"{at}.http.paths"))
        for j, path in enumerate((http or {}).get("paths") or []):
            out += _ingress_path(path, f"{at}.http.paths[{j}]")
    return out


def _host(host: str, path: str) -> Causes:
    if _address(host):
        return [bad(path, host, "must be a DNS name, not an IP address")]
    return [bad(path, host, s) for s in names.wildcard_subdomain(host)]


def _ingress_path(entry: Json, at: str) -> Causes:
    kind, path = entry.get("pathType"), str(entry.get("path") or "")
    out: Causes = []
    if not kind:
        return [required(f"{at}.pathType", "pathType must be specified")]
    if kind not in _PATH_TYPES:
        out.append(unsupported(f"{at}.pathType", kind, _PATH_TYPES))
    if kind in ("Exact", "Prefix"):
        if not path.startswith("/"):
            out.append(bad(f"{at}.path", path, "must be an absolute path"))
        for part in ("//", "/./", "/../", "%2f", "%2F"):
            if part in path:
                out.append(bad(f"{at}.path", path, f"must not contain '{part}'"))
        for part in ("/..", "/."):
            if path.endswith(part):
                out.append(bad(f"{at}.path", path, f"cannot end with '{part}'"))
    elif path and not path.startswith("/"):
        out.append(bad(f"{at}.path", path, "must be an absolute path"))
    return out + _backend(entry.get("backend") or {}, f"{at}.backend")


def _backend(backend: Json, path: str) -> Causes:
    target, resource = backend.get("service"), backend.get("resource")
    if target is not None and resource is not None:
        return [bad(path, "", "cannot set both resource and service backends")]
    if resource is not None:
        lacks = [k for k in ("kind", "name") if not resource.get(k)]
        return [required(f"{path}.resource.{k}", f"{k} is required") for k in lacks]
    if target is None:
        return [bad(path, "", "resource or service backend is required")]
    name, port = str(target.get("name") or ""), target.get("port") or {}
    where = f"{path}.service"
    out: Causes = (
        [bad(f"{where}.name", name, s) for s in names.dns_1035_label(name)] if name else [required(f"{where}.name")]
    )
    if port.get("name") and port.get("number"):
        out.append(bad(path, "", "cannot set both port name & port number"))
    elif port.get("name"):
        out += [bad(f"{where}.port.name", port["name"], s) for s in names.port_name(port["name"])]
    elif port.get("number"):
        out += [bad(f"{where}.port.number", port["number"], s) for s in names.port_number(port["number"])]
    else:
        out.append(required(path, "port name or number is required"))
    return out


def _lies_in(address: object, network: str) -> bool:
    try:
        return ipaddress.ip_address(str(address)) in ipaddress.ip_network(network)
    except ValueError:
        return False
