"""Scoring a run's generator: which encoders, the scores, and where they are kept."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lungan.config import DataConfig, ScoreConfig
from lungan.data.images import ImageSet
from lungan.models.sampling import sample_images
from lungan.runs import pictures
from lungan.runs.folder import SCORES, pairs_path, read_json, write_json
from lungan.runs.prepare import Prepared
from lungan.scores import encoders, evaluate, feature_cache
from lungan.scores.encoders import Encoder
from lungan.scores.evaluate import ProgressLine

SELECTION = "frechet_distance"
"""What the best epoch is chosen by, lowest first, in the first encoder that has it. It is taken
against the images trained on, so that no test image chooses anything."""

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
        built = self._built()
        with ProgressLine() as progress:
            result = evaluate.score_images(
                generated,
                self._image_set,
                splits=self._data.splits,
                classes=self._data.classes,
                config=self._config,
                encoders=built,
                reasons=self.reasons,
                epoch=epoch,
                progress=progress,
                on_pairs=lambda name, picture: pictures.write_png(
                    pairs_path(self._folder, name), picture
                ),
            )
        path = self._folder / SCORES
        scores = read_json(path) if path.exists() else {}
        scores[result["scoring_id"]] = result
        write_json(path, scores)
        return result

    def find(self, epoch: int) -> dict[str, Any] | None:
        """What scores.json has for this epoch under this config and these encoders."""
        path = self._folder / SCORES
        if not path.exists():
            return None
        wanted = evaluate.shaping(self._config)
        for result in read_json(path).values():
            if (
                result["epoch"] == epoch
                and result.get("version") == feature_cache.VERSION
                and set(self.names) <= {*result["encoders"], *result["reasons"]}
                and set(result["encoders"]) <= set(self.names)
                and wanted.items() <= result["config"].items()
            ):
                found: dict[str, Any] = result
                return found
        return None

    def curve(self) -> list[dict[str, Any]]:
        """Epoch and selecting score of every result in scores.json, by epoch."""
        path = self._folder / SCORES
        rows: dict[int, dict[str, Any]] = {}
        for result in read_json(path).values() if path.exists() else ():
            for name in self.names:
                value = result["values"].get(f"{name}.{SELECTION}")
                if value is not None and result["epoch"] is not None:
                    score = f"{name}.{SELECTION}"
                    rows[result["epoch"]] = {
                        "epoch": result["epoch"],
                        "score": score,
                        "value": value,
                    }
                    break
        return [rows[epoch] for epoch in sorted(rows)]

    def best(self) -> dict[str, Any] | None:
        """The epoch of the curve with the lowest selecting score; None without a curve."""
        rows = self.curve()
        return min(rows, key=lambda row: row["value"] or math.inf) if len(rows) > 1 else None

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
