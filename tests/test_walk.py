"""The way of ``lr`` from the command line to results.csv is the one in docs/DESIGN.md."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import lungan

DESIGN = Path(lungan.__file__).parents[1] / "docs" / "DESIGN.md"

WALK = """
import sys
from pathlib import Path
import lungan
ROOT = str(Path(lungan.__file__).parent) + "/"
LR, TEXT = 0.00037, ("0.00037", "lr=0.00037")
files = set()

def holds(value, depth=0):
    if type(value) is float:
        return value == LR
    if type(value) is str:
        return value in TEXT or "\\nlr: 0.00037\\n" in value
    if depth < 3 and type(value) is dict:
        return any(holds(each, depth + 1) for each in value.values())
    return depth < 3 and type(value) in (list, tuple) and any(holds(x, depth + 1) for x in value)

def look(frame, event, given):
    path = frame.f_code.co_filename
    if not path.startswith(ROOT):
        return None
    frame.f_trace_lines = False
    if path not in files and any(map(holds, [given, *list(frame.f_locals.values())])):
        files.add(path)
    return look

from lungan.results import __main__ as results
from lungan.train import main

sys.settrace(look)
main("lr=0.00037 epochs=1 data.num_images=64 data.num_test=8 generator.width=8 batch_size=32 "
     "discriminator.width=8 score=none threads=1 device=cpu store=store".split())
results.main(["store", "--columns", "lr", "--out", "out"])
sys.settrace(None)
assert ",0.00037," in Path("out/results.csv").read_text()
print("files:", *sorted(path.removeprefix(ROOT) for path in files))
"""


def test_lr_is_held_by_the_files_that_the_design_lists(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WALK], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    *_, last = done.stdout.splitlines()
    text = (
        DESIGN.read_text(encoding="utf-8").partition("## The way of `lr`")[2].partition("\n## ")[0]
    )
    assert set(last.split()[1:]) == set(re.findall(r"`((?!tests/)[\w/]+\.py)`", text))
