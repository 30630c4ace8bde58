"""The W&B artifacts of ``lungan upload --artifacts``: data, generator and the tables of a sweep.

W&B draws their lineage: data, the run that used them, its generator, and the tables made of the
generators' scores. It knows an artifact by the hash of its content, so one that it has is not sent
again and gets no second version.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lungan.runs.folder import GENERATOR
from lungan.tracking.records import without_paths

if TYPE_CHECKING:
    import wandb


def data_artifact(summary: Mapping[str, Any], directory: Path) -> wandb.Artifact:
    """The hash that the run's data have, with what was found in them; no image, no path."""
    content = directory / "data.json"
    content.write_text(json.dumps({"data_hash": summary["data_hash"]}))
    name = f"data-{summary['data_hash'][:16]}"
    return _artifact(name, "dataset", [content], {"found": summary["data"]})


def generator_artifact(
    folder: Path, summary: Mapping[str, Any], directory: Path
) -> wandb.Artifact | None:
    """The run's final generator as ``load_generator`` takes it, without the paths of its plug-ins;
    None for a run that has none."""
    import safetensors
    import safetensors.torch

    path = folder / GENERATOR
    if not path.is_file():
        return None
    with safetensors.safe_open(path, "pt") as stream:
        description = json.loads(stream.metadata()["lungan"])
    tensors = safetensors.torch.load_file(path)
    content = directory / GENERATOR
    safetensors.torch.save_file(
        tensors, content, {"lungan": json.dumps(without_paths(description))}
    )
    metadata = {key: summary[key] for key in ("run_id", "data_hash", "epochs_done")}
    return _artifact(f"generator-{summary['run_id'][:16]}", "model", [content], metadata)


def tables_artifact(folder: Path, sweep: str, directory: Path) -> wandb.Artifact:
    """The CSV files in ``folder``, with file names in place of paths."""
    copies = []
    for path in sorted(folder.glob("*.csv")):
        with path.open(newline="") as stream:
            reader = csv.DictReader(stream)
            rows = [
                {key: without_paths(cell, key.rpartition(".")[2]) for key, cell in row.items()}
                for row in reader
            ]
        copies.append(directory / path.name)
        with copies[-1].open("w", newline="") as stream:
            writer = csv.DictWriter(stream, reader.fieldnames or [])
            writer.writeheader()
            writer.writerows(rows)
    name = re.sub(r"[^\w.-]", "-", f"tables-{sweep}")[:128]
    return _artifact(name, "results", copies, {"sweep": sweep})


def _artifact(name: str, kind: str, files: list[Path], metadata: dict[str, Any]) -> wandb.Artifact:
    import wandb

    artifact = wandb.Artifact(name, type=kind, metadata=metadata)
    for path in files:
        # Neither W&B's staging folder nor its cache gets a copy: the file outlives the upload.
        artifact.add_file(str(path), policy="immutable", skip_cache=True)
    return artifact
