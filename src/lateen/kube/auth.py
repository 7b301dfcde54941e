"""How a client authenticates: tokens, files, basic auth, plugins, impersonation.

Source: https://kubernetes.io/docs/reference/access-authn-authz/authentication/#client-go-credential-plugins
"""

from __future__ import annotations

import asyncio
import base64
import os
import ssl
import sys
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

from lateen.kit import jsons, times
from lateen.kit.jsons import Json
from lateen.kit.memory_file import memory_file

API_GROUP = "client.authentication.k8s.io"
VERSIONS = (f"{API_GROUP}/v1", f"{API_GROUP}/v1beta1")
PLUGIN_S = 60.0
"""Seconds that a plugin may take; some open a browser."""


class AuthError(ValueError):
    """The user cannot be authenticated; the message says why and what to do."""


Headers = list[tuple[str, str]]
"""One may be there several times."""


class Auth(Protocol):
    async def headers(self) -> Headers:
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
    more: Headers = field(default_factory=list)
    """Headers other than ``Authorization``: impersonation."""

    async def headers(self) -> Headers:
        if self.username:
            pair = base64.b64encode(f"{self.username}:{self.password}".encode()).decode()
            return [("Authorization", f"Basic {pair}"), *self.more]
        token = self.token
        if self.token_file:
            try:
                token = Path(self.token_file).read_text().strip()
            except OSError as e:
                raise AuthError(f"the token file {self.token_file} cannot be read: {e.strerror}") from None
        return _bearer(token) + self.more

    def refused(self) -> bool:
        return False


def _bearer(token: str) -> Headers:
    return [("Authorization", f"Bearer {token}")] if token else []


class Plugin:
    """A command that prints an ExecCredential, as used in the kubeconfigs of cloud providers."""

    def __init__(self, spec: Json, folder: Path, cluster: Json, context: ssl.SSLContext, more: Headers) -> None:
        """``folder``: of the kubeconfig, which a command with a slash is relative to. ``cluster``: as an ExecCredential
        has it. ``context`` receives the plugin's client certificate, if it prints one. Raises AuthError."""
        self._spec, self._cluster, self._context, self._more = spec, cluster, context, more
        self._version = str(spec.get("apiVersion"))
        if self._version not in VERSIONS:
            raise AuthError(
                f"user.exec has apiVersion {self._version}; {' and '.join(VERSIONS)} are supported: "
                "update the plugin's kubeconfig (aws eks update-kubeconfig, gcloud … get-credentials)"
            )
        command, mode = spec.get("command"), str(spec.get("interactiveMode") or "IfAvailable")
        if not isinstance(command, str) or not command:
            raise AuthError("user.exec has no command")
        if mode not in ("Never", "IfAvailable", "Always"):
            raise AuthError(f"user.exec has interactiveMode {mode}; expected Never, IfAvailable or Always")
        self._command, self._mode = str(folder / command) if "/" in command else command, mode
        self._token = ""
        self._until: datetime | None = None
        self._asked = False
        self._lock = asyncio.Lock()

    async def headers(self) -> Headers:
        async with self._lock:
            if not self._asked or (self._until is not None and times.now() >= self._until):
                await self._ask()
        return _bearer(self._token) + self._more

    def refused(self) -> bool:
        again = self._asked
        self._asked = False
        return again

    async def _ask(self) -> None:
        command = [self._command, *(str(a) for a in self._spec.get("args") or [])]
        asks = self._mode != "Never" and sys.stdin is not None and sys.stdin.isatty()
        if self._mode == "Always" and not asks:
            raise AuthError(
                f'the kubeconfig\'s command "{command[0]}" needs a terminal to ask at (interactiveMode: Always); '
                "there is none here"
            )
        info: Json = {"apiVersion": self._version, "kind": "ExecCredential", "spec": {"interactive": asks}}
        if self._spec.get("provideClusterInfo"):
            info["spec"]["cluster"] = self._cluster
        env = os.environ | {str(e.get("name")): str(e.get("value") or "") for e in self._spec.get("env") or []}
        env["KUBERNETES_EXEC_INFO"] = jsons.dumps(info).decode()
        try:
            process = await asyncio.create_subprocess_exec(
                *command, stdin=None if asks else asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, env=env
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
            until = status.get("expirationTimestamp")
            self._until = times.moment(until)
            self._token = str(status.get("token") or "")
            certificate, key = status.get("clientCertificateData"), status.get("clientKeyData")
        except (ValueError, KeyError, TypeError, AttributeError):
            raise AuthError(f'the kubeconfig\'s command "{command}" printed no ExecCredential with a status') from None
        if until and self._until is None:
            says = f'the kubeconfig\'s command "{command}" says when its credentials expire, but no time: {until}'
            raise AuthError(says)
        if certificate and key:
            load_pair(self._context, str(certificate).encode(), str(key).encode())
        elif not self._token:
            raise AuthError(f'the kubeconfig\'s command "{command}" printed neither a token nor a client certificate')
        self._asked = True


def load_pair(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    """Load a PEM certificate and key into a TLS context. Raises ssl.SSLError."""
    with memory_file(certificate + b"\n" + key) as path:  # the ssl module can load keys only from files
        context.load_cert_chain(path)


def impersonation(user: Json) -> Headers:
    """The headers for ``as``, ``as-uid``, ``as-groups`` and ``as-user-extra``.

    Source: https://kubernetes.io/docs/reference/access-authn-authz/authentication/#user-impersonation
    """
    out = [
        (f"Impersonate-{name}", str(user[key])) for name, key in (("User", "as"), ("Uid", "as-uid")) if user.get(key)
    ]
    out += [("Impersonate-Group", str(g)) for g in user.get("as-groups") or []]
    for key, values in (user.get("as-user-extra") or {}).items():
        out += [(f"Impersonate-Extra-{quote(str(key), safe=_IN_HEADERS)}", str(v)) for v in values]
    if out and not user.get("as"):
        raise AuthError("a user with as-uid, as-groups or as-user-extra needs as: whom to impersonate")
    return out


_IN_HEADERS = "!#$&'*+^`|"
"""What names of headers may contain besides letters, digits, and what ``quote`` leaves alone."""
