"""The Gateway API's conformance suite against an embedded cluster of our own: ``make test-gateway-api``.

The suite is the Go module sigs.k8s.io/gateway-api/conformance in the version that go.mod names. The programs in the
images that it uses are built here: echo-basic is the suite's own, the others are stand-ins of ours (``echo``, ``dns``).
Prints each test's outcome as it comes, then what passed, failed and was skipped by profile, also of a run that is cut
(SIGINT, SIGTERM, ``--minutes``). Writes the official report where the run was whole. Exit code 1 if a test failed.

``--mutate NAME`` takes a feature out of istiod (``mutants.py``) and runs the tests that have to notice: exit code 1 if
one of them does not fail.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mutants import MUTANTS, write

from lateen import __version__
from lateen.api.crds import EXPERIMENTAL
from lateen.kit import jsons, yamldoc
from lateen.kit.jsons import Json

HERE = Path(__file__).parent
REPORT = HERE.parents[1] / "docs" / "gateway-api-report.yaml"
PROFILES = ("GATEWAY-HTTP", "GATEWAY-GRPC", "GATEWAY-TLS", "GATEWAY-TCP", "GATEWAY-UDP", "MESH-HTTP", "MESH-GRPC")
SUITE = "sigs.k8s.io/gateway-api/conformance"
PROGRAMS = {"echo-basic": f"{SUITE}/echo-basic", "echo": "./echo", "dns": "./dns"}
IMAGES = {
    "registry.k8s.io/gateway-api/echo-basic": "echo-basic",
    "registry.k8s.io/gateway-api/echo-advanced": "echo",
    "registry.k8s.io/coredns/coredns": "dns",
}
PAGE = "reference-gateway-api.md"
"""Its summary, beside it."""
USABLE, UNUSABLE = "127.96.255.1", "192.0.2.1"
"""Addresses that a Gateway may ask for: a loopback address of this machine, and one of nobody (RFC 5737)."""
CLASS = "istio"
OUTCOME = re.compile(r"\W*--- (PASS|FAIL|SKIP): TestConformance/([^/\s]+) (\(.*\))")
SAYS = {"PASS": "passed", "FAIL": "failed", "SKIP": "skipped", "": "not reached"}
Tests = dict[str, dict[str, Any]]
"""Test -> {"features": names, "profiles": {profile: core or extended}}"""
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

    def start(self, gateways: bool, channel: str, mutant: str) -> None:
        self.lateen("cluster", "start")
        if mutant:
            directory = write(mutant, self.work / "mutants")
            environment = ("--env", f"PYTHONPATH={directory}", "--env", "PYTHONUNBUFFERED=1")
            program = (sys.executable, "-m", "lateen.control")
            self.lateen("image", "add", "--mount", directory, *environment, "lateen/pilot", "--", *program)
        wanted = (
            ["--set", f"components.pilot.k8s.env[name:{EXPERIMENTAL}].value=true"] if channel == "experimental" else []
        )
        self.lateen("install", "-y", "--set", "profile=default", *wanted)
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
            # istiod makes the class once it leads, which may be after the installation has ended
            text = self.lateen("kubectl", "get", "gatewayclass", CLASS, "--ignore-not-found", "-o", "json")
            found = jsons.loads(text) if text.strip() else {}
            if listed := jsons.dig(found, "status", "supportedFeatures"):
                return [str(f["name"]) for f in listed]
            time.sleep(0.2)
        raise SystemExit(f"the GatewayClass {CLASS} says no supported features")

    def tests(self) -> Tests:
        """The suite's own list: no cluster is asked."""
        path = self.work / "tests.json"
        self.environment["LIST"] = str(path)
        self.run(self.work / "bin" / "suite", "-test.run=^TestList$", cwd=HERE)
        found: Tests = jsons.loads(path.read_bytes())
        return found

    def suite(self, log: Path, report: Path, given: argparse.Namespace) -> int:
        """Run it; its output goes to ``log``, and each test's outcome is printed. Returns its exit code."""
        names = "|".join(given.test or ())
        arguments = [
            f"-gateway-class={CLASS}",
            f"-supported-features={','.join(self.features())}",
            f"-conformance-profiles={','.join(given.profile or PROFILES)}",
            f"-usable-address={USABLE}",
            f"-unusable-address={UNUSABLE}",
            f"-report-output={report}",
            "-organization=lateen",
            "-project=lateen",
            "-url=https://lateen.dev",
            f"-version=v{__version__}",
            "-contact=@lateen/maintainers",
        ]
        which = f"^TestConformance$/^({names})$" if names else "^TestConformance$"
        words = [str(self.work / "bin" / "suite"), "-test.timeout=4h", "-test.v=test2json", f"-test.run={which}"]
        running = subprocess.Popen(
            [*words, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=self.environment,
            cwd=HERE,
        )
        assert running.stdout is not None
        end = time.monotonic() + 60 * given.minutes
        try:
            with log.open("w") as out:
                for line in running.stdout:
                    out.write(line)
                    if found := OUTCOME.match(line):
                        print(f"{found[1]} {found[2]} {found[3]}", flush=True)
                    if time.monotonic() > end:
                        print(f"cut after {given.minutes:g} minutes", flush=True)
                        break
        except KeyboardInterrupt:
            print("cut", flush=True)
        running.kill()
        return running.wait()


def outcomes(log: Path) -> dict[str, str]:
    """Test -> PASS, FAIL or SKIP, of those that are no part of another."""
    with log.open(errors="replace") as lines:
        return {found[2]: found[1] for line in lines if (found := OUTCOME.match(line))}


def summary(tests: Tests, found: dict[str, str]) -> Iterator[str]:
    """What has passed, failed, been skipped, and not been reached, by profile, and the names of all but the first."""
    for profile in (*PROFILES, ""):
        for level in ("core", "extended") if profile else ("",):
            names = [
                n
                for n, t in tests.items()
                if t["profiles"].get(profile, "") == level and (profile or not t["profiles"])
            ]
            counts = Counter(found.get(n, "") for n in names)
            told = ", ".join(f"{counts[outcome]} {says}" for outcome, says in SAYS.items())
            yield f"{profile or 'no profile':13} {level:9} {told}"
            for outcome in ("FAIL", "SKIP"):
                yield from (f"    {SAYS[outcome]}: {n}" for n in names if found.get(n) == outcome)


def page(tests: Tests, found: dict[str, str], report: Json) -> str:
    """The summary for ``docs``."""
    features = {p["name"]: p.get("extended", {}) for p in report["profiles"]}
    version, channel = report["gatewayAPIVersion"], report["gatewayAPIChannel"]
    lines = [
        "# The Gateway API's conformance suite",
        "",
        f"Version {version}, {channel} channel, {len(tests)} tests; no test is exempted.",
        "The whole report is [gateway-api-report.yaml](gateway-api-report.yaml);",
        "`make test-gateway-api` runs the suite again (it needs Go) and writes both.",
        "",
        "| profile | core | extended | features |",
        "| --- | --- | --- | --- |",
    ]
    for profile in PROFILES:
        cells = [_tally(tests, found, profile, level) for level in ("core", "extended")]
        own = features.get(profile, {})
        some, none = len(own.get("supportedFeatures") or ()), len(own.get("unsupportedFeatures") or ())
        lines.append(f"| {profile} | {' | '.join(cells)} | {some} of {some + none} |")
    lines += [f"| of no profile | {_tally(tests, found, '', '')} | | |", ""]
    bad = sorted(f"{n} ({SAYS[found.get(n, '')]})" for n in tests if found.get(n) != "PASS")
    lines += ["Not passed: " + (", ".join(bad) or "none") + ".", ""]
    asked = {f for t in tests.values() for f in t["features"]}
    said = {f for p in features.values() for f in p.get("supportedFeatures") or ()}
    lines += [
        "Features that are declared, and that no test of the suite is about: " + ", ".join(sorted(said - asked)),
        "",
    ]
    return "\n".join(lines)


def _tally(tests: Tests, found: dict[str, str], profile: str, level: str) -> str:
    names = [n for n, t in tests.items() if (t["profiles"].get(profile) == level if profile else not t["profiles"])]
    return f"{sum(found.get(n) == 'PASS' for n in names)} of {len(names)}"


def attempt(trial: Trial, go: str, given: argparse.Namespace) -> int:
    profiles = given.profile or list(PROFILES)
    print("building the suite and the programs of its images", flush=True)
    trial.build(go)
    tests = trial.tests()
    if unknown := sorted(set(given.test or ()) - tests.keys()):
        print(f"the suite has no test {', '.join(unknown)}", file=sys.stderr)
        return 2
    log, report = trial.work / "suite.log", trial.work / "report.yaml"
    report.unlink(missing_ok=True)
    log.write_text("")
    code = 1
    try:
        trial.start(any(p.startswith("GATEWAY") for p in profiles), given.channel, given.mutate or "")
        print(f"running {', '.join(given.test or profiles)}; its output goes to {log}", flush=True)
        code = trial.suite(log, report, given)
    finally:
        if not given.keep:
            trial.lateen("cluster", "delete")
        print("\n".join(summary(tests, outcomes(log))), flush=True)
    if given.mutate:
        return judged(given.mutate, given.test, outcomes(log))
    if report.exists() and not given.test and not given.profile:
        shutil.copyfile(report, given.report)
        written: Json = yamldoc.load(report.read_text())
        given.report.with_name(PAGE).write_text(page(tests, outcomes(log), written))
        print(f"wrote {given.report}")
    return code


def judged(mutant: str, tests: list[str], found: dict[str, str]) -> int:
    """Whether all tests have noticed what is missing: 0, else 1."""
    told = ", ".join(f"{t} {SAYS[found.get(t, '')]}" for t in tests)
    print(f"without {mutant}: {told}")
    return 1 if any(found.get(t) != "FAIL" for t in tests) else 0


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", action="append", choices=PROFILES, help="only these profiles; may be repeated")
    parser.add_argument("--test", action="append", help="only this test, by its short name; may be repeated")
    parser.add_argument("--channel", choices=("standard", "experimental"), default="experimental")
    parser.add_argument("--minutes", type=float, default=180, help="cut the run after this time")
    parser.add_argument("--keep", action="store_true", help="let the cluster run afterwards")
    parser.add_argument("--work", type=Path, help="a directory for programs, cluster and log; kept, and used again")
    parser.add_argument("--report", type=Path, default=REPORT)
    parser.add_argument("--mutate", choices=MUTANTS, help="run istiod without this feature, and the tests of it")
    given = parser.parse_args()
    if given.mutate:
        given.test = given.test or list(MUTANTS[given.mutate].tests)
    go = shutil.which("go")
    if go is None:
        print("the conformance suite is a Go program; install Go 1.26 or newer (https://go.dev/dl/)", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, interrupted)
    with tempfile.TemporaryDirectory(prefix="lateen-gateway-api-") as directory:
        trial = Trial((given.work or Path(directory)).absolute())
        trial.work.mkdir(parents=True, exist_ok=True)
        return attempt(trial, go, given)


if __name__ == "__main__":
    sys.exit(main())
