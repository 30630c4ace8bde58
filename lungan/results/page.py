"""The report as one HTML file that needs nothing else; all that comes from runs is escaped."""

from __future__ import annotations

import base64
import hashlib
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from urllib.parse import quote

from lungan.results.comparisons import Comparison
from lungan.results.figures import Figure
from lungan.results.groups import status_counts
from lungan.results.read import STATUSES, Collection, Problem, Run
from lungan.results.tables import Cell, Table, problems_table
from lungan.results.utility_report import UtilityReport


def render(
    collection: Collection,
    comparisons: Sequence[Comparison],
    tables: Mapping[str, Table],
    figures: Sequence[Figure],
    problems: Sequence[Problem],
    verdicts: Sequence[str],
    caveats: Sequence[str],
    commands: Sequence[str],
    out: Path,
    utility: UtilityReport | None = None,
) -> str:
    """The whole page. tables: ``results``, ``summary`` and ``comparisons``. verdicts: the answer
    before the others. out: the folder that the page will lie in, which its links start from."""
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
    environment.filters["base64"] = _base64
    script, style = (loader.get_source(environment, name)[0] for name in ("script.js", "style.css"))
    return environment.get_template("report.html.j2").render(
        title=f"Sweep {collection.sweep}" if collection.sweep else "All runs of the store",
        collection=collection,
        counts=status_counts(collection.runs),
        statuses=STATUSES,
        answer=verdicts[0],
        findings=verdicts[1:],
        comparisons=comparisons,
        tests=_tests(comparisons),
        tables=tables,
        figures={figure.file: figure for figure in figures},
        problems=problems_table(problems),
        caveats=caveats,
        commands=commands,
        provenance=_provenance(collection.runs),
        links=_links(collection, out),
        utility=utility,
        style=Markup(style),
        script=Markup(script),
        script_hash=_base64(hashlib.sha256(script.encode()).digest()),
    )


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _links(collection: Collection, out: Path) -> dict[str, str]:
    """The way from the page to each run's folder, by the run's name.

    Only where that tells no more of this machine's folders than the store's name as it was given.
    """
    store = collection.store
    way = Path(os.path.relpath(store.resolve(), out.resolve()))
    named = [part for part in way.parts if part != ".."]
    told = (store.name,) if store.is_absolute() else store.parts
    if named != list(told[len(told) - len(named) :]):
        return {}
    return {
        run.name: quote(os.fsencode(way / run.folder.name)) + "/"
        for run in collection.runs
        if run.folder is not None
    }


def _tests(comparisons: Sequence[Comparison]) -> str:
    supported = sum(comparison.significant for comparison in comparisons)
    tested = sum(comparison.p_holm is not None for comparison in comparisons)
    untested = len(comparisons) - tested
    return (
        f"{len(comparisons)} comparisons: {supported} with a significant difference, "
        f"{tested - supported} without{f', {untested} could not be tested' if untested else ''}"
    )


def _provenance(runs: Sequence[Run]) -> Table:
    """Versions, commit, device, data and parameters, with how many runs had which."""
    found = dict.fromkeys(chain.from_iterable(run.facts for run in runs))
    named = ("git_commit", "used.device", "used.precision", "data_hash", "num_train_images")
    keys = [
        *(key for key in found if key.startswith("versions.")),
        *(key for key in named if key in found),
        *(key for key in found if key.startswith(("num_parameters.", "encoders."))),
    ]
    rows = []
    for key in keys:
        counts = Counter(str(run.facts[key]) for run in runs if run.facts.get(key) is not None)
        values = [
            f"{value} ({count} runs)" if len(counts) > 1 else value
            for value, count in sorted(counts.items())
        ]
        if values:
            rows.append([Cell(key.removeprefix("versions.")), Cell(", ".join(values[:10]))])
    return Table(["what", "with"], rows)
