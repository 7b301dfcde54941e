"""The pod's own files in /etc: its name and addresses, and where it asks for names of others."""

from __future__ import annotations

import errno

from lateen.cluster.network import plan
from lateen.kit.jsons import Json


def etc_files(pod: Json, address: str) -> dict[str, str]:
    """The pod's own files in /etc."""
    namespace = pod["metadata"]["namespace"]
    host, full = _name(pod), _full_name(pod)
    full = f"{full}\t{host}" if full != host else host
    hosts = f"127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n{address}\t{full}\n"
    for alias in pod["spec"].get("hostAliases") or []:
        hosts += f"{alias['ip']}\t{' '.join(alias.get('hostnames') or [])}\n"
    return {"hosts": hosts, "hostname": f"{hostname(pod)}\n", "resolv.conf": resolv_conf(pod, namespace)}


LONGEST = 64
"""Of a name that the kernel takes."""


def hostname(pod: Json) -> str:
    """The name that programs in the pod are told. Raises OSError where it is too long."""
    name = _full_name(pod) if pod["spec"].get("setHostnameAsFQDN") else _name(pod)
    if len(name) > LONGEST:
        says = f"FQDN {name} is too long ({LONGEST} characters is the max, {len(name)} characters requested)"
        raise OSError(errno.ENAMETOOLONG, f"failed to construct FQDN from pod hostname and cluster domain, {says}")
    return name


def _name(pod: Json) -> str:
    return str(pod["spec"].get("hostname") or pod["metadata"]["name"])[:63].rstrip("-.")


def _full_name(pod: Json) -> str:
    """With the subdomain, if the pod is in one."""
    subdomain, namespace = pod["spec"].get("subdomain"), pod["metadata"]["namespace"]
    return f"{_name(pod)}.{subdomain}.{namespace}.svc.{plan.DOMAIN}" if subdomain else _name(pod)


def resolv_conf(pod: Json, namespace: str) -> str:
    """resolv.conf: the cluster's DNS plus the pod's dnsConfig; with dnsPolicy None, only the latter, and with Default,
    no short names of the cluster."""
    config, policy = pod["spec"].get("dnsConfig") or {}, pod["spec"].get("dnsPolicy")
    short = policy not in ("None", "Default")
    servers = [] if policy == "None" else [plan.DNS_IP]
    searches = [f"{namespace}.svc.{plan.DOMAIN}", f"svc.{plan.DOMAIN}", plan.DOMAIN] if short else []
    options = {"ndots": "5"} if short else {}
    servers += [str(s) for s in config.get("nameservers") or []]
    searches += [str(s) for s in config.get("searches") or []]
    options |= {str(o["name"]): str(o.get("value") or "") for o in config.get("options") or []}
    lines = [f"search {' '.join(dict.fromkeys(searches))}"] if searches else []
    lines += [f"nameserver {s}" for s in dict.fromkeys(servers)][:3]
    if options:
        lines.append("options " + " ".join(f"{k}:{v}" if v else k for k, v in options.items()))
    return "\n".join(" ".join(line.split()) for line in lines) + "\n"
