"""Generated pages are what would be generated now."""

import importlib.util
from pathlib import Path

TOOL = Path(__file__).parents[2] / "tools" / "docs.py"


def test_the_reference_is_up_to_date():
    spec = importlib.util.spec_from_file_location("docs", TOOL)
    docs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(docs)
    assert docs.TARGET.read_text() == docs.text()
