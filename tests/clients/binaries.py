"""Programs of other projects, of a pinned version: built once with Go, and kept in ``~/.cache/lateen/clients``.

``python tests/clients/binaries.py [NAME…]`` builds what is missing. An interrupted build continues where it was,
since Go keeps each package that it has compiled (GOCACHE).
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

CLIENTS = {
    "helm4": "helm.sh/helm/v4/cmd/helm@v4.2.0",
    "helm3": "helm.sh/helm/v3/cmd/helm@v3.19.0",
    "stern": "github.com/stern/stern@v1.33.0",
    "pebble": "github.com/letsencrypt/pebble/v2/cmd/pebble@v2.8.0",
    "spire-server": "github.com/spiffe/spire/cmd/spire-server@v1.13.3",
    "spire-agent": "github.com/spiffe/spire/cmd/spire-agent@v1.13.3",
    # Of the commit whose behaviour the tests expect.
    "istioctl": "istio.io/istio/istioctl/cmd/istioctl@v0.0.0-20260827124520-eed52ebb66ad",
}
OBSERVERS = {
    "jaeger": "github.com/jaegertracing/jaeger/cmd/jaeger@v1.76.0",
    # The last version whose module path has its version's number: later ones are no versions of a Go module.
    "kiali": "github.com/kiali/kiali@v1.89.0",
}
MODULES = CLIENTS | OBSERVERS
WITH_C = {"spire-server"}
"""Programs that have SQLite, which is in C."""
GO = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
HELMS = {"helm3": "v3.", "helm4": "v4."}
"""Helm is called ``helm`` where it is installed: which one it is, its version says."""
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lateen" / "clients"
BUILDING_S = 2400


class Missing(Exception):
    """The message says why there is no program."""


def variable(name: str) -> str:
    """The environment variable that names a program that is there already."""
    return f"LATEEN_TEST_{name.upper().replace('-', '_')}"


def _kept(name: str) -> Path:
    return CACHE / f"{name}-{MODULES[name].rpartition('@')[2].rpartition('-')[2]}"


def found(name: str) -> str:
    """The path of a program that is there, or an empty string: the one that its variable names, the one that was
    built, or the one on the path. LATEEN_TEST_HELM and a ``helm`` on the path are Helm 3 or 4 by their version."""
    if given := os.environ.get(variable(name)):
        return given
    if (given := os.environ.get(variable("helm"))) and _is_helm(given, name):
        return given
    if (kept := _kept(name)).exists():
        return str(kept)
    if there := shutil.which(name):
        return there
    return there if (there := shutil.which("helm")) and _is_helm(there, name) else ""


def _is_helm(program: str, name: str) -> bool:
    """Whether it is the Helm of that name."""
    if name not in HELMS:
        return False
    argv = [program, "version", "--template", "{{.Version}}"]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.stdout.startswith(HELMS[name])


def built(name: str) -> str:
    """The path of a program, built if it is not there. Raises Missing."""
    if there := found(name):
        return there
    if GO is None:
        raise Missing(f"there is no Go to build it with (https://go.dev/dl); name one with {variable(name)}")
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE, prefix=".new-") as new:
        _build(name, Path(new))
        next((Path(new) / "bin").iterdir()).rename(_kept(name))
    return str(_kept(name))


def _build(name: str, at: Path) -> None:
    """As a tool of an empty module: ``go install`` with a version asks for the list of all versions, which a proxy of
    modules may not have. Raises Missing."""
    environment = os.environ | {"GOBIN": str(at / "bin"), "CGO_ENABLED": "1" if name in WITH_C else "0"}
    environment["GOFLAGS"] = "-mod=mod -buildvcs=false"
    program = MODULES[name].partition("@")[0]
    for words in (("mod", "init", "tool"), ("get", "-tool", MODULES[name]), ("install", "-trimpath", program)):
        argv = [str(GO), *words]
        try:
            done = subprocess.run(
                argv, cwd=at, env=environment, capture_output=True, text=True, timeout=BUILDING_S, check=False
            )
        except subprocess.TimeoutExpired:
            raise Missing(f"it was not built in {BUILDING_S} s; the next run continues the build") from None
        if done.returncode:
            raise Missing(f"it could not be built ({done.stderr.strip().splitlines()[-1:]})")


def needed(name: str) -> str:
    """For tests, which do not build: the path of a program; without one the test is skipped."""
    if not (there := found(name)):
        named = variable("helm" if name in HELMS else name)
        pytest.skip(f"there is no {name}: python tests/clients/binaries.py {name}, or name one with {named}")
    return there


def main() -> None:
    for name in sys.argv[1:] or MODULES:
        if name not in MODULES:
            sys.exit(f"{name} is none of {', '.join(MODULES)}")
        try:
            print(f"{name}: {built(name)}", flush=True)
        except Missing as e:
            print(f"{name}: {e}", flush=True)


if __name__ == "__main__":
    main()
