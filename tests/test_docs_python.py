"""docs/notebook.ipynb runs, and is kept without its outputs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[1] / "docs" / "notebook.ipynb"
CELLS = [
    cell
    for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    if cell["cell_type"] == "code"
]


def test_the_notebook_has_no_outputs() -> None:
    assert CELLS and not any(cell["outputs"] or cell["execution_count"] for cell in CELLS)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_notebook_runs(tmp_path: Path) -> None:
    code = "\n\n".join("".join(cell["source"]) for cell in CELLS)
    check = "\nassert [run.status for run in sweep.runs] == ['done'] * 4 and len(table) == 4"
    check += "\nassert (sweep.folder / 'report.html').is_file() and images.any()"
    done = subprocess.run(
        [sys.executable, "-c", code + check],
        cwd=tmp_path,
        env=os.environ
        | {
            "PYTHONPATH": str(NOTEBOOK.parents[1]),
            "MPLBACKEND": "agg",
            "LUNGAN_CACHE": str(tmp_path / "cache"),
        },
        capture_output=True,
        text=True,
        timeout=1100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
