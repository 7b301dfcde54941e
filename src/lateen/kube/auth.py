"""How a client authenticates: tokens, files, basic auth, plugins, impersonation.

Source: https://kubernetes.io/docs/reference/access-authn-authz/authentication/#client-go-credential-plugins
"""

from __future__ import annotations

import asyncio
import base64
import os
import ssl
import tempfile
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Protocol

from lateen.kit import jsons, times
from lateen.kit.jsons import Json, dig

API_GROUP = "client.authentication.k8s.io"
VERSIONS = (f"{API_GROUP}/v1", f"{API_GROUP}/v1beta1")
PLUGIN_S = 60.0
"""Seconds that a plugin may take; some open a browser."""


class AuthError(ValueError):
    """The user cannot be authenticated; the message says why and what to do."""


class Auth(Protocol):
    async def headers(self) -> dict[str, str]:
        """The headers for one request. Raises AuthError."""

    def refused(self) -> bool:
        """Called when the API answered 401; returns whether another attempt makes sense."""


@dataclass
class Fixed:
    """A token, a file with one (read for each request, because kubelets renew it), or a name and a password."""

    token: str = ""
    token_file: str = ""
    username: str = ""
    password: str = ""
    more: dict[str, str] = field(default_factory=dict)
    """Headers other than ``Authorization``: impersonation."""

    async def headers(self) -> dict[str, str]:
        if self.username:
            pair = base64.b64encode(f"{self.username}:{self.password}".encode()).decode()
            return {"Authorization": f"Basic {pair}", **self.more}
        token = self.token
        if self.token_file:
            try:
                token = Path(self.token_file).read_text().strip()
            except OSError as e:
                raise AuthError(f"the token file {self.token_file} cannot be read: {e.strerror}") from None
        return {"Authorization": f"Bearer {token}", **self.more} if token else dict(self.more)

    def refused(self) -> bool:
        return False


class Plugin:
    """A command that prints an ExecCredential, as used in the kubeconfigs of cloud providers."""

    def __init__(self, spec: Json, cluster: Json, context: ssl.SSLContext, more: dict[str, str]) -> None:
        """``context`` receives the plugin's client certificate, if it prints one. Raises AuthError."""
        self._spec, self._cluster, self._context, self._more = spec, cluster, context, more
        self._version = str(spec.get("apiVersion"))
        if self._version not in VERSIONS:
            raise AuthError(
                f"user.exec has apiVersion {self._version}; {' and '.join(VERSIONS)} are supported: "
                "update the plugin's kubeconfig (aws eks update-kubeconfig, gcloud … get-credentials)"
            )
        if not isinstance(spec.get("command"), str):
            raise AuthError("user.exec has no command")
        self._token = ""
        self._until: datetime | None = None
        self._asked = False
        self._lock = asyncio.Lock()

    async def headers(self) -> dict[str, str]:
        async with self._lock:
            if not self._asked or (self._until is not None and times.now() >= self._until):
                await self._ask()
        return {"Authorization": f"Bearer {self._token}", **self._more} if self._token else dict(self._more)

    def refused(self) -> bool:
        again = self._asked
        self._asked = False
        return again

    async def _ask(self) -> None:
        command = [str(self._spec["command"]), *(str(a) for a in self._spec.get("args") or [])]
        info: Json = {"apiVersion": self._version, "kind": "ExecCredential", "spec": {"interactive": False}}
        if self._spec.get("provideClusterInfo"):
            info["spec"]["cluster"] = self._cluster
        env = os.environ | {str(e["name"]): str(e["value"]) for e in self._spec.get("env") or []}
        env["KUBERNETES_EXEC_INFO"] = jsons.dumps(info).decode()
        try:
            process = await asyncio.create_subprocess_exec(
                *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, env=env
            )
        except FileNotFoundError:
            hint = str(self._spec.get("installHint") or "install it, or use another context").strip()
            raise AuthError(
                f'the kubeconfig needs the command "{command[0]}", which is not installed: {hint}'
            ) from None
        except OSError as e:
            raise AuthError(f'the kubeconfig\'s command "{command[0]}" cannot be run: {e.strerror}') from None
        try:
            async with asyncio.timeout(PLUGIN_S):
                out, _ = await process.communicate()
        except TimeoutError:
            process.kill()
            raise AuthError(
                f'the kubeconfig\'s command "{command[0]}" did not answer within {PLUGIN_S:.0f} s'
            ) from None
        if process.returncode:
            raise AuthError(f'the kubeconfig\'s command "{command[0]}" failed with exit code {process.returncode}')
        self._take(command[0], out)

    def _take(self, command: str, out: bytes) -> None:
        try:
            found = jsons.loads(out)
            status = found["status"]
            until = dig(status, "expirationTimestamp")
            self._until = datetime.fromisoformat(str(until)) if until else None
            self._token = str(status.get("token") or "")
            certificate, key = status.get("clientCertificateData"), status.get("clientKeyData")
        except (ValueError, KeyError, TypeError, AttributeError):
            raise AuthError(f'the kubeconfig\'s command "{command}" printed no ExecCredential with a status') from None
        if certificate and key:
            load_pair(self._context, str(certificate).encode(), str(key).encode())
        elif not self._token:
            raise AuthError(f'the kubeconfig\'s command "{command}" printed neither a token nor a client certificate')
        self._asked = True


def load_pair(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    """Load a PEM certificate and key into a TLS context. Raises ssl.SSLError."""
    with tempfile.NamedTemporaryFile() as pair:  # the ssl module can load keys only from files; mode 0600
        pair.write(certificate + b"\n" + key)
        pair.flush()
        context.load_cert_chain(pair.name)


def impersonation(user: Json) -> dict[str, str]:
    """The headers for ``as``, ``as-uid``, ``as-groups``. Raises AuthError for more groups than a header can carry."""
    out = {}
    if user.get("as"):
        out["Impersonate-User"] = str(user["as"])
    if user.get("as-uid"):
        out["Impersonate-Uid"] = str(user["as-uid"])
    groups = user.get("as-groups") or []
    if len(groups) > 1 or user.get("as-user-extra"):
        raise AuthError("several as-groups, or as-user-extra, are not supported; impersonate with one group")
    if groups:
        out["Impersonate-Group"] = str(groups[0])
    return out
