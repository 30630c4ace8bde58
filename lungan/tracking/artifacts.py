"""The W&B artifacts of ``lungan upload --artifacts``: data, generator and the tables of a sweep.

W&B draws their lineage: data, the run that used them, its generator, and the tables made of the
generators' scores. It knows an artifact by the hash of its content, so one that it has is not sent
again and gets no second version.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lungan.files import without_paths
from lungan.runs.folder import GENERATOR
from lungan.tracking.records import TrackedRun, data_found

if TYPE_CHECKING:
    import wandb


def data_artifact(run: TrackedRun, directory: Path) -> wandb.Artifact:
    """The hash that the run's data have, with the counts found in them; no image, no path."""
    summary = run.summary or {}
    content = directory / "data.json"
    content.write_text(json.dumps({"data_hash": summary["data_hash"]}))
    name = f"data-{summary['data_hash'][:16]}"
    return _artifact(name, "dataset", {content.name: content}, {"found": data_found(summary)})


def generator_artifacts(run: TrackedRun, directory: Path) -> list[wandb.Artifact]:
    """The run's final generator as ``load_generator`` takes it, without the paths of its plug-ins;
    none for a run that has none."""
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    path, summary = run.folder / GENERATOR, run.summary or {}
    if not path.is_file():
        return []
    with safe_open(path, "pt") as stream:
        description = json.loads(stream.metadata()["lungan"])
    content = directory / f"{run.run_id}.safetensors"
    save_file(load_file(path), content, {"lungan": json.dumps(without_paths(description))})
    metadata = {key: summary[key] for key in ("run_id", "data_hash", "epochs_done")}
    return [_artifact(f"generator-{run.run_id[:16]}", "model", {GENERATOR: content}, metadata)]


def tables_artifact(folder: Path, sweep: str) -> wandb.Artifact:
    """The CSV files in ``folder``, which ``lungan.results`` writes without paths."""
    tables = {path.name: path for path in sorted(folder.glob("*.csv"))}
    name = re.sub(r"[^\w.-]", "-", f"tables-{sweep}")[:128]
    return _artifact(name, "results", tables, {"sweep": sweep})


def _artifact(
    name: str, kind: str, files: Mapping[str, Path], metadata: dict[str, Any]
) -> wandb.Artifact:
    import wandb

    artifact = wandb.Artifact(name, type=kind, metadata=metadata)
    for inside, path in files.items():
        # Neither W&B's staging folder nor its cache gets a copy: the file outlives the upload.
        artifact.add_file(str(path), name=inside, policy="immutable", skip_cache=True)
    return artifact
