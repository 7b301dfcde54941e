"""Rows of kinds that hold data or settings."""

from __future__ import annotations

from typing import Any

from lateen.cluster.apiserver.tables.cells import Printer, age, created, name
from lateen.kit.jsons import Json, dig

_UNSET = "<unset>"


def _policy(o: Json) -> list[Any]:
    kind = o["spec"].get("paramKind")
    params = f"{kind.get('apiVersion')}/{kind.get('kind')}" if kind else _UNSET
    return [name(o), len(o["spec"].get("validations") or []), params, age(o)]


def _policy_binding(o: Json) -> list[Any]:
    ref = o["spec"].get("paramRef")
    params = "/".join(filter(None, (ref.get("namespace"), ref.get("name") or "*"))) if ref else _UNSET
    return [name(o), o["spec"].get("policyName"), params, age(o)]


def _api_service(o: Json) -> list[Any]:
    said: Json = next((c for c in dig(o, "status", "conditions", default=[]) if c["type"] == "Available"), {})
    return [name(o), "Local", said.get("status", "Unknown"), age(o)]


def _component(o: Json) -> list[Any]:
    said: Json = next((c for c in o.get("conditions") or [] if c["type"] == "Healthy"), {})
    status = {"True": "Healthy", "False": "Unhealthy"}.get(str(said.get("status")), "Unknown")
    return [name(o), status, said.get("message", ""), said.get("error", "")]


_WEBHOOKS = Printer(("Name", "#Webhooks", "Age"), lambda o: [name(o), len(o.get("webhooks") or []), age(o)])

PRINTERS = {
    "Namespace": Printer(("Name", "Status", "Age"), lambda o: [name(o), dig(o, "status", "phase", default=""), age(o)]),
    "ConfigMap": Printer(
        ("Name", "Data", "Age"),
        lambda o: [name(o), str(len(o.get("data") or {}) + len(o.get("binaryData") or {})), age(o)],
    ),
    "Secret": Printer(
        ("Name", "Type", "Data", "Age"), lambda o: [name(o), o.get("type"), str(len(o.get("data") or {})), age(o)]
    ),
    "CustomResourceDefinition": Printer(("Name", "Created At"), lambda o: [name(o), created(o)]),
    "ValidatingAdmissionPolicy": Printer(("Name", "#Validations", "ParamKind", "Age"), _policy),
    "ValidatingAdmissionPolicyBinding": Printer(("Name", "PolicyName", "ParamRef", "Age"), _policy_binding),
    "ComponentStatus": Printer(("Name", "Status", "Message", "Error"), _component),
    "APIService": Printer(("Name", "Service", "Available", "Age"), _api_service),
    "MutatingWebhookConfiguration": _WEBHOOKS,
    "ValidatingWebhookConfiguration": _WEBHOOKS,
}
