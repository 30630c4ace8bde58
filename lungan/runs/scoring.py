"""Scoring a run's generator: which encoders, the scores, and where they are kept."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from lungan.config import DataConfig, ScoreConfig, presets
from lungan.data import build as data
from lungan.data.images import ImageSet
from lungan.device import resolve_device
from lungan.errors import RunFolderError
from lungan.files import write_json
from lungan.models.sampling import sample_images
from lungan.models.saving import load_generator
from lungan.runs import pictures
from lungan.runs.folder import (
    GENERATOR,
    SCORES,
    SUMMARY,
    pairs_path,
    read_config,
    read_scores,
    read_summary,
)
from lungan.runs.prepare import Prepared
from lungan.runs.store import claimed_finished
from lungan.scores import catalogue, encoders, evaluate, near_copies
from lungan.scores.encoders import Encoder

log = logging.getLogger(__name__)


class Scorer:
    """Scores generators of one run folder against the run's own data.

    Raises: WeightsError, ConfigError at construction, before anything is trained, where an
    encoder that must be there is not.
    """

    def __init__(
        self,
        config: ScoreConfig,
        data: DataConfig,
        image_set: ImageSet,
        device: torch.device,
        folder: Path,
    ) -> None:
        self._config = config
        self._data = data
        self._image_set = image_set
        self._device = device
        self._folder = folder
        self._encoders: list[Encoder] | None = None
        self.names, self.reasons = encoders.resolve(config)

    def announce(self) -> None:
        """Say which scores the run will lack, and why."""
        for name, reason in self.reasons.items():
            log.warning("no %s scores: %s", name, reason)

    def score(self, generator: nn.Module, epoch: int) -> dict[str, Any]:
        """The result of the generator after ``epoch``, added to scores.json.

        Raises: DataError where images cannot be scored, RunFolderError.
        """
        reference = self._image_set.select(self._data.splits, self._data.classes)
        generated = sample_images(
            generator,
            evaluate.num_images_a_side(len(reference), self._config),
            self._config.seed,
            self._device,
        )
        result = evaluate.score_images(
            generated,
            self._image_set,
            splits=self._data.splits,
            classes=self._data.classes,
            config=self._config,
            encoders=self._built(),
            reasons=self.reasons,
            epoch=epoch,
            on_pairs=self._write_pairs,
        )
        path = self._folder / SCORES
        scores = read_scores(self._folder)
        scores[result["scoring_id"]] = result
        write_json(path, scores)
        return result

    def _write_pairs(
        self, encoder: str, generated: NDArray[np.uint8], training: NDArray[np.uint8]
    ) -> None:
        with pictures.spared(f"closest pairs of {encoder}"):
            pictures.write_pairs(pairs_path(self._folder, encoder), generated, training)

    def find(self, epoch: int) -> dict[str, Any] | None:
        """What scores.json has for this epoch under this config and these encoders."""
        wanted = evaluate.shaping(self._config)
        for result in read_scores(self._folder).values():
            if (
                result["epoch"] == epoch
                and result.get("version") == encoders.VERSION
                and set(self.names) <= {*result["encoders"], *result["reasons"]}
                and set(result["encoders"]) <= {*self.names, near_copies.NAME}
                and wanted.items() <= result["config"].items()
            ):
                return result
        return None

    def best(self) -> dict[str, Any] | None:
        """Epoch and leading score, lowest first, of the best epoch; None where fewer than two have
        a score.

        It is the first encoder's that has one, against the images trained on, so that no test
        image chooses anything.
        """
        rows: dict[int, dict[str, Any]] = {}
        for result in read_scores(self._folder).values():
            values, epoch = result["values"], result["epoch"]
            keys = (f"{name}.{catalogue.LEADING}" for name in self.names)
            key = next((key for key in keys if values.get(key) is not None), None)
            if key is not None and epoch is not None:
                rows[epoch] = {"epoch": epoch, "score": key, "value": values[key]}
        in_order = [rows[epoch] for epoch in sorted(rows)]
        return min(in_order, key=lambda row: float(row["value"])) if len(rows) > 1 else None

    def _built(self) -> list[Encoder]:
        if self._encoders is None:
            self._encoders, unfit = encoders.build_all(
                self.names, self._config, self._image_set, self._device
            )
            for name, reason in unfit.items():
                log.warning("no %s scores: %s", name, reason)
            self.reasons |= unfit
        return self._encoders


def build_scorer(prepared: Prepared, folder: Path) -> Scorer | None:
    """None where the config asks for no score."""
    config = prepared.config
    if not config.score.encoders:
        return None
    return Scorer(config.score, config.data, prepared.image_set, prepared.device, folder)


def score_runs(
    folders: Iterable[str | Path],
    score: str | None,
    changes: Mapping[str, Any],
    device: str,
) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Score finished runs anew, one by one; results are added to scores.json, and the last stands
    in summary.json.

    score: a choice of scores, None for each run's own. changes: settings of scores, on top.

    Raises: RunFolderError where no folder has a finished run or another process has one,
    ConfigError, DataError, WeightsError.
    """
    chosen_device = resolve_device(device)
    loaded: dict[str, ImageSet] = {}
    skipped: list[str] = []
    found = False
    for folder in map(Path, folders):
        summary = read_summary(folder) if folder.is_dir() else None
        if summary is None or summary["status"] != "done":
            ending = (
                "has no finished run" if summary is None else f"holds a {summary['status']} run"
            )
            skipped.append(f"{folder} {ending}")
            continue
        config = read_config(folder)
        key = repr(config.data)
        if key not in loaded:
            loaded.clear()  # one data set at a time; runs of a sweep come together
            loaded[key] = data.load(config.data)
        scores = presets.load_score(score, config.score, changes)
        scorer = Scorer(scores, config.data, loaded[key], chosen_device, folder)
        scorer.announce()
        generator = load_generator(folder / GENERATOR)
        with claimed_finished(folder):
            result = scorer.score(generator, summary["epochs_done"])
            summary["scores"] = result
            write_json(folder / SUMMARY, summary)
        found = True
        yield folder, result
    if not found:
        raise RunFolderError(f"nothing to score: {'; '.join(skipped)}")
    for line in skipped:
        log.warning("skipped: %s", line)
