"""Run a folder of cases against Lateen: python tests/conformance/run.py MODE DIR

MODE is analysis, validation, crds, authz, inject, simulation or simulation-real (through a real Envoy, as root).

Prints each failed case with what was expected and what came, ends with "N passed, N failed", and exits with 1 where a
case failed, with 64 where it was called wrongly, with 65 where the folder has no cases.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

Outcome = tuple[str, str | None]
"""A case's name, and what is wrong; None where nothing is."""


def validation(folder: Path) -> Iterator[Outcome]:
    """``webhook/*.json``: lists of {id, resource, valid, warning, error_contains}, against what the webhook says, but
    for warnings of our own, which no case knows."""
    from lateen.xds.patches.check import verdict

    files = sorted((folder / "webhook").glob("*.json")) or sorted(folder.glob("*.json"))
    for file in files:
        for case in json.loads(file.read_text()):
            if "resource" in case:
                found = verdict(case["resource"])
                said = [f"{f.path}: {f.says}" for f in found if not f.warning]
                told = [f"{f.path}: {f.says}" for f in found if f.warning and not f.own]
                yield case["id"], _verdict(case, said, told)


def _verdict(case: dict, said: list[str], told: list[str]) -> str | None:
    if case["valid"] != (not said):
        return f"expected {'valid' if case['valid'] else 'invalid'}, got {said or 'no error'}"
    needle = case.get("error_contains")
    if needle and not any(needle in s for s in said):
        return f"expected an error with {needle!r}, got {said}"
    wanted = case.get("warning")
    if wanted is None or not case["valid"]:
        return None
    if wanted is False and told:
        return f"expected no warning, got {told}"
    if wanted is True and not told:
        return "expected a warning, got none"
    if isinstance(wanted, str) and not any(wanted in t for t in told):
        return f"expected a warning with {wanted!r}, got {told}"
    return None


def analysis(folder: Path) -> Iterator[Outcome]:
    """``expected.json``: a list of cases over files of ``folder``; see its README for the rules."""
    from conformance_analysis import cases

    yield from cases(folder)


def authz(folder: Path) -> Iterator[Outcome]:
    """``index.json``: policies and the Envoy filters that they become."""
    from conformance_authz import cases

    yield from cases(folder)


def inject(folder: Path) -> Iterator[Outcome]:
    """``index.json`` and ``testdata/``: workloads, the options of their installation, and what they become."""
    from conformance_inject import cases

    yield from cases(folder)


def crds(folder: Path) -> Iterator[Outcome]:
    """Istio's definitions: what they refuse."""
    from conformance_crds import cases

    yield from cases(folder)


def simulation(folder: Path) -> Iterator[Outcome]:
    """``calls.json`` and ``sidecar-routes.json``: configurations, and what becomes of calls."""
    from conformance_simulation import cases

    yield from cases(folder)


def simulation_real(folder: Path) -> Iterator[Outcome]:
    """The calls of ``calls.json`` made through a real Envoy, in a network namespace; needs root."""
    from conformance_simulation import real

    yield from real(folder)


MODES: dict[str, Callable[[Path], Iterator[Outcome]]] = {
    "analysis": analysis,
    "authz": authz,
    "crds": crds,
    "inject": inject,
    "simulation": simulation,
    "simulation-real": simulation_real,
    "validation": validation,
}


def main(args: list[str]) -> int:
    if len(args) != 2 or args[0] not in MODES:
        print(f"usage: run.py {'|'.join(MODES)} DIR", file=sys.stderr)
        return 64
    folder = Path(args[1])
    if not folder.is_dir():
        print(f"{folder}: no such folder", file=sys.stderr)
        return 65
    passed = failed = 0
    try:
        for name, wrong in MODES[args[0]](folder):
            if wrong is None:
                passed += 1
            else:
                failed += 1
                print(f"FAILED {name}: {wrong}")
    except OSError as e:
        print(e.strerror or e, file=sys.stderr)
        return 69
    print(f"{passed} passed, {failed} failed")
    if not passed and not failed:
        print(f"{folder}: has no cases of this kind", file=sys.stderr)
        return 65
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
