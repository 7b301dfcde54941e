"""Problems that the validating webhook would report."""

from __future__ import annotations

from collections.abc import Iterator

from lateen.analysis import decoded
from lateen.analysis.registry import Run, analyzer
from lateen.analysis.snapshot import Message, Path, Snapshot, Source, message
from lateen.api import kinds
from lateen.api.config import beside_spec, unknown
from lateen.api.kinds import Kind
from lateen.api.networking import VirtualService
from lateen.api.validate.unreachable import unreachable
from lateen.kit.digits import digits


@analyzer("schema.ValidationAnalyzer", "Runs schema validation on the mesh's resources")
def schema(snapshot: Snapshot) -> Iterator[Message]:
    for kind in kinds.owned():
        for source in snapshot.all(kind):
            yield from _known(kind, source)
    for source in snapshot.of_unknown_kinds():
        if says := kinds.stranger(source.obj):
            yield message("IST0106", source, says, path=("kind",))


def _of_kind(kind: Kind) -> Run:
    return lambda snapshot: (m for source in snapshot.all(kind) for m in _known(kind, source))


for _kind in (k for k in kinds.owned() if k.id.group.endswith("istio.io")):  # the Gateway API has a Gateway, too
    analyzer(
        f"schema.ValidationAnalyzer.{_kind.id.kind}",
        f"Runs schema validation as an analyzer on '{_kind.id.kind}' resources",
        on_demand=True,
    )(_of_kind(_kind))


@analyzer("schema.HintAnalyzer", "Tells what validation advises on the mesh's resources beyond what Istio does")
def hints(snapshot: Snapshot) -> Iterator[Message]:
    for kind in kinds.owned():
        for source in snapshot.all(kind):
            for f in decoded.findings(kind, source):
                if f.warning and f.own:
                    yield message("LAT0124", source, f"{f.path}: {f.says}", path=path_of(f.path))


def _known(kind: Kind, source: Source) -> list[Message]:
    """The schema findings of an object, computed once."""
    if "schema" not in source.memo:
        source.memo["schema"] = list(_one(kind, source))
    found: list[Message] = source.memo["schema"]
    return found


def _one(kind: Kind, source: Source) -> Iterator[Message]:
    if says := kinds.stranger(source.obj):
        yield message("IST0106", source, says, path=("apiVersion",))
    for path in (*beside_spec(source.obj), *unknown(kind.spec, source.spec)):
        yield message("IST0106", source, f'unknown field "{path}"', path=path_of(path))
    found = decoded.findings(kind, source)
    for f in found:
        if not f.warning:
            yield message("IST0106", source, f"{f.path}: {f.says}", path=path_of(f.path))
    shadows: set[str] = set()
    if kind is kinds.VIRTUAL_SERVICE:
        yield from _unreachable(source)
        shadows = {f.path for f in found if f.says.startswith("virtualService rule ")}
    for f in found:
        if f.warning and not f.own and not (f.path in shadows and f.says.startswith("virtualService rule ")):
            yield message("IST0133", source, f"{f.path}: {f.says}", path=path_of(f.path))


def _unreachable(source: Source) -> Iterator[Message]:
    spec: VirtualService | None = decoded.spec(kinds.VIRTUAL_SERVICE, source)
    if spec is None:
        return
    found = unreachable(spec)
    for path, name, reason in found.rules:
        yield message("IST0130", source, name, reason, path=path_of(path))
    for m in found.matches:
        yield message("IST0131", source, m.rule, m.match, m.earlier, path=path_of(m.path))


def path_of(text: str) -> Path:
    """The components of ``spec.http[0].match[1].headers[x-y]``."""
    out: list[str | int] = []
    for part in text.split("."):
        name, *rest = part.split("[")
        if name:
            out.append(name.rstrip("]"))
        for item in rest:
            item = item.rstrip("]")
            out.append(int(item) if digits(item) else item)
    return tuple(out)
