"""TensorBoard: scalars, grids and hyperparameters with scores, in the run folder."""

from __future__ import annotations

import shutil
from typing import Any

from lungan.config import TrackerConfig
from lungan.runs.folder import flatten
from lungan.tracking.records import Epoch, TrackedRun, TrackerError

FOLDER = "tensorboard"


class TensorBoardTracker:
    """Event files in ``tensorboard/`` of the run folder, whole at each start of the run; one
    ``tensorboard --logdir <store>`` shows them all."""

    def __init__(self, config: TrackerConfig, run: TrackedRun) -> None:  # noqa: ARG002
        self._tracked = run
        self._writer: Any = None

    def open(self) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise TrackerError(
                f"TensorBoard is not installed ({error}); pip install tensorboard"
            ) from error
        directory = self._tracked.folder / FOLDER
        shutil.rmtree(directory, ignore_errors=True)
        self._writer = SummaryWriter(str(directory))
        self._writer.add_text("run", f"{self._tracked.name}\n\n{self._tracked.question}")

    def add(self, epoch: Epoch) -> None:
        for key, value in epoch.metrics.items():
            if key != "epoch":
                self._writer.add_scalar(key, value, epoch.epoch)
        for key, value in epoch.scores.items():
            self._writer.add_scalar(f"scores/{key}", value, epoch.epoch)
        if epoch.samples is not None:
            import numpy as np
            from PIL import Image

            with Image.open(epoch.samples) as image:
                pixels = np.asarray(image.convert("RGB"))
            self._writer.add_image("samples", pixels, epoch.epoch, dataformats="HWC")
        self._writer.flush()

    def close(self, summary: dict[str, Any] | None) -> None:
        if summary is not None:
            from torch.utils.tensorboard.summary import hparams

            scores = (summary.get("scores") or {}).get("values", {})
            found = {f"scores/{key}": value for key, value in scores.items() if value is not None}
            flat = flatten(self._tracked.config) | {"status": summary["status"]}
            settings = {key: value for key, value in flat.items() if value is not None}
            for record in hparams(settings, found):  # type: ignore[no-untyped-call]
                self._writer.file_writer.add_summary(record)
        self._writer.close()
