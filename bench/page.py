"""One HTML page of a result of `peers`: `page.html` with the data put in; it loads nothing from elsewhere."""

import json
from pathlib import Path
from typing import Any

from bench import report

TEMPLATE = Path(__file__).parent / "page.html"
MARK = "/*DATA*/null"


def write(path: Path, data: dict[str, Any]) -> None:
    """Write the page; ratios are added to the rows, so that the page only shows them."""
    rows = [row | {"ratios": {ours: report.ratios(row, ours) for ours in data["ours"]}} for row in data["rows"]]
    means = {ours: report.summary(data, ours) for ours in data["ours"]}
    text = json.dumps(data | {"rows": rows, "means": means}).replace("<", "\\u003c")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(TEMPLATE.read_text().replace(MARK, text), encoding="utf-8")
