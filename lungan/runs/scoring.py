"""Scoring images, or a run's generator: which encoders, the scores, and where they are kept."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lungan.config import ScoreConfig, presets
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
    read_run,
    read_scores,
)
from lungan.runs.prepare import Prepared, load_and_keep
from lungan.runs.store import claimed_finished
from lungan.scores import catalogue, encoders, evaluate, near_copies
from lungan.scores.encoders import Encoder

log = logging.getLogger(__name__)


@dataclass
class Scorer:
    """Scores images against the real ones that their generator was trained on.

    image_set: all splits and classes; ``splits`` and ``classes`` are those trained on, empty for
    all. folder: for pictures of the closest pairs; None for none.

    Raises: WeightsError, ConfigError at construction, before anything is trained, where an
    encoder that must be there is not.
    """

    config: ScoreConfig
    image_set: ImageSet
    splits: Sequence[str]
    classes: Sequence[str]
    device: torch.device
    folder: Path | None

    def __post_init__(self) -> None:
        self.names, self.reasons = encoders.resolve(self.config)

    def announce(self) -> None:
        """Say which scores there will not be, and why."""
        for name, reason in self.reasons.items():
            log.warning("no %s scores: %s", name, reason)

    def reference(self) -> ImageSet:
        """The real images trained on. Raises: ConfigError, DataError as ``ImageSet.select``."""
        return self.image_set.select(self.splits, self.classes)

    def sample(self, generator: nn.Module) -> Tensor:
        """As many images as are scored, (N, C, H, W) uint8 on the scorer's device.

        Raises: DataError where there are too few real ones.
        """
        count = evaluate.num_images_a_side(len(self.reference()), self.config)
        return sample_images(generator, count, self.config.seed, self.device)

    @cached_property
    def encoders(self) -> list[Encoder]:
        """Those that can be had; what these images leave unfit is said. Raises: WeightsError."""
        built, unfit = encoders.build_all(self.names, self.config, self.image_set, self.device)
        for name, reason in unfit.items():
            log.warning("no %s scores: %s", name, reason)
        self.reasons |= unfit
        return built

    def measure(
        self, generated: NDArray[np.uint8] | Tensor, epoch: int | None = None
    ) -> dict[str, Any]:
        """The result of ``generated`` (N, C, H, W) uint8, as ``evaluate.score_images`` gives it.

        Raises: DataError where images cannot be scored.
        """
        return evaluate.score_images(
            generated,
            self.image_set,
            splits=self.splits,
            classes=self.classes,
            config=self.config,
            encoders=self.encoders,
            reasons=self.reasons,
            epoch=epoch,
            on_pairs=self._write_pairs,
        )

    def _write_pairs(
        self, encoder: str, generated: NDArray[np.uint8], training: NDArray[np.uint8]
    ) -> None:
        if self.folder is not None:
            with pictures.spared(f"closest pairs of {encoder}"):
                pictures.write_pairs(pairs_path(self.folder, encoder), generated, training)


class RunScorer(Scorer):
    """Scores generators of the run in ``folder``; its scores.json keeps the results."""

    folder: Path

    def score(self, generator: nn.Module, epoch: int) -> dict[str, Any]:
        """The result of the generator after ``epoch``, added to scores.json.

        Raises: DataError where images cannot be scored, RunFolderError.
        """
        result = self.measure(self.sample(generator), epoch)
        path = self.folder / SCORES
        scores = read_scores(self.folder)
        scores[result["scoring_id"]] = result
        write_json(path, scores)
        return result

    def score_finished(self, *, anew: bool) -> dict[str, Any]:
        """Score the final generator and put the result into summary.json; gives the summary.

        anew: also where scores.json has the result, as another process may have left it there.

        Raises: as ``score``; BusyError where another process has the run.
        """
        with claimed_finished(self.folder):
            summary = read_run(self.folder).summary
            epochs = summary["epochs_done"]
            result = None if anew else self.find(epochs)
            if result is None:
                self.announce()
                result = self.score(load_generator(self.folder / GENERATOR), epochs)
            summary["scores"] = result
            write_json(self.folder / SUMMARY, summary)
        return summary

    def find(self, epoch: int) -> dict[str, Any] | None:
        """What scores.json has for this epoch under this config and these encoders."""
        wanted = evaluate.shaping(self.config)
        for result in read_scores(self.folder).values():
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
        for result in read_scores(self.folder).values():
            values, epoch = result["values"], result["epoch"]
            keys = (f"{name}.{catalogue.LEADING}" for name in self.names)
            key = next((key for key in keys if values.get(key) is not None), None)
            if key is not None and epoch is not None:
                rows[epoch] = {"epoch": epoch, "score": key, "value": values[key]}
        # Of equal scores, the first epoch's.
        by_score = sorted(rows.values(), key=lambda row: (float(row["value"]), row["epoch"]))
        return by_score[0] if len(by_score) > 1 else None


def build_scorer(prepared: Prepared, folder: Path) -> RunScorer | None:
    """None where the config asks for no score."""
    config = prepared.config
    if not config.score.encoders:
        return None
    data, device = config.data, prepared.device
    return RunScorer(config.score, prepared.image_set, data.splits, data.classes, device, folder)


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
    skipped, num_scored = [], 0
    for folder in map(Path, folders):
        run = read_run(folder)
        if run.status != "done":
            ending = f"holds a {run.status} run" if run.summary else "has no finished run"
            skipped.append(f"{folder} {ending}")
            continue
        config = read_config(folder)
        image_set, _ = load_and_keep(config.data)  # runs of a sweep come together
        scores = presets.load_score(score, config.score, changes)
        splits, classes = config.data.splits, config.data.classes
        scorer = RunScorer(scores, image_set, splits, classes, chosen_device, folder)
        num_scored += 1
        yield folder, scorer.score_finished(anew=True)["scores"]
    if not num_scored:
        raise RunFolderError(
            f"nothing to score: {', '.join(skipped)}; give folders of finished runs"
        )
    for line in skipped:
        log.warning("skipped: %s", line)
