"""NetworkPolicies (follows pkg/apis/networking/validation): what is written becomes rules of the node's kernel."""

from __future__ import annotations

import ipaddress
from typing import Any

from lateen.cluster.apiserver.validation import meta, names
from lateen.cluster.apiserver.validation.containers import PROTOCOLS
from lateen.cluster.apiserver.validation.fields import Causes, bad, denied, required, unsupported
from lateen.kit.jsons import Json

_TYPES = ("Egress", "Ingress")
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def network_policy(spec: Json) -> Causes:
    out = meta.selector(spec.get("podSelector") or {}, "spec.podSelector")
    for direction, key in (("ingress", "from"), ("egress", "to")):
        for i, rule in enumerate(spec.get(direction) or []):
            at = f"spec.{direction}[{i}]"
            for j, port in enumerate(rule.get("ports") or []):
                out += _port(port, f"{at}.ports[{j}]")
            for j, peer in enumerate(rule.get(key) or []):
                out += _peer(peer, f"{at}.{key}[{j}]")
    types = spec.get("policyTypes") or []
    if len(types) > len(_TYPES):
        out.append(bad("spec.policyTypes", types, "may not specify more than two policyTypes"))
    else:
        out += [unsupported(f"spec.policyTypes[{i}]", t, _TYPES) for i, t in enumerate(types) if t not in _TYPES]
    return out


def _port(port: Json, at: str) -> Causes:
    out: Causes = []
    if port.get("protocol", "TCP") not in PROTOCOLS:
        out.append(unsupported(f"{at}.protocol", port["protocol"], PROTOCOLS))
    number, end = port.get("port"), port.get("endPort")
    if isinstance(number, str):
        out += [bad(f"{at}.port", number, s) for s in names.port_name(number)]
    elif number is not None and not 0 < number < 65536:
        out.append(bad(f"{at}.port", number, "must be between 1 and 65535, inclusive"))
    if end is None:
        return out
    if number is None:
        out.append(bad(f"{at}.endPort", end, "`port` must be specified when `endPort` is specified"))
    elif isinstance(number, str):
        out.append(bad(f"{at}.endPort", end, "may not be specified when `port` is non-numeric"))
    else:
        if end < number:
            out.append(bad(f"{at}.endPort", end, "must be greater than or equal to `port`"))
        if not 0 < end < 65536:
            out.append(bad(f"{at}.endPort", end, "must be between 1 and 65535, inclusive"))
    return out


def _peer(peer: Json, at: str) -> Causes:
    out: Causes = []
    chosen = [k for k in ("podSelector", "namespaceSelector") if peer.get(k) is not None]
    for key in chosen:
        out += meta.selector(peer[key], f"{at}.{key}")
    if (block := peer.get("ipBlock")) is not None:
        out += _block(block, f"{at}.ipBlock")
        if chosen:
            out.append(denied(at, "may not specify both ipBlock and another peer"))
    elif not chosen:
        out.append(required(at, "must specify a peer"))
    return out


def _block(block: Json, at: str) -> Causes:
    if not block.get("cidr"):
        return [required(f"{at}.cidr")]
    whole = _network(block["cidr"])
    if whole is None:
        return [_no_network(f"{at}.cidr", block["cidr"])]
    out: Causes = []
    for i, text in enumerate(block.get("except") or []):
        part = _network(text)
        if part is None:
            out.append(_no_network(f"{at}.except[{i}]", text))
        elif part.prefixlen <= whole.prefixlen or part.network_address not in whole:
            out.append(bad(f"{at}.except[{i}]", text, "must be a strict subset of `cidr`"))
    return out


def _no_network(at: str, text: Any) -> Any:
    return bad(at, text, "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)")


def _network(text: Any) -> _Network | None:
    if not isinstance(text, str) or "/" not in text:
        return None
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None
