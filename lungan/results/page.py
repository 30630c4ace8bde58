"""The report as one HTML file that needs nothing else; all that comes from runs is escaped."""

from __future__ import annotations

import base64
import hashlib
import os
import re
from collections import Counter
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from lungan.results import numbers
from lungan.results.groups import status_counts
from lungan.results.read import STATUSES, Run
from lungan.results.tables import MAX_ROWS, Cell, Table, problems_table

if TYPE_CHECKING:
    from lungan.results.report import Results

_INSIDE_A_NUMBER = re.compile(
    r"(?<=\d) (?=%|± |to -?\d|of \d)|(?<=%) (?=CI )|(?<=% CI) (?=-?\d)|(?<=±) (?=\d)"
    r"|(?<=\d (?:to|of)) (?=-?\d)|(?<=\b[np]) (?=[=<] )|(?<=\b[np] [=<]) (?=\d)"
)
"""Spaces of ``95 % CI 1.2 to 3.4``, ``5.1 ± 0.3`` and ``p = 0.02``, where no line may break."""

_PROVENANCE = ("git_commit", "data_hash", "num_", "used.", "versions.", "encoders.")
"""How the facts begin that say what runs were made with."""


def render(results: Results) -> str:
    """The whole page; its links start from the folder ``results.out``."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    loader = PackageLoader("lungan.results")
    environment = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"base64": _base64, "moment": numbers.moment, "together": _together}
    script, style = (loader.get_source(environment, name)[0] for name in ("script.js", "style.css"))
    sweep, study = results.collection.sweep, results.collection.study
    title = f"Utility study {study}" if study else "All runs of the store"
    return environment.get_template("report.html.j2").render(
        title=f"Sweep {sweep}" if sweep else title,
        results=results,
        counts=status_counts(results.runs),
        statuses=STATUSES,
        num_significant=sum(each.significant for each in results.comparisons),
        num_tested=sum(each.p_holm is not None for each in results.comparisons),
        figures={figure.file: figure for figure in results.figures},
        problems=problems_table(results.problems),
        provenance=_provenance(results.runs),
        links=_links(results),
        sent=_sent(results),
        style=Markup(style),
        script=Markup(script),
        script_hash=_base64(hashlib.sha256(script.encode()).digest()),
    )


def _together(text: str) -> str:
    return _INSIDE_A_NUMBER.sub("\N{NO-BREAK SPACE}", text)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _links(results: Results) -> dict[str, str]:
    """The way from the page to each run's folder, by the run's display name.

    Only where that tells no more of this machine's folders than the store's name as it was given.
    """
    store = results.collection.store
    way = Path(os.path.relpath(store.resolve(), results.out.resolve()))
    named = [part for part in way.parts if part != ".."]
    given = (store.name,) if store.is_absolute() else store.parts
    if named != list(given[len(given) - len(named) :]):
        return {}
    return {
        results.names[run]: quote(os.fsencode(way / run.folder.name)) + "/"
        for run in results.runs
        if run.status != "missing"
    }


def _sent(results: Results) -> dict[str, str]:
    """Where W&B shows each run that it has, by the run's display name."""
    from lungan.tracking.wandb import address  # which needs more than this page

    found = {results.names[run]: address(run.folder) for run in results.runs[:MAX_ROWS]}
    return {name: place for name, place in found.items() if place}


def _provenance(runs: Sequence[Run]) -> Table:
    """Versions, commit, device, data and parameters, with how many runs had which."""
    found = dict.fromkeys(chain.from_iterable(run.facts for run in runs))
    rows = []
    for key in (key for key in found if key.startswith(_PROVENANCE)):
        counts = Counter(str(value) for run in runs if (value := run.facts.get(key)) is not None)
        values = [f"{each} ({n} runs)" if len(counts) > 1 else each for each, n in counts.items()]
        if values:
            rows.append([Cell(key.removeprefix("versions.")), Cell(", ".join(sorted(values)[:10]))])
    return Table(["what", "with"], rows)
