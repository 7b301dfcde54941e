"""Rows of RBAC's kinds, of service accounts and of certificate requests."""

from __future__ import annotations

from typing import Any

from lateen.cluster.apiserver.tables.cells import NONE, Printer, age, created, name
from lateen.cluster.rules import requests
from lateen.kit import duration
from lateen.kit.jsons import Json


def _binding(o: Json) -> list[Any]:
    subjects, ref = o.get("subjects") or [], o.get("roleRef") or {}

    def of(kind: str) -> str:
        return ", ".join(str(s.get("name")) for s in subjects if s.get("kind") == kind)

    accounts = (f"{s.get('namespace', '')}/{s.get('name')}" for s in subjects if s.get("kind") == "ServiceAccount")
    return [name(o), f"{ref.get('kind')}/{ref.get('name')}", age(o), of("User"), of("Group"), ", ".join(accounts)]


def _request(o: Json) -> list[Any]:
    spec = o["spec"]
    asked = spec.get("expirationSeconds")
    lasting = NONE if asked is None else duration.age(asked)
    return [name(o), age(o), spec.get("signerName"), spec.get("username"), lasting, requests.state(o)]


_ROLES = Printer(("Name", "Created At"), lambda o: [name(o), created(o)])
_BINDINGS = Printer(("Name", "Role", "Age", "+Users", "+Groups", "+ServiceAccounts"), _binding)

PRINTERS = {
    "Role": _ROLES,
    "ClusterRole": _ROLES,
    "RoleBinding": _BINDINGS,
    "ClusterRoleBinding": _BINDINGS,
    "CertificateSigningRequest": Printer(
        ("Name", "Age", "SignerName", "Requestor", "RequestedDuration", "Condition"), _request
    ),
    "ServiceAccount": Printer(
        ("Name", "Secrets", "Age"), lambda o: [name(o), str(len(o.get("secrets") or [])), age(o)]
    ),
}
