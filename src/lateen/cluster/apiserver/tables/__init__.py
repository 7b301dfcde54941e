"""What ``kubectl get`` shows: objects as metav1.Table rows, with the columns of Kubernetes' own printers
(``pkg/printers/internalversion``) and of a CustomResourceDefinition's ``additionalPrinterColumns``."""

from __future__ import annotations

from typing import Any

from lateen.cluster.apiserver import conversion
from lateen.cluster.apiserver.resources import Resource
from lateen.cluster.apiserver.tables import access, custom, machines, networks, plain, sets, storage, workloads
from lateen.cluster.apiserver.tables.cells import Printer, age, column, name
from lateen.kit.jsons import Json

_PRINTERS: dict[str, Printer] = {
    **workloads.PRINTERS,
    **sets.PRINTERS,
    **storage.PRINTERS,
    **networks.PRINTERS,
    **machines.PRINTERS,
    **access.PRINTERS,
    **plain.PRINTERS,
}
SCALE = Resource("autoscaling", "v1", "scales", "Scale")
_OTHERS = Printer(("Name", "Age"), lambda o: [name(o), age(o)])


def table(resource: Resource, version: str, objects: list[Json], meta: Json, include: str) -> Json:
    """``meta`` is the Table's own metadata; ``include``: None, Metadata or Object for each row's object."""
    if resource.custom:
        columns, row = custom.printer(resource.columns.get(version) or [])
    else:
        printer = _PRINTERS.get(resource.kind, _OTHERS)
        columns, row = [column(text) for text in printer.columns], printer.row
        back = conversion.to_stored(resource, version)
        return _made(columns, [(row(back(obj) if back else obj), obj) for obj in objects], meta, include)
    return _made(columns, [(row(obj), obj) for obj in objects], meta, include)


def _made(columns: list[Json], rows: list[tuple[list[Any], Json]], meta: Json, include: str) -> Json:
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": meta,
        "columnDefinitions": columns,
        "rows": [{"cells": cells, "object": _included(obj, include)} for cells, obj in rows],
    }


def _included(obj: Json, include: str) -> Json | None:
    if include == "None":
        return None
    if include == "Object":
        return obj
    return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": obj["metadata"]}
