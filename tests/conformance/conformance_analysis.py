"""The cases of the analyzers: one analyzer over a few files, compared as a multiset of [code, object]. Istio names
objects without their group: ``Gateway default/web`` may be the Gateway API's, too."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from lateen.analysis import Snapshot, analyze, load
from lateen.kit import yamldoc


def cases(folder: Path) -> Iterator[tuple[str, str | None]]:
    for case in json.loads((folder / "expected.json").read_text()):
        yield f"{case['name']} ({', '.join(case['inputFiles'])})", _run(folder, case)


def _config(folder: Path, name: str | None) -> dict | None:
    return (yamldoc.load((folder / name).read_text()) or {}) if name else None


def _run(folder: Path, case: dict) -> str | None:
    mesh = _config(folder, case.get("meshConfigFile"))
    networks = _config(folder, case.get("meshNetworksFile"))
    names = [folder / name for name in case["inputFiles"]]
    if (mesh or {}).get("ingressControllerMode", "STRICT") != "OFF":
        names.insert(0, folder / "default_resources.yaml")
    sources = [s for name in names for s in load.sources(name)]
    snapshot = Snapshot(sources, mesh or {}, networks or {})
    try:
        found = analyze(snapshot, [case["analyzer"]])
    except KeyError:
        return f"there is no analyzer {case['analyzer']}"
    got = Counter((m.kind.code, f"{m.source.kind} {m.source.full}") for m in found)
    wanted = Counter((code, ref) for code, ref in case["expected"])
    if got == wanted:
        return None
    return f"missing {sorted((wanted - got).elements())}, unexpected {sorted((got - wanted).elements())}"
