"""Rows of kinds that hold data or settings."""

from __future__ import annotations

from lateen.cluster.apiserver.tables.cells import Printer, age, created, name
from lateen.kit.jsons import dig

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
    "MutatingWebhookConfiguration": _WEBHOOKS,
    "ValidatingWebhookConfiguration": _WEBHOOKS,
}
