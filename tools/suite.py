"""Run tests, some files at a time; run those that fail beside others once more, alone:
``suite.py FILES-AT-A-TIME PYTEST-ARGUMENT…``

A system test waits for real processes, and a busy machine can exceed any limit of time. A test that fails again is
a failure; one that passes alone is named at the end, because it may have found a race. More than ``AGAIN`` failures
have a common cause, and are not run again.
"""

import json
import subprocess
import sys
from pathlib import Path

BY_FILES = ("--dist", "loadfile", "--no-loadscope-reorder")  # in the order of the files' names
AGAIN = 8
FAILED = Path(".pytest_cache/v/cache/lastfailed")
SOME_FAILED = 1  # pytest's exit code; all others are errors of the run itself


def main(at_once: str, arguments: list[str]) -> int:
    pytest = [sys.executable, "-m", "pytest"]
    FAILED.unlink(missing_ok=True)
    code = subprocess.run([*pytest, "-n", at_once, *BY_FILES, *arguments], check=False).returncode
    failed = sorted(json.loads(FAILED.read_text())) if code == SOME_FAILED and FAILED.exists() else []
    if not failed or len(failed) > AGAIN:
        return code
    print(f"{len(failed)} failed; running them once more, alone", flush=True)
    code = subprocess.run(
        [*pytest, "--last-failed", "--last-failed-no-failures=none", *arguments], check=False
    ).returncode
    if code == 0:
        print("These tests failed beside others and passed alone:", *failed, sep="\n  ", flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
