"""Problems that istiod would report about the mesh configuration."""

from __future__ import annotations

from collections.abc import Iterator

from lateen.analysis.registry import analyzer
from lateen.analysis.snapshot import Message, Snapshot, message
from lateen.api import kinds
from lateen.api.mesh import reading
from lateen.kit.jsons import dig

NAME = "istio"
"""The revision of a ConfigMap: its name ends with a hyphen and the revision, and a label names it."""


@analyzer("meshconfig.MeshConfigAnalyzer", "Checks the mesh configuration in the control plane's ConfigMaps")
def mesh_config(snapshot: Snapshot) -> Iterator[Message]:
    for source in snapshot.all(kinds.CONFIG_MAP):
        revision = source.labels.get("istio.io/rev", "default")
        if source.namespace != snapshot.root or source.name not in (NAME, f"{NAME}-{revision}"):
            continue
        text = dig(source.obj, "data", "mesh", default="")
        path = ("data", "mesh")
        try:
            reading.mesh_config(text)
        except reading.Invalid as e:
            for problem in e.problems:
                yield message("IST0106", source, f"data.mesh: {problem}", path=path)
