"""Clients from a kubeconfig file or from inside a pod."""

from __future__ import annotations

import base64
import os
import ssl
import tempfile
from pathlib import Path

from lateen.kit import yamldoc
from lateen.kit.jsons import Json
from lateen.kube.client import HttpClient

TOKEN_DIR = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class ConfigError(ValueError):
    """The kubeconfig cannot be used; the message says why."""


def in_cluster() -> HttpClient:
    """With the pod's service account. Raises ConfigError outside a pod."""
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    if not host:
        raise ConfigError("this process does not run in a pod (KUBERNETES_SERVICE_HOST is not set)")
    context = ssl.create_default_context(cafile=str(TOKEN_DIR / "ca.crt"))
    return HttpClient(f"https://{host}:{port}", context, token_file=str(TOKEN_DIR / "token"))


def from_file(path: Path, context_name: str = "") -> HttpClient:
    """Raises ConfigError for a file that is missing, malformed or incomplete."""
    try:
        config = yamldoc.load(path.read_text())
        name = context_name or config["current-context"]
        chosen = _named(config, "contexts", name)["context"]
        cluster = _named(config, "clusters", chosen["cluster"])["cluster"]
        user = _named(config, "users", chosen["user"]).get("user") or {}
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (yamldoc.YamlError, KeyError, TypeError) as e:
        raise ConfigError(f"{path}: {e if isinstance(e, yamldoc.YamlError) else f'{e} is missing'}") from e
    try:
        return _client(cluster, user)
    except (ssl.SSLError, OSError, ValueError) as e:
        raise ConfigError(f"{path}: its certificates cannot be used: {e}") from e


def namespace_of(path: Path, context_name: str = "") -> str:
    """The namespace that a context stands in; ``default`` where it names none or cannot be read."""
    try:
        config = yamldoc.load(path.read_text())
        chosen = _named(config, "contexts", context_name or config["current-context"])["context"]
        return str(chosen.get("namespace") or "default")
    except (OSError, yamldoc.YamlError, KeyError, TypeError, ConfigError):
        return "default"


def _client(cluster: Json, user: Json) -> HttpClient:
    ca = _material(cluster, "certificate-authority")
    context = ssl.create_default_context(cadata=ca.decode() if ca else None)
    if cluster.get("insecure-skip-tls-verify"):
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    certificate, key = _material(user, "client-certificate"), _material(user, "client-key")
    if certificate and key:
        with tempfile.NamedTemporaryFile() as pair:  # the ssl module loads keys from files only; mode 0600
            pair.write(certificate + b"\n" + key)
            pair.flush()
            context.load_cert_chain(pair.name)
    return HttpClient(cluster["server"], context, token_file=user.get("tokenFile", ""), token=user.get("token", ""))


def _material(section: Json, key: str) -> bytes | None:
    if data := section.get(f"{key}-data"):
        return base64.b64decode(data)
    return Path(section[key]).read_bytes() if section.get(key) else None


def _named(config: Json, section: str, name: str) -> Json:
    for entry in config.get(section) or []:
        if entry["name"] == name:
            return dict(entry)
    raise ConfigError(f'there is no "{name}" in its {section}')
