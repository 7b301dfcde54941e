"""The last step from a fork to a container: execute its command, or run a Python entry in the forked process."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any

from lateen.cluster import kernel

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class NotStarted(OSError):
    """The command cannot be run; errno is ENOENT or EACCES, which shells tell apart."""


def reset_signals() -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def become(spec: dict[str, Any], entries: dict[str, Callable[[], None]], report: int) -> None:
    """Replace this process with the container's command; never returns. A failure is written to ``report``."""
    try:
        os.makedirs(spec["cwd"], exist_ok=True)
        os.chdir(spec["cwd"])
    except OSError as e:
        raise NotStarted(e.errno, f"chdir to cwd ({spec['cwd']!r}): {os.strerror(e.errno or 0).lower()}") from e
    argv: list[str] = spec["argv"]
    if not spec.get("rootfs") and (entry := entries.get(argv[0])):  # an image has its own program of that name
        _run(entry, argv, spec["env"], report)
    _exec(argv, spec["env"])


def _exec(argv: list[str], env: dict[str, str]) -> None:
    """Raises NotStarted with the wording of the Go library that container engines use, which scripts look for."""
    try:
        os.execve(_find(argv[0], env.get("PATH") or DEFAULT_PATH), argv, env)
    except NotStarted:
        raise
    except OSError as e:
        why = os.strerror(e.errno or 0).lower()
        if e.errno == errno.ENOENT and os.path.exists(argv[0]):
            why += _interpreter(argv[0])
        raise NotStarted(e.errno, f'exec: "{argv[0]}": {why}') from e


def _find(program: str, path: str) -> str:
    if "/" in program:
        if os.path.isdir(program):
            raise NotStarted(errno.EACCES, f'exec: "{program}": is a directory')
        if not os.path.lexists(program):
            raise NotStarted(errno.ENOENT, f'exec: "{program}": stat {program}: no such file or directory')
        if not os.path.exists(program):
            raise NotStarted(
                errno.ENOENT,
                f'exec: "{program}": it is a symbolic link to {os.path.realpath(program)}, which this container '
                "cannot see (an image made by `lateen image add` needs --mount for it)",
            )
        return program
    for directory in path.split(":"):
        candidate = f"{directory}/{program}"
        if os.access(candidate, os.X_OK) and not os.path.isdir(candidate):
            return candidate
    raise NotStarted(errno.ENOENT, f'exec: "{program}": executable file not found in $PATH')


def _interpreter(program: str) -> str:
    """The kernel also reports "no such file" if the interpreter that a script's first line names is missing."""
    try:
        with open(program, "rb") as f:
            first = f.readline(256)
    except OSError:
        return ""
    if first.startswith(b"#!"):
        wanted = first[2:].split()[:1]
        return f" (its interpreter {wanted[0].decode(errors='replace')} is missing)" if wanted else ""
    return " (the loader or libraries that it needs are missing)"


def _run(entry: Callable[[], None], argv: list[str], env: dict[str, str], report: int) -> None:
    os.close(report)
    os.environ.clear()
    os.environ.update(env)
    sys.argv = argv
    kernel.set_name(os.path.basename(argv[0]))
    code = 1
    try:
        reset_signals()
        sys.stdin, sys.stdout, sys.stderr = (
            os.fdopen(n, m, buffering=1, closefd=False) for n, m in ((0, "r"), (1, "w"), (2, "w"))
        )
        entry()
        code = 0
    except SystemExit as e:
        code = e.code if isinstance(e.code, int) else 0 if e.code is None else 1
        if isinstance(e.code, str):
            print(e.code, file=sys.stderr)
    except BaseException:  # noqa: BLE001 - the outermost frame of a process: print it and exit
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
