"""Clients that others have made against embedded clusters of our own: ``make test-clients``.

The Python clients come from PyPI into an environment that is thrown away; the program of client-go is built where
there is a Go, and so are istioctl, Helm 3 and 4, stern, Pebble and SPIRE, once (``binaries``). What cannot be had
is named and does not count as a failure; the end says what was tried.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

import binaries

HERE = Path(__file__).parent
PYTHON = {
    "kubernetes": ("kubernetes",),
    "lightkube": ("lightkube",),
    "kr8s": ("kr8s",),
    "pykube": ("pykube-ng",),
    "kubernetes_asyncio": ("kubernetes_asyncio",),
    "kopf": ("kopf", "pykube-ng"),
}
"""Program in ``python/`` -> the distributions that it needs."""
SECONDS = 300
PIP = ("-q", "--disable-pip-version-check", "--retries", "5", "--timeout", "60", "--prefer-binary")
INSTALLING_S, ATTEMPTS = 900, 3
TESTING_S = 1800


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    lines = [x for x in (done.stdout + done.stderr).splitlines() if x.strip()]
    return lines[-1] if lines else "it said nothing"


class Trial:
    def __init__(self, work: Path) -> None:
        self.work = work
        self.failed: list[str] = []
        self.left_out: list[str] = []
        home = work / "home"
        self.environment = os.environ | {
            "LATEEN_HOME": str(home),
            "LATEEN_API_PORT": "0",
            "KUBECONFIG": str(home / "kubeconfig"),
        }

    def run(self, *argv: object, seconds: float = SECONDS) -> subprocess.CompletedProcess[str]:
        """What takes too long has failed, and says so."""
        words = [str(a) for a in argv]
        try:
            return subprocess.run(
                words, capture_output=True, text=True, timeout=seconds, env=self.environment, check=False
            )
        except subprocess.TimeoutExpired:
            return subprocess.CompletedProcess(words, 124, "", f"it took longer than {seconds:.0f} s")

    def judge(self, name: str, done: subprocess.CompletedProcess[str]) -> None:
        ok = done.returncode == 0
        print(f"{'ok  ' if ok else 'FAIL'} {name}", flush=True)
        if not ok:
            self.failed.append(name)
            print((done.stdout + done.stderr)[-4000:], flush=True)

    def leave_out(self, name: str, why: str) -> None:
        self.left_out.append(name)
        print(f"none {name}: {why}", flush=True)

    def python(self) -> None:
        at = self.work / "venv"
        venv.create(at, with_pip=True)
        for name, needed in PYTHON.items():
            installed = self.installed(at / "bin/pip", needed)
            if installed.returncode:
                self.leave_out(name, f"it could not be installed ({last_line(installed)})")
                continue
            self.judge(name, self.run(at / "bin/python", HERE / "python" / f"with_{name}.py"))

    def installed(self, pip: Path, needed: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
        """Networks and loaded machines make pip give up: tried again, with what has been fetched in its cache."""
        for _ in range(ATTEMPTS):
            done = self.run(pip, "install", *PIP, *needed, seconds=INSTALLING_S)
            if not done.returncode:
                break
        return done

    def go(self) -> None:
        if not binaries.GO:
            self.leave_out("client-go", "there is no go here")
            return
        program = self.work / "client-go"
        argv = (binaries.GO, "build", "-C", HERE / "go", "-o", program, ".")
        built = self.run(*argv, seconds=binaries.BUILDING_S)
        if built.returncode:
            self.leave_out("client-go", f"it could not be built ({last_line(built)})")
            return
        done = self.run(program)
        print(done.stdout, end="")
        self.judge("client-go", done)

    def programs(self) -> None:
        """Programs in Go; their tests start clusters of their own."""
        for name in binaries.CLIENTS:
            try:
                binaries.built(name)
            except binaries.Missing as e:
                self.leave_out(name, str(e))
        for name in ("LATEEN_HOME", "LATEEN_API_PORT", "KUBECONFIG"):
            del self.environment[name]
        done = self.run(sys.executable, "-m", "pytest", "-q", "-rs", HERE, seconds=TESTING_S)
        print("\n".join(x for x in done.stdout.splitlines() if x.startswith("SKIPPED")), last_line(done), sep="\n")
        self.judge("programs (istioctl, Helm, stern, Pebble, SPIRE)", done)


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="lateen-clients-") as directory:
        trial = Trial(Path(directory))
        started = trial.run(sys.executable, "-m", "lateen", "cluster", "start")
        if started.returncode:
            print(f"the cluster did not start: {last_line(started)}", file=sys.stderr)
            return 1
        try:
            trial.python()
            trial.go()
        finally:
            trial.run(sys.executable, "-m", "lateen", "cluster", "delete")
        trial.programs()
    tried = len(PYTHON) + 1 + len(binaries.CLIENTS) - len(trial.left_out)
    print(f"{tried} clients tried, {len(trial.failed)} failed: {', '.join(trial.failed) or 'none'}")
    if trial.left_out:
        print(f"not tried here: {', '.join(trial.left_out)}")
    return 1 if trial.failed or not tried else 0


if __name__ == "__main__":
    sys.exit(main())
