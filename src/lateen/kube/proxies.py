"""Which proxy leads to a Kubernetes API, by the environment: what curl, kubectl and every other program in Go goes by.

Source: https://pkg.go.dev/golang.org/x/net/http/httpproxy
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from urllib.parse import urlsplit

from lateen.kit.digits import digits
from lateen.kube.configfiles import ConfigError

SCHEMES = ("http", "https")


def of_environment(url: str, environment: Mapping[str, str] = os.environ) -> str:
    """The proxy's URL; empty for none. Raises ConfigError."""
    at = urlsplit(url)
    name = "HTTPS_PROXY" if at.scheme == "https" else "HTTP_PROXY"
    found = _either(environment, name)
    port = at.port or (443 if at.scheme == "https" else 80)
    if not found or not at.hostname or _direct(at.hostname, port, _either(environment, "NO_PROXY")):
        return ""
    proxy = found if "://" in found else f"http://{found}"
    if urlsplit(proxy).scheme not in SCHEMES or not urlsplit(proxy).hostname:
        raise ConfigError(
            f"{name} is {_without_password(found)}; only http and https proxies are supported: change it, or name the "
            f"API server in NO_PROXY ({at.hostname})"
        )
    return proxy


def _either(environment: Mapping[str, str], name: str) -> str:
    return environment.get(name) or environment.get(name.lower()) or ""


def _without_password(proxy: str) -> str:
    return proxy.rpartition("@")[2]


def _direct(host: str, port: int, exempt: str) -> bool:
    """Whether a host is reached without the proxy: this machine, and what NO_PROXY names: addresses, their ranges,
    domains with everything below them (``.example.com``: only what is below), each also with a port, or ``*``."""
    address = _address(host)
    if host == "localhost" or (address is not None and address.is_loopback):
        return True
    return any(_named(host.rstrip(".").lower(), address, port, e.strip().lower()) for e in exempt.split(","))


def _named(host: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address | None, port: int, entry: str) -> bool:
    if entry in ("", "*"):
        return entry == "*"
    if "/" in entry:
        try:
            return address is not None and address in ipaddress.ip_network(entry, strict=False)
        except ValueError:
            return False
    name, colon, number = entry.rpartition(":")
    if colon and digits(number) and (":" not in name or name.endswith("]")):
        if int(number) != port:
            return False
        entry = name
    entry = entry.strip("[]")
    if (exact := _address(entry)) is not None:
        return exact == address
    below = entry.removeprefix("*")
    return host == below or host.endswith(below if below.startswith(".") else f".{below}")


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
