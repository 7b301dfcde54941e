"""The pod's own files in /etc: its name and addresses, and where it asks for names of others."""

from __future__ import annotations

from lateen.cluster.network import plan
from lateen.kit.jsons import Json


def etc_files(pod: Json, address: str) -> dict[str, str]:
    """The pod's own files in /etc."""
    namespace = pod["metadata"]["namespace"]
    host, subdomain = hostname(pod), pod["spec"].get("subdomain")
    full = f"{host}.{subdomain}.{namespace}.svc.{plan.DOMAIN}\t{host}" if subdomain else host
    hosts = f"127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n{address}\t{full}\n"
    for alias in pod["spec"].get("hostAliases") or []:
        hosts += f"{alias['ip']}\t{' '.join(alias.get('hostnames') or [])}\n"
    return {"hosts": hosts, "hostname": f"{host}\n", "resolv.conf": resolv_conf(pod, namespace)}


def hostname(pod: Json) -> str:
    return str(pod["spec"].get("hostname") or pod["metadata"]["name"])[:63].rstrip("-.")


def resolv_conf(pod: Json, namespace: str) -> str:
    """resolv.conf: the cluster's DNS plus the pod's dnsConfig; with dnsPolicy None, only the latter."""
    config = pod["spec"].get("dnsConfig") or {}
    own = pod["spec"].get("dnsPolicy") == "None"
    servers = [] if own else [plan.DNS_IP]
    searches = [] if own else [f"{namespace}.svc.{plan.DOMAIN}", f"svc.{plan.DOMAIN}", plan.DOMAIN]
    options = {} if own else {"ndots": "5"}
    servers += [str(s) for s in config.get("nameservers") or []]
    searches += [str(s) for s in config.get("searches") or []]
    options |= {str(o["name"]): str(o.get("value") or "") for o in config.get("options") or []}
    lines = [f"search {' '.join(dict.fromkeys(searches))}"] if searches else []
    lines += [f"nameserver {s}" for s in dict.fromkeys(servers)][:3]
    if options:
        lines.append("options " + " ".join(f"{k}:{v}" if v else k for k, v in options.items()))
    return "\n".join(" ".join(line.split()) for line in lines) + "\n"
