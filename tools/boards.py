"""Write Grafana's JSON of the console's boards: python tools/boards.py"""

from __future__ import annotations

import json
from pathlib import Path

TARGET = Path(__file__).parents[1] / "samples" / "grafana"


def files() -> dict[str, str]:
    """File name -> text."""
    from lateen.console.boards import BOARDS
    from lateen.console.panels import grafana

    return {f"{b.name}.json": json.dumps(grafana(b), indent=2) + "\n" for b in BOARDS}


if __name__ == "__main__":
    TARGET.mkdir(exist_ok=True)
    for name, text in files().items():
        (TARGET / name).write_text(text)
        print(TARGET / name)
