"""The catalogue of findings: Istio's (IST), and those that Lateen adds (LAT)."""

from __future__ import annotations

from lateen.analysis.catalogue.istio import ISTIO
from lateen.analysis.catalogue.kind import Kind
from lateen.analysis.catalogue.lateen import LATEEN

__all__ = ["CATALOGUE", "DOCUMENTS", "LEVELS", "Kind", "documentation"]

DOCUMENTS = "https://istio.io/latest/docs/reference/config/analysis"


def documentation(code: str) -> str:
    """The URL of a finding's explanation: Istio's page, or a section of docs/reference-findings.md."""
    if code.startswith("IST"):
        return f"{DOCUMENTS}/{code.lower()}/"
    return f"docs/reference-findings.md#{code.lower()}"


LEVELS = ("Info", "Warning", "Error")

CATALOGUE = {k.code: k for k in (*ISTIO, *LATEEN)}
