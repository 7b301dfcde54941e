"""The Gateway API's conformance suite against an embedded cluster of our own: ``make test-gateway-api``.

The suite is the Go module sigs.k8s.io/gateway-api/conformance in the version that go.mod names. The programs in the
images that it uses are built here: echo-basic is the suite's own, the others are stand-ins of ours (``echo``, ``dns``).
Prints what passed, failed and was skipped by profile, and writes the official report. Exit code 1 if a test failed.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from lateen import __version__
from lateen.kit import jsons, yamldoc

HERE = Path(__file__).parent
REPORT = HERE.parents[1] / "docs" / "gateway-api-conformance.yaml"
PROFILES = ("GATEWAY-HTTP", "GATEWAY-GRPC", "GATEWAY-TLS", "GATEWAY-TCP", "GATEWAY-UDP", "MESH-HTTP", "MESH-GRPC")
SUITE = "sigs.k8s.io/gateway-api/conformance"
PROGRAMS = {"echo-basic": f"{SUITE}/echo-basic", "echo": "./echo", "dns": "./dns"}
IMAGES = {
    "registry.k8s.io/gateway-api/echo-basic": "echo-basic",
    "registry.k8s.io/gateway-api/echo-advanced": "echo",
    "registry.k8s.io/coredns/coredns": "dns",
}
USABLE, UNUSABLE = "127.96.255.1", "192.0.2.1"
"""Addresses that a Gateway may ask for: a loopback address of this machine, and one of nobody (RFC 5737)."""
CLASS = "istio"
BACKENDS = """
apiVersion: v1
kind: Namespace
metadata: {name: NAMESPACE}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: waits, namespace: NAMESPACE}
spec:
  selector: {matchLabels: {app: waits}}
  template:
    metadata: {labels: {app: waits}}
    spec: {containers: [{name: waits, image: lateen/sleep}]}
