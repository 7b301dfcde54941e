"""Generated pages are those of this code."""

import subprocess
import sys
from pathlib import Path

TOOL = Path(__file__).parents[2] / "tools" / "docs.py"


def test_generated_pages_are_up_to_date():
    """In a process of its own, as whoever runs the tool has it: a command keeps its options once it has made them."""
    done = subprocess.run([sys.executable, str(TOOL), "--check"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
