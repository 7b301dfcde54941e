"""Problems that istiod would report about its ConfigMaps: the mesh configuration and the injector's values."""

from __future__ import annotations

from collections.abc import Iterator

from lateen.analysis.registry import analyzer
from lateen.analysis.snapshot import Message, Snapshot, Source, message
from lateen.api import kinds, values
from lateen.api.mesh import reading
from lateen.kit.jsons import dig

NAME = "istio"
"""The revision of a ConfigMap: its name ends with a hyphen and the revision, and a label names it."""


INJECTOR = "istio-sidecar-injector"


@analyzer("meshconfig.MeshConfigAnalyzer", "Checks the mesh configuration in the control plane's ConfigMaps")
def mesh_config(snapshot: Snapshot) -> Iterator[Message]:
    for source in snapshot.all(kinds.CONFIG_MAP):
        revision = source.labels.get("istio.io/rev", "default")
        if source.namespace == snapshot.root and source.name in (INJECTOR, f"{INJECTOR}-{revision}"):
            yield from _injector(source)
        if source.namespace != snapshot.root or source.name not in (NAME, f"{NAME}-{revision}"):
            continue
        text = dig(source.obj, "data", "mesh", default="")
        path = ("data", "mesh")
        try:
            reading.mesh_config(text)
        except reading.Invalid as e:
            for problem in e.problems:
                yield message("IST0106", source, f"data.mesh: {problem}", path=path)


def _injector(source: Source) -> Iterator[Message]:
    """istiod uses all or nothing of it: the last values that were right stay in effect."""
    data = dig(source.obj, "data", default={})
    try:
        values.read(str(data.get("config") or ""), str(data.get("values") or ""))
    except ValueError as e:
        yield message("IST0106", source, f"data: {e}", path=("data",))
