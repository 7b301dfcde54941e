"""kube-apiserver's warnings about pods and their templates: fractional numbers of bytes.

``100m`` of memory is a tenth of a byte, though most who write it mean 100 MB.
Source: https://kubernetes.io/docs/concepts/configuration/manage-resources-containers/#meaning-of-memory.
"""

from __future__ import annotations

from collections.abc import Iterator

from lateen.cluster.apiserver.workload_defaults import TEMPLATES
from lateen.cluster.rules import amounts
from lateen.kit.jsons import Json, dig

BYTES = ("memory", "ephemeral-storage")
WHERE = {"Pod": (), "Deployment": ("spec", "template"), "ReplicaSet": ("spec", "template"), **TEMPLATES}


def of(kind: str, obj: Json) -> Iterator[str]:
    """Of an object that has been validated."""
    if kind not in WHERE:
        return
    at = (*WHERE[kind], "spec")
    for field in ("initContainers", "containers"):
        for i, container in enumerate(dig(obj, *at, field, default=[])):
            for part in ("limits", "requests"):
                given = dig(container, "resources", part, default={})
                for what in BYTES:
                    if what in given and (amount := amounts.parse(given[what])) != amount.to_integral_value():
                        where = f"{'.'.join(at)}.{field}[{i}].resources.{part}[{what}]"
                        yield f'{where}: fractional byte value "{given[what]}" is invalid, must be an integer'
