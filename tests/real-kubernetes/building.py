"""Kubernetes' own programs, built once for each version from the Go module k8s.io/kubernetes with what it requires.

etcd is the machine's for 1.33. Later ones read differently from one as old as Debian's, so that it is built, too, in
the version that Kubernetes requires for its own tests.

``LATEEN_TEST_KUBERNETES`` chooses the version.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

COMPARED = "1.33.13"
"""The version that answers of the embedded cluster are compared with, word for word."""
VERSION = os.environ.get("LATEEN_TEST_KUBERNETES") or COMPARED
PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
GO = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lateen" / f"kubernetes-{VERSION}"
SAYS = "k8s.io/component-base/version.git"


class Missing(Exception):
    """The message says what there is not."""


def program(name):
    """Its path; all of them take some 20 minutes on two cores where they have not been built before."""
    major, minor, patch = numbers()
    if name == "etcd" and (major, minor) <= (1, 33):
        if found := shutil.which("etcd"):
            return found
        raise Missing("there is no etcd (as root: apt-get install etcd-server)")
    path = CACHE / name
    if not path.exists():
        if GO is None:
            raise Missing(f"there is no Go to build {name} with (https://go.dev/dl)")
        print(f"building {name} of Kubernetes {VERSION}", flush=True)
        package = "go.etcd.io/etcd/server/v3" if name == "etcd" else f"k8s.io/kubernetes/cmd/{name}"
        flags = f"-s -w -X {SAYS}Version=v{VERSION} -X {SAYS}Major={major} -X {SAYS}Minor={minor}"
        new = path.with_suffix(".new")
        sources, requirements = module(f"v0.{minor}.{patch}")
        argv = ["build", "-modfile", requirements, "-mod=mod", "-trimpath", "-ldflags", flags, "-o", new, package]
        # Its workspace names folders that the module comes without.
        subprocess.run([GO, *argv], cwd=sources, env=os.environ | {"CGO_ENABLED": "0", "GOWORK": "off"}, check=True)
        new.rename(path)
    return str(path)


def numbers():
    if found := re.fullmatch(r"v?(\d+)\.(\d+)\.(\d+)", VERSION):
        return tuple(map(int, found.groups()))
    raise Missing(f"LATEEN_TEST_KUBERNETES must be a version such as {COMPARED}, not {VERSION!r}")


def module(parts):
    """(the folder of Kubernetes' sources, its go.mod with ``parts`` as the version of the modules that it is made of,
    which are folders beside it only in its repository)."""
    done = subprocess.run(
        [GO, "mod", "download", "-json", f"k8s.io/kubernetes@v{VERSION}"], stdout=subprocess.PIPE, cwd="/", check=False
    )
    found = json.loads(done.stdout or "{}")
    if "Dir" not in found:
        raise Missing(f"there is no Kubernetes {VERSION} in Go's modules: {found.get('Error', 'see above')}")
    sources, requirements = Path(found["Dir"]), CACHE / "go.mod"
    CACHE.mkdir(parents=True, exist_ok=True)
    text = (sources / "go.mod").read_text()
    requirements.write_text(re.sub(r"=> \./staging/src/(\S+)", rf"=> \1 {parts}", text))
    (CACHE / "go.sum").write_text((sources / "go.sum").read_text())
    return sources, requirements


def main():
    """Build what is missing."""
    try:
        for name in PROGRAMS:
            program(name)
    except Missing as e:
        sys.exit(str(e))


if __name__ == "__main__":
    main()