"""
"""Version 1.6.1 of the suite waits for pods in these namespaces even if it runs no test of a Gateway, which would make
them (https://github.com/kubernetes-sigs/gateway-api, suite.go, Setup)."""


class Trial:
    """A cluster with the mesh and the suite's programs."""

    def __init__(self, work: Path) -> None:
        self.work, home = work, work / "home"
        self.environment = os.environ | {
            "LATEEN_HOME": str(home),
            "LATEEN_API_PORT": "0",
            "KUBECONFIG": str(home / "kubeconfig"),
            "CGO_ENABLED": "0",
        }

    def run(self, *argv: object, cwd: Path | None = None, stdin: str = "") -> str:
        """Raises SystemExit with what a program that failed has said."""
        words, env = [str(a) for a in argv], self.environment
        done = subprocess.run(words, capture_output=True, text=True, env=env, cwd=cwd, input=stdin, check=False)
        if done.returncode:
            raise SystemExit(f"{' '.join(words)}\n{done.stdout}{done.stderr}")
        return done.stdout

    def lateen(self, *argv: object, stdin: str = "") -> str:
        return self.run(sys.executable, "-m", "lateen", *argv, stdin=stdin)

    def build(self, go: str) -> None:
        for name, package in PROGRAMS.items():
            self.run(go, "build", "-p", "1", "-o", self.work / "bin" / name, package, cwd=HERE)
        shutil.copy2(self.work / "bin" / "echo", self.work / "bin" / "client")
        self.run(go, "test", "-vet=off", "-p", "1", "-c", "-o", self.work / "bin" / "suite", ".", cwd=HERE)

    def start(self, gateways: bool) -> None:
        self.lateen("cluster", "start")
        self.lateen("install", "-y", "--set", "profile=default")
        programs = self.work / "bin"
        path = f"PATH={programs}:/usr/bin:/bin"
        for image, program in IMAGES.items():
            self.lateen("image", "add", "--mount", programs, "--env", path, image, "--", programs / program)
        for namespace in () if gateways else ("gateway-conformance-app-backend", "gateway-conformance-web-backend"):
            self.lateen("kubectl", "apply", "-f", "-", stdin=BACKENDS.replace("NAMESPACE", namespace))

    def features(self) -> list[str]:
        """What the mesh says that it supports. Handed over, so that features of routes in the mesh count: the suite
        reads these from a kind that is not in the standard channel (XMesh)."""
        for _ in range(100):
            found = jsons.loads(self.lateen("kubectl", "get", "gatewayclass", CLASS, "-o", "json"))
            if listed := jsons.dig(found, "status", "supportedFeatures"):
                return [str(f["name"]) for f in listed]
            time.sleep(0.2)
        raise SystemExit(f"the GatewayClass {CLASS} says no supported features")

    def suite(self, log: Path, report: Path, profiles: list[str], test: str) -> int:
        """Run it; its output goes to ``log``. Returns its exit code."""
        arguments = [
            f"-gateway-class={CLASS}",
            f"-supported-features={','.join(self.features())}",
            f"-conformance-profiles={','.join(profiles)}",
            f"-usable-address={USABLE}",
            f"-unusable-address={UNUSABLE}",
            f"-report-output={report}",
            "-organization=lateen",
            "-project=lateen",
            "-url=https://lateen.dev",
            f"-version=v{__version__}",
            "-contact=@lateen/maintainers",
            *([f"-run-test={test}"] if test else []),
        ]
        words = [str(self.work / "bin" / "suite"), "-test.timeout=4h", "-test.v=test2json", *arguments]
        env = self.environment
        with log.open("w") as out:
            return subprocess.run(
                words, stdout=out, stderr=subprocess.STDOUT, env=env, cwd=HERE, check=False
            ).returncode


def summary(report: Path) -> Iterator[str]:
    """One line for each profile, with the names of what failed or was skipped."""
    document = yamldoc.load(report.read_text()) or {}
    for profile in document.get("profiles") or []:
        for level in ("core", "extended"):
            found = profile.get(level)
            if not found:
                continue
            counts = found.get("statistics") or {}
            line = ", ".join(f"{k} {counts.get(k.capitalize(), 0)}" for k in ("passed", "failed", "skipped"))
            features = len(found.get("supportedFeatures") or []), len(found.get("unsupportedFeatures") or [])
            more = f", {features[0]} of {sum(features)} features" if level == "extended" else ""
            yield f"{profile['name']:13} {level:9} {line}{more}"
            for what in ("failedTests", "skippedTests"):
                for name in found.get(what) or []:
                    yield f"    {what.removesuffix('Tests')}: {name}"


def outcomes(log: Path) -> dict[str, str]:
    """Test -> PASS, FAIL or SKIP, of those that are no part of another."""
    found = re.findall(
        r"^\W*--- (PASS|FAIL|SKIP): TestConformance/([^/\s]+) ", log.read_text(errors="replace"), re.MULTILINE
    )
    return {name: outcome for outcome, name in found}


def attempt(trial: Trial, go: str, given: argparse.Namespace) -> int:
    profiles = given.profile or list(PROFILES)
    print("building the suite and the programs of its images", flush=True)
    trial.build(go)
    log, report = trial.work / "suite.log", trial.work / "report.yaml"
    report.unlink(missing_ok=True)
    try:
        trial.start(any(p.startswith("GATEWAY") for p in profiles))
        print(f"running {given.test or ', '.join(profiles)}; its output goes to {log}", flush=True)
        code = trial.suite(log, report, profiles, given.test or "")
    finally:
        if not given.keep:
            trial.lateen("cluster", "delete")
    found = outcomes(log)
    for name in sorted(n for n, outcome in found.items() if outcome == "FAIL"):
        print(f"FAIL {name}")
    if not report.exists():
        print(f"the suite has written no report; see {log}", file=sys.stderr)
        return 1
    print("\n".join(summary(report)))
    counts = Counter(found.values())
    told = ", ".join(f"{counts[k]} {v}" for k, v in {"PASS": "passed", "FAIL": "failed", "SKIP": "skipped"}.items())
    print(f"all tests, also those of no profile: {told}")
    if given.report and not given.test and not given.profile:
        shutil.copyfile(report, given.report)
    return code


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", action="append", choices=PROFILES, help="only these profiles; may be repeated")
    parser.add_argument("--test", help="a single test by its short name")
    parser.add_argument("--keep", action="store_true", help="let the cluster run afterwards")
    parser.add_argument("--work", type=Path, help="a directory for programs, cluster and log; kept, and used again")
    parser.add_argument("--report", type=Path, default=REPORT)
    given = parser.parse_args()
    go = shutil.which("go")
    if go is None:
        print("the conformance suite is a Go program; install Go 1.26 or newer (https://go.dev/dl/)", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="lateen-gateway-api-") as directory:
        trial = Trial((given.work or Path(directory)).absolute())
        trial.work.mkdir(parents=True, exist_ok=True)
        return attempt(trial, go, given)


if __name__ == "__main__":
    sys.exit(main())
