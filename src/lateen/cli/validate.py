"""lateen validate."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from lateen.analysis import load
from lateen.api import kinds
from lateen.api import validate as rules
from lateen.api.config import beside_spec, unknown
from lateen.cli import structure
from lateen.cli.base import command
from lateen.cli.connect import Target, target_options
from lateen.cli.output import BAD_DATA, USAGE, CliError, fail, warn
from lateen.kit.jsons import Json


@command(name="validate")
@click.argument("names", nargs=-1)
@click.option("-f", "--filename", "more", multiple=True, help="A file or folder; - for standard input.")
@target_options
def validate(names: tuple[str, ...], more: tuple[str, ...], target: Target) -> None:
    """Check that files would be accepted by the API server and the mesh: lateen validate -f FILE"""
    given = [*names, *more]
    if not given:
        raise CliError("name at least one file: lateen validate -f FILE", USAGE)
    bad = 0
    try:
        for path in load.files(given, True):
            bad += _validate(path, target.given_namespace)
    except load.LoadError as e:
        raise CliError(str(e), BAD_DATA) from e
    if bad:
        raise CliError(f"{bad} {'error' if bad == 1 else 'errors'} found; these files would not be accepted", BAD_DATA)


def _rules(obj: Json) -> list[rules.Finding]:
    """The webhook's findings; Envoy's protobuf messages are loaded only for EnvoyFilters."""
    if kinds.of(obj) is not kinds.ENVOY_FILTER:
        return rules.findings(obj)
    from lateen.xds.patches.check import verdict

    return verdict(obj)


def _of_installation(obj: Json) -> Iterator[tuple[str, str, bool]]:
    """What ``install`` says of a specification: path, sentence, and whether it is a warning."""
    from lateen.install import manifests
    from lateen.install.operator import OperatorError, resolve, specification

    try:
        found = resolve("default", [specification(obj)], [])
        manifests.render(found)  # k8s.overlays must fit the objects
    except OperatorError as e:
        yield str(e).partition(":")[0], str(e), False
    else:
        yield from ((text.partition(" ")[0], text, True) for text in found.warnings)


def _validate(path: Path | None, namespace: str) -> int:
    from lateen.analysis.rules.schema import path_of

    errors = 0
    for source in load.parts(path, namespace):
        if isinstance(source, load.LoadError):
            fail(str(source))
            errors += 1
            continue
        stranger = kinds.stranger(source.obj)
        kind = kinds.of(source.obj)
        if malformed := list(structure.problems(source.obj)):
            found = [(at, f"{at}: {says}", False) for at, says in malformed]
        elif source.kind == "IstioOperator":
            found = list(_of_installation(source.obj))
        elif kind is None or not kind.owned:
            found = [("kind", stranger, False)] if stranger else []
        else:
            found = [("apiVersion", stranger, False)] if stranger else []
            found += [
                (p, f'unknown field "{p}"', False) for p in (*beside_spec(source.obj), *unknown(kind.spec, source.spec))
            ]
        found += [] if malformed else [(f.path, f"{f.path}: {f.says}", f.warning) for f in _rules(source.obj)]
        for where, says, warning in found:
            row, column = source.position(path_of(where))
            text = f"{source.file}:{row}:{column}: {source.ref}: {says}"
            if warning:
                warn(text)
            else:
                fail(text)
                errors += 1
    if not errors:
        click.echo(f'"{path or "-"}" is valid')
    return errors
