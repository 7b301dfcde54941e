"""The objects of ``-f`` files."""

from __future__ import annotations

import click

from lateen.cli.output import BAD_DATA, CliError
from lateen.kit.jsons import Json

file_option = click.option("-f", "--filename", "files", multiple=True, help="A file or folder; - for standard input.")


def read(files: tuple[str, ...], recursive: bool = False) -> list[tuple[str, Json]]:
    """Each object with the file that it is from. Raises CliError."""
    from lateen.analysis import load

    out = []
    try:
        for path in load.files(list(files), recursive):
            out += [(str(path or "-"), s.obj) for s in load.sources(path)]
    except load.LoadError as e:
        raise CliError(str(e), BAD_DATA) from e
    return out
