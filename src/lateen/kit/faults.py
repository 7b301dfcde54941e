"""Unexpected exceptions as sentences: a fault of ours in what one object goes through is told as a finding about it."""

from __future__ import annotations

import traceback
from pathlib import Path


def sentence(e: BaseException) -> str:
    """What went wrong and where, for whoever can only change the object."""
    at = traceback.extract_tb(e.__traceback__)[-1]
    what = " ".join(str(e).split())[:200]
    cause = f"{type(e).__name__}: {what}; {Path(at.filename).name}:{at.lineno}"
    return f"cannot be checked because of a fault in Lateen ({cause}): report it, and write this differently until then"
