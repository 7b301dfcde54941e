"""What processes load: istiod starts quickly and stays small."""

import subprocess
import sys

UNWANTED = ("grpc", "numpy", "prompt_toolkit", "rich", "pygments")
"""Of the collector, and of command lines that nobody here uses."""


def test_istiod_loads_neither_the_collectors_libraries_nor_foreign_command_lines():
    asked = f"import sys, lateen.control.app; print([m for m in {UNWANTED} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_expressions_are_evaluated_without_the_command_line_of_their_library():
    asked = "import lateen, cel, sys; print(cel.evaluate('1 + 2'), 'prompt_toolkit' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["3", "False"]
