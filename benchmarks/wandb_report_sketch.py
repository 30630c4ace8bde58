"""A sketch of a W&B report, drawn from its spec: what stands where, without W&B's own drawing.

    python benchmarks/wandb_report_sketch.py wandb_report.json docs/images/wandb_report.png

Needs Chromium, which takes the picture.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from html import escape
from pathlib import Path
from typing import Any

ROW_PIXELS = 11
STYLE = f"""
body {{ font: 14px sans-serif; width: 940px; margin: 16px 24px; color: #222 }}
.grid {{ display: grid; grid-template-columns: repeat(24, 1fr); gap: 4px }}
.grid {{ grid-auto-rows: {ROW_PIXELS}px }}
.panel {{ border: 1px solid #bbb; background: #f6f7f8; padding: 6px; overflow: hidden }}
.panel small {{ color: #777; display: block; margin-top: 4px }}
pre {{ background: #f6f7f8; padding: 8px }}
"""


def text_of(block: dict[str, Any]) -> str:
    return block.get("text", "") + "".join(map(text_of, block.get("children", [])))


def panel(given: dict[str, Any]) -> str:
    box, config = given["layout"], given["config"]
    place = f"grid-area: {box['y'] + 1} / {box['x'] + 1} / span {box['h']} / span {box['w']}"
    shown = ", ".join(config.get("metrics") or config.get("mediaKeys") or [])
    title = config.get("chartTitle") or given["viewType"]
    words = f"{escape(title)}<small>{given['viewType']}: {escape(shown)}</small>"
    return f'<div class="panel" style="{place}">{words}</div>'


def draw(block: dict[str, Any]) -> str:
    match block["type"]:
        case "heading":
            return f"<h2>{escape(text_of(block))}</h2>"
        case "list":
            items = (f"<li>{escape(text_of(item))}</li>" for item in block["children"])
            return f"<ul>{''.join(items)}</ul>"
        case "panel-grid":
            panels = block["metadata"]["panelBankSectionConfig"]["panels"]
            return f'<div class="grid">{"".join(map(panel, panels))}</div>'
        case "markdown-block":
            return f"<pre>{escape(block['content'].strip('`').removeprefix('bash').strip())}</pre>"
    return f"<p>{escape(text_of(block))}</p>"


def main(spec: Path, picture: Path) -> None:
    report = json.loads(spec.read_text(encoding="utf-8"))
    blocks = "".join(map(draw, report["spec"]["blocks"]))
    title = escape(report["displayName"])
    page = f"<meta charset=utf-8><style>{STYLE}</style><h1>{title}</h1>{blocks}"
    with tempfile.TemporaryDirectory() as folder:
        html = Path(folder) / "report.html"
        html.write_text(page, encoding="utf-8")
        options = ["--headless", "--no-sandbox", "--hide-scrollbars", "--window-size=1000,1750"]
        subprocess.run(
            ["chromium", *options, f"--screenshot={picture.resolve()}", html.as_uri()], check=True
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
