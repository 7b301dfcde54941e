"""What a host program needs to be visible in a container: the targets of links, interpreters, virtual environments."""

from __future__ import annotations

import os
from pathlib import Path

VISIBLE = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
"""The host directories that every container sees (``runtime.root``)."""
MAX_STEPS = 20


class Missing(Exception):
    """Something that the program needs does not exist; the message names it."""


def needs(command: list[str]) -> list[str]:
    """The outermost directories and files beyond VISIBLE that ``command`` needs. Raises Missing."""
    found: list[str] = []
    program = Path(command[0])
    if program.is_absolute():
        _program(program, found, 0)
    for word in command[1:]:
        if word.startswith("/") and os.path.isfile(word) and not _seen(Path(word)):
            found.append(word)
    return [p for p in dict.fromkeys(found) if not any(p != q and p.startswith(f"{q}/") for q in found)]


def _program(program: Path, found: list[str], step: int) -> None:
    if step > MAX_STEPS:
        raise Missing(f"{program} is a link or script that leads back to itself")
    if program.is_symlink():
        target = program.parent / program.readlink()
        _tree(program, found)
        if not os.path.lexists(target):
            raise Missing(f"{program} is a symbolic link to {target}, which does not exist")
        _program(Path(os.path.normpath(target)), found, step + 1)
        return
    if not program.exists():
        raise Missing(f"{program} does not exist")
    if not os.access(program, os.X_OK):
        raise Missing(f"{program} is not executable")
    _tree(program, found)
    if interpreter := _interpreter(program):
        if not os.path.lexists(interpreter):
            raise Missing(f"the first line of {program} names the interpreter {interpreter}, which does not exist")
        _program(interpreter, found, step + 1)


def _tree(program: Path, found: list[str]) -> None:
    """A program in ``bin`` needs what is next to that directory (a venv, ~/.pyenv/versions/…, a Node in ~/.nvm)."""
    if _seen(program):
        return
    tree = program.parent.parent if program.parent.name in ("bin", "sbin") else program
    found.append(str(tree if len(tree.parts) > 2 else program))
    home = _venv_home(tree)
    if home and not _seen(home):
        found.append(str(home.parent if home.name == "bin" and len(home.parts) > 3 else home))


def _venv_home(tree: Path) -> Path | None:
    """Where the base interpreter of a virtual environment lives, with its standard library."""
    try:
        lines = (tree / "pyvenv.cfg").read_text(errors="replace").splitlines()
    except OSError:
        return None
    values = [v.strip() for k, _, v in (line.partition("=") for line in lines) if k.strip() == "home"]
    return Path(values[0]) if values and values[0].startswith("/") else None


def _interpreter(program: Path) -> Path | None:
    try:
        with program.open("rb") as f:
            first = f.readline(256)
    except OSError:
        return None
    words = first[2:].split() if first.startswith(b"#!") else []
    return Path(words[0].decode(errors="replace")) if words else None


def _seen(path: Path) -> bool:
    return str(path).startswith(tuple(f"{v}/" for v in VISIBLE))
