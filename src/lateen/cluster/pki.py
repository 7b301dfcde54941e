"""The cluster's own certificates, and the kubeconfig of its administrator."""

from __future__ import annotations

import base64
import secrets
from datetime import timedelta
from pathlib import Path

from lateen.cluster.network import plan
from lateen.kit import times
from lateen.kit.files import write_atomic
from lateen.kit.pair import Pair

NAME = "lateen"


class Pki:
    """The cluster's own certificates and the token key, created once."""

    def __init__(self, directory: Path, outside: str = "") -> None:
        """``outside``: an address of the API server besides those that every cluster has."""
        self._outside = outside
        self.ca_file, self.ca_key = directory / "ca.crt", directory / "ca.key"
        self.server, self.server_key = directory / "apiserver.crt", directory / "apiserver.key"
        self.admin, self.admin_key = directory / "admin.crt", directory / "admin.key"
        self._tokens = directory / "tokens.key"
        if not self._tokens.exists():
            self._create()
        self.token_key = self._tokens.read_bytes()

    def _create(self) -> None:
        from lateen.kit import certs  # once in the life of a cluster

        now = times.now()
        ca = certs.authority("lateen-cluster-ca", now)
        names = [
            "localhost",
            "127.0.0.1",
            plan.API_IP,
            plan.NODE_IP,
            *([self._outside] if self._outside else []),
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            f"kubernetes.default.svc.{plan.DOMAIN}",
        ]
        ten_years = timedelta(days=3640)
        server = certs.issue(ca, names, now, ten_years, "kube-apiserver", client=False)
        admin = certs.issue(ca, [], now, ten_years, "kubernetes-admin", ("system:masters",), server=False)
        for path, text in (
            (self.ca_file, ca.certificate),
            (self.ca_key, ca.key),
            (self.server, server.certificate),
            (self.server_key, server.key),
            (self.admin, admin.certificate),
            (self.admin_key, admin.key),
        ):
            write_atomic(path, text, 0o600)
        write_atomic(self._tokens, secrets.token_bytes(32), 0o600)

    def authority(self) -> Pair:
        return Pair(self.ca_file.read_text(), self.ca_key.read_text())

    def kubeconfig(self, port: int) -> str:
        def data(path: Path) -> str:
            return base64.b64encode(path.read_bytes()).decode()

        return f"""\
apiVersion: v1
kind: Config
current-context: {NAME}
preferences: {{}}
clusters:
  - name: {NAME}
    cluster:
      server: https://127.0.0.1:{port}
      certificate-authority-data: {data(self.ca_file)}
users:
  - name: {NAME}-admin
    user:
      client-certificate-data: {data(self.admin)}
      client-key-data: {data(self.admin_key)}
contexts:
  - name: {NAME}
    context:
      cluster: {NAME}
      user: {NAME}-admin
"""
