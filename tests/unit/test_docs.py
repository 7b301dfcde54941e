"""Generated pages are those of this code."""

import importlib.util
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "docs.py"
spec = importlib.util.spec_from_file_location("docs", TOOL)
docs = importlib.util.module_from_spec(spec)
spec.loader.exec_module(docs)


@pytest.mark.parametrize("page", docs.PAGES)
def test_a_generated_page_is_up_to_date(page, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    assert (docs.DOCS / page).read_text() == docs.PAGES[page](), "run: python tools/docs.py"
