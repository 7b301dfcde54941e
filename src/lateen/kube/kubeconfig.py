"""Clients from kubeconfig files or from inside a pod.

Source: https://kubernetes.io/docs/reference/config-api/kubeconfig.v1/. Every field is honoured or rejected by name.
"""

from __future__ import annotations

import base64
import os
import ssl
from pathlib import Path
from urllib.parse import urlsplit

from lateen.kit import yamldoc
from lateen.kit.jsons import Json
from lateen.kube.auth import Auth, AuthError, Fixed, Plugin, impersonation, load_pair
from lateen.kube.client import HttpClient

TOKEN_DIR = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_CLUSTER = {
    "server",
    "certificate-authority",
    "certificate-authority-data",
    "insecure-skip-tls-verify",
    "tls-server-name",
    "proxy-url",
    "disable-compression",
    "extensions",
}
_USER = {
    "token",
    "tokenFile",
    "client-certificate",
    "client-certificate-data",
    "client-key",
    "client-key-data",
    "username",
    "password",
    "exec",
    "as",
    "as-uid",
    "as-groups",
    "as-user-extra",
    "extensions",
}


class ConfigError(ValueError):
    """The kubeconfig cannot be used; the message says why."""


def in_cluster() -> HttpClient:
    """A client with the pod's service account. Raises ConfigError outside of a pod."""
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    if not host:
        raise ConfigError("this process is not running in a pod (KUBERNETES_SERVICE_HOST is not set)")
    context = ssl.create_default_context(cafile=str(TOKEN_DIR / "ca.crt"))
    return HttpClient(f"https://{host}:{port}", context, Fixed(token_file=str(TOKEN_DIR / "token")))


def from_file(path: Path, context_name: str = "") -> HttpClient:
    """Raises ConfigError for a file that is missing, malformed or incomplete, or that uses something unsupported."""
    config = _load(path)
    name = context_name or str(config.get("current-context") or "")
    if not name:
        raise ConfigError(f"{path}: it has no current-context; choose one with --context")
    chosen = _named(path, config, "contexts", "context", name)
    cluster = _named(path, config, "clusters", "cluster", str(chosen.get("cluster")))
    user = _named(path, config, "users", "user", str(chosen["user"])) if chosen.get("user") else {}
    try:
        return _client(cluster, user, path.parent)
    except (ssl.SSLError, OSError) as e:
        raise ConfigError(f"{path}: its certificates cannot be used: {e}") from e
    except ValueError as e:
        raise ConfigError(f"{path}: {e}") from e


def namespace_of(path: Path, context_name: str = "") -> str:
    """The namespace of a context; ``default`` if it names none or cannot be read."""
    try:
        config = _load(path)
        chosen = _named(path, config, "contexts", "context", context_name or str(config.get("current-context")))
        return str(chosen.get("namespace") or "default")
    except ConfigError:
        return "default"


def _load(path: Path) -> Json:
    try:
        config = yamldoc.load(path.read_text())
    except OSError as e:
        raise ConfigError(f"{path}: {'no such file' if isinstance(e, FileNotFoundError) else e.strerror}") from None
    except (yamldoc.YamlError, UnicodeDecodeError) as e:
        raise ConfigError(f"{path}: {e}") from e
    if not isinstance(config, dict):
        raise ConfigError(f"{path}: it is not a kubeconfig")
    return config


def _named(path: Path, config: Json, section: str, inner: str, name: str) -> Json:
    entries = [e for e in config.get(section) or [] if isinstance(e, dict)]
    for entry in entries:
        if entry.get("name") == name:
            found = entry.get(inner) or {}
            if not isinstance(found, dict):
                break
            return found
    known = ", ".join(str(e.get("name")) for e in entries)
    raise ConfigError(f'{path}: there is no {inner} "{name}"; there are: {known or "none"}')


def _client(cluster: Json, user: Json, folder: Path) -> HttpClient:
    _known(cluster, _CLUSTER, "cluster")
    if "auth-provider" in user:
        raise ConfigError(
            "user.auth-provider is not supported; Kubernetes has removed it: use a plugin (user.exec), which the "
            "cloud's command writes (gcloud container clusters get-credentials, kubelogin)"
        )
    _known(user, _USER, "user")
    server = str(cluster.get("server") or "")
    if urlsplit(server).scheme not in ("https", "http") or not urlsplit(server).hostname:
        raise ConfigError(f'cluster.server is "{server}"; expected an address such as https://127.0.0.1:6443')
    ca = _material(cluster, "certificate-authority", folder)
    context = ssl.create_default_context(cadata=ca.decode() if ca else None)
    if cluster.get("insecure-skip-tls-verify"):
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    certificate, key = _material(user, "client-certificate", folder), _material(user, "client-key", folder)
    if bool(certificate) != bool(key):
        raise ConfigError("a user needs both client-certificate and client-key")
    if certificate and key:
        load_pair(context, certificate, key)
    proxy = str(cluster.get("proxy-url") or "")
    if proxy and urlsplit(proxy).scheme not in ("http", "https"):
        raise ConfigError(f'cluster.proxy-url is "{proxy}"; only http and https proxies are supported')
    auth = _auth(user, cluster, context, folder)
    return HttpClient(server, context, auth, proxy=proxy, tls_name=str(cluster.get("tls-server-name") or ""))


def _auth(user: Json, cluster: Json, context: ssl.SSLContext, folder: Path) -> Auth:
    more = impersonation(user)
    if user.get("exec"):
        return Plugin(user["exec"], cluster, context, more)
    file = str(folder / user["tokenFile"]) if user.get("tokenFile") else ""
    return Fixed(
        str(user.get("token") or ""), file, str(user.get("username") or ""), str(user.get("password") or ""), more
    )


def _known(section: Json, names: set[str], what: str) -> None:
    for name in section:
        if name not in names:
            raise ConfigError(f"{what}.{name} is not supported; remove it or use another context")


def _material(section: Json, key: str, folder: Path) -> bytes | None:
    """From the data, or from the file, whose path is relative to the kubeconfig's folder."""
    if data := section.get(f"{key}-data"):
        return base64.b64decode(data)
    return (folder / section[key]).read_bytes() if section.get(key) else None


__all__ = ["AuthError", "ConfigError", "from_file", "in_cluster", "namespace_of"]
