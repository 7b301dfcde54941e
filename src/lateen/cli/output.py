"""Output of commands: data on stdout, progress and errors on stderr, one sentence per failure."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

USAGE, BAD_DATA, FINDINGS = 64, 65, 79


class CliError(Exception):
    """A failure that the user can act on: one sentence and an exit code."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


def colors(stream: TextIO) -> bool:
    """Whether to use colors: never with NO_COLOR or on a dumb terminal, always with FORCE_COLOR."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return bool(os.environ.get("FORCE_COLOR")) or stream.isatty()


def colored(code: str, text: str, wanted: bool) -> str:
    return f"\033[{code}m{text}\033[0m" if wanted else text


def _color(code: str, text: str) -> str:
    return colored(code, text, colors(sys.stderr))


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def fail(text: str) -> None:
    say(_color("31", f"Error: {text}"))


def warn(text: str) -> None:
    say(_color("33", f"Warning: {text}"))


def table(rows: list[list[str]]) -> str:
    """Columns aligned as kubectl does, three spaces apart."""
    if not rows:
        return ""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def wide_table(rows: list[list[str]]) -> str:
    """Columns aligned as istioctl does: five spaces apart, and five after the last."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "".join(cell.ljust(width + 5) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


@contextmanager
def step(what: str) -> Iterator[None]:
    """One line of progress: shown at once on a terminal; when done, with a tick and the seconds it took."""
    started = time.monotonic()
    live = sys.stderr.isatty()
    if live:
        print(f"- {what} …", end="", file=sys.stderr, flush=True)
    try:
        yield
    except BaseException:
        print(f"\r{_color('31', '✘')} {what}" + " " * 10 if live else f"✘ {what}", file=sys.stderr, flush=True)
        raise
    seconds = time.monotonic() - started
    print(("\r" if live else "") + f"{_color('32', '✔')} {what} ({seconds:.1f} s)", file=sys.stderr, flush=True)
