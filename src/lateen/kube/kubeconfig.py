"""Kubernetes clients from kubeconfig files, or from a pod's service account.

Source: https://kubernetes.io/docs/reference/config-api/kubeconfig.v1/. Every field is honoured or rejected by name.
"""

from __future__ import annotations

import base64
import os
import ssl
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from lateen.kit import tls
from lateen.kit.jsons import Json
from lateen.kube import configfiles, proxies
from lateen.kube.auth import API_GROUP, Auth, AuthError, Fixed, Plugin, impersonation, load_pair
from lateen.kube.client import HttpClient
from lateen.kube.configfiles import ConfigError, Entry

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


def in_cluster() -> HttpClient:
    """A client with the pod's service account. Raises ConfigError outside of a pod."""
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    if not host:
        raise ConfigError("this process is not running in a pod (KUBERNETES_SERVICE_HOST is not set)")
    context = tls.client_context((TOKEN_DIR / "ca.crt").read_text())
    url = f"https://{f'[{host}]' if ':' in host else host}:{port}"
    return HttpClient(url, context, Fixed(token_file=str(TOKEN_DIR / "token")), proxy=proxies.of_environment(url))


def from_files(paths: Sequence[Path], context_name: str = "") -> HttpClient:
    """A client for the files' current context, or for the named one. Raises ConfigError for files that are missing,
    malformed or incomplete, or that use unsupported features."""
    return _of(configfiles.read(paths), context_name)


_FILES_AND_COMMANDS = {
    "tokenFile": "tokenFile",
    "client-certificate": "clientCertificate",
    "client-key": "clientKey",
    "certificate-authority": "certificateAuthority",
    "exec": "exec",
}
"""Fields that a kubeconfig from a third party must not have, because they read local files or run local commands ->
Istio's names for them."""


def from_text(text: str, name: str, allowed: frozenset[str] = frozenset()) -> HttpClient:
    """A client from a third party's kubeconfig; ``name`` identifies it in messages. Files and commands are refused
    unless they are ``allowed`` under Istio's names for them (PILOT_INSECURE_MULTICLUSTER_KUBECONFIG_OPTIONS). Raises
    ConfigError."""
    config = configfiles.of_text(text, name)
    for section in ("clusters", "users"):
        for entry in config.sections[section].values():
            for field, istio in _FILES_AND_COMMANDS.items():
                if entry.value.get(field) and istio not in allowed:
                    raise ConfigError(
                        f"{name}: {section.removesuffix('s')}.{field} is not allowed in the kubeconfig of another "
                        "cluster: "
                        "give the data itself (token, client-certificate-data, certificate-authority-data)"
                    )
    return _of(config, "")


def _of(config: configfiles.Config, context_name: str) -> HttpClient:
    chosen = config.context(context_name)
    cluster = config.entry("clusters", str(chosen.value.get("cluster")))
    user = config.entry("users", str(chosen.value["user"])) if chosen.value.get("user") else None
    where = cluster.path if user is None or user.path == cluster.path else f"{cluster.path}, {user.path}"
    try:
        return _client(cluster, user or Entry({}, cluster.path))
    except (ssl.SSLError, OSError) as e:
        raise ConfigError(f"{where}: its certificates cannot be used: {e}") from e
    except ValueError as e:
        raise ConfigError(f"{where}: {e}") from e
    except (TypeError, AttributeError) as e:
        raise ConfigError(f"{where}: one of its fields has a value of the wrong type: {e}") from e


def from_file(path: Path, context_name: str = "") -> HttpClient:
    """See ``from_files``."""
    return from_files([path], context_name)


def namespace_of(paths: Sequence[Path], context_name: str = "") -> str:
    """The namespace of a context; ``default`` where it names none. Raises ConfigError."""
    return str(configfiles.read(paths).context(context_name).value.get("namespace") or "default")


def _client(of_cluster: Entry, of_user: Entry) -> HttpClient:
    """Raises ValueError, OSError, ssl.SSLError. Paths are relative to the directory of the file that contains them."""
    cluster, user = of_cluster.value, of_user.value
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
    ca = _material(of_cluster, "certificate-authority")
    context = tls.client_context(ca.decode() if ca else None)
    if cluster.get("insecure-skip-tls-verify"):
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    certificate, key = _material(of_user, "client-certificate"), _material(of_user, "client-key")
    if bool(certificate) != bool(key):
        raise ConfigError("a user needs both client-certificate and client-key")
    if certificate and key:
        load_pair(context, certificate, key)
    proxy = str(cluster.get("proxy-url") or "")
    if proxy and urlsplit(proxy).scheme not in proxies.SCHEMES:
        raise ConfigError(f'cluster.proxy-url is "{proxy}"; only http and https proxies are supported')
    auth = _auth(of_user, _for_plugins(cluster, ca), context)
    return HttpClient(
        server,
        context,
        auth,
        proxy=proxy or proxies.of_environment(server),
        tls_name=str(cluster.get("tls-server-name") or ""),
    )


def _for_plugins(cluster: Json, ca: bytes | None) -> Json:
    """The cluster as an ExecCredential has it: the certificates themselves, and what the plugin's own extension says.

    Source: https://kubernetes.io/docs/reference/config-api/client-authentication.v1/#client-authentication-k8s-io-v1-Cluster
    """
    kept = ("server", "tls-server-name", "insecure-skip-tls-verify", "proxy-url", "disable-compression")
    out = {key: cluster[key] for key in kept if cluster.get(key)}
    if ca:
        out["certificate-authority-data"] = base64.b64encode(ca).decode()
    own = [e for e in cluster.get("extensions") or [] if e.get("name") == f"{API_GROUP}/exec"]
    return out | ({"config": own[0].get("extension")} if own else {})


def _auth(of_user: Entry, cluster: Json, context: ssl.SSLContext) -> Auth:
    user = of_user.value
    more = impersonation(user)
    if user.get("exec"):
        return Plugin(user["exec"], of_user.folder, cluster, context, more)
    token_file = _text(user, "tokenFile")
    file = str(of_user.folder / token_file) if token_file else ""
    return Fixed(
        _text(user, "token").strip(), file, str(user.get("username") or ""), str(user.get("password") or ""), more
    )


def _known(section: Json, names: set[str], what: str) -> None:
    for name in section:
        if name not in names:
            raise ConfigError(f"{what}.{name} is not supported; remove it or use another context")


def _material(of: Entry, key: str) -> bytes | None:
    """The inline data, or the contents of the file."""
    if data := _text(of.value, f"{key}-data"):
        return base64.b64decode(data)
    path = _text(of.value, key)
    return (of.folder / path).read_bytes() if path else None


def _text(section: Json, field: str) -> str:
    """A string field; empty if it is missing. Raises ValueError for other types."""
    found = section.get(field) or ""
    if not isinstance(found, str):
        raise ConfigError(f"{field} is not a string; put its value in quotes")
    return found


__all__ = ["AuthError", "ConfigError", "from_file", "from_files", "from_text", "in_cluster", "namespace_of"]
