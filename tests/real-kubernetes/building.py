"""Kubernetes' own programs: kube-apiserver, kube-controller-manager and kube-scheduler, built once for each version
from the Go module k8s.io/kubernetes that go.mod names; etcd is Debian's."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
VERSION = re.search(r"k8s\.io/kubernetes v(\S+)", (HERE / "go.mod").read_text())[1]
PROGRAMS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler")
GO = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lateen" / f"kubernetes-{VERSION}"
SAYS = "k8s.io/component-base/version.git"


class Missing(Exception):
    """The message says what there is not."""


def etcd():
    if found := shutil.which("etcd"):
        return found
    raise Missing("there is no etcd (as root: apt-get install etcd-server)")


def program(name):
    """Its path; it takes some 20 minutes on two cores where it has not been built before."""
    path = CACHE / name
    if not path.exists():
        if GO is None:
            raise Missing(f"there is no Go to build {name} with (https://go.dev/dl)")
        CACHE.mkdir(parents=True, exist_ok=True)
        major, minor, _ = VERSION.split(".")
        flags = f"-s -w -X {SAYS}Version=v{VERSION} -X {SAYS}Major={major} -X {SAYS}Minor={minor}"
        new = path.with_suffix(".new")
        argv = [GO, "build", "-trimpath", "-ldflags", flags, "-o", str(new), f"k8s.io/kubernetes/cmd/{name}"]
        print(f"building {name} {VERSION}", flush=True)
        subprocess.run(argv, cwd=HERE, env=os.environ | {"CGO_ENABLED": "0"}, check=True)
        new.rename(path)
    return str(path)


def main():
    """Build what is missing."""
    try:
        etcd()
        for name in PROGRAMS:
            program(name)
    except Missing as e:
        sys.exit(str(e))


if __name__ == "__main__":
    main()
