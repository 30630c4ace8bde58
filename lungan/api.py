"""lungan from Python: the functions behind the commands, which print nothing.

``import lungan`` does not load this module; ``lungan.train(...)`` and the others do. What a
user can mend is raised as a ``LunganError``. The log of the logger ``lungan`` has the rest. torch
is imported once the arguments are known to be right, so that a mistake is answered at once.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from lungan.config import RunConfig, compose, presets
from lungan.config.rules import above, any_seed, between, check_fields, one_of
from lungan.errors import ConfigError, shown
from lungan.files import at_home
from lungan.results.read import load
from lungan.runs.folder import GENERATOR, Run, open_run, read_config

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray
    from torch import Tensor

    from lungan.data.images import ImageSet

    Images = str | Path | NDArray[np.uint8] | Tensor | ImageSet

__all__ = ["Run", "Sweep", "generate", "load", "open", "score", "sweep", "train"]

PathLike: TypeAlias = str | Path

log = logging.getLogger(__name__)


@dataclass(kw_only=True, slots=True)
class ImageOptions:
    """What ``score`` may be asked for about images. No names: those that are usual."""

    size: int | None = between(16, 512)
    channels: int | None = one_of(1, 3)
    on_bad_image: str = one_of("error", "skip")
    splits: list[str]
    classes: list[str]


@dataclass(kw_only=True, slots=True)
class DrawOptions:
    """What ``generate`` and its command may be asked for. ``num_images``: at most as many as
    data=phantom draws, which take days."""

    num_images: int = between(1, 10**7)
    seed: int = any_seed()
    truncation: float | None = above(0)


def train(
    config: RunConfig | Sequence[str] = (),
    *,
    start: PathLike | None = None,
    config_dirs: Sequence[PathLike] = (),
) -> Run:
    """Do one run, or find that it was done; a shorter run of the same settings is continued.

    config: overrides such as ``["optimizer=adam", "lr=0.0005"]``, or a whole RunConfig.
    start: a run's folder or a config.yaml that the overrides change, instead of the defaults.
    config_dirs: folders of YAML of your own, as the command's ``--config-dir``.

    A run that diverges is returned, with ``status`` ``diverged``. Ctrl-C leaves a checkpoint before
    KeyboardInterrupt is raised, and the same call goes on.

    Raises: ConfigError, DataError, WeightsError, RunFolderError.
    """
    if isinstance(config, RunConfig):
        if start is not None or config_dirs:
            raise ConfigError(
                "start and config_dirs go with overrides, and a RunConfig is whole without them: "
                "leave them out, or give overrides"
            )
    else:
        with _composing(start, config_dirs) as begin:
            config = compose.compose(_texts(config), begin, sweeping="use lungan.sweep")
    from lungan.runs.prepare import prepare
    from lungan.runs.run import StopSignal, run

    stop = StopSignal()
    with stop.installed():
        return run(prepare(config), stop=stop)


@dataclass(frozen=True, slots=True)
class Sweep:
    """A sweep that has ended. ``runs``: in the order of the plan, whatever became of them.
    ``folder``: where its tables, figures and report.html are."""

    name: str
    store: Path
    folder: Path
    runs: tuple[Run, ...]

    def table(self) -> pd.DataFrame:
        """A row a run, as ``lungan.load`` gives it."""
        return load(self.store, self.name)


def sweep(
    overrides: Sequence[str],
    *,
    name: str | None = None,
    question: str = "",
    launcher: str = "local",
    start: PathLike | None = None,
    config_dirs: Sequence[PathLike] = (),
    **launcher_settings: Any,
) -> Sweep:
    """Do every combination of comma lists once, and leave tables, figures and a page.

    overrides: as of ``lungan.train``, with several values, such as ``["lr=0.001,0.0005"]``.
    launcher: how the runs are done: ``local`` (by processes on this machine), ``slurm``, ``ray``,
    ... and its settings, such as ``n_jobs=2``.

    A run that fails is recorded in its folder, and the others go on.

    Raises: as ``lungan.train``, before the first run.
    """
    if not isinstance(question, str):
        raise ConfigError(f"question must be text, got {shown(question)}")
    with _composing(start, config_dirs) as begin:
        swept = compose.compose_sweep(_texts(overrides), begin)
    from lungan import launchers
    from lungan.runs import sweep as sweeps

    settings = [("launcher", launcher)]
    settings += [(key, _plain(value)) for key, value in launcher_settings.items()]
    chosen = launchers.build(settings, "launcher", prefix="")
    plan = sweeps.plan_sweep(swept.runs, chosen, swept.name if name is None else name)
    question = question or swept.question
    runs = sweeps.run_sweep(plan, chosen, question=question, command="lungan.sweep(...)")
    folder = sweeps.write_results(plan.store, plan.sweep)
    return Sweep(plan.sweep, plan.store, folder or plan.store, tuple(runs))


def open(run: PathLike) -> Run:
    """A run's folder: config, metrics, scores and generator. Raises: RunFolderError."""
    return open_run(at_home(run, "run"))


def score(
    real: Images,
    fake: Images | Run,
    *,
    score: str | None = None,
    splits: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    size: int | None = None,
    channels: int | None = None,
    on_bad_image: str = "error",
    pairs: PathLike | None = None,
    device: str = "auto",
    **changes: Any,
) -> dict[str, Any]:
    """Score generated images against real ones, with the floors that the scores are read with.

    real: a folder of image files, an .npz, or images in memory: an array or tensor (N, H, W),
    (N, H, W, C) or (N, C, H, W) uint8, C 1 or 3, or an ImageSet, which has classes, splits and
    patients too. fake: one of these, a run, or a generator's file.
    score: ``fast``, ``standard`` (the default) or ``full``; changes: its settings, such as
    ``encoders=["domain"]`` and ``num_images=500``.
    splits, classes: of the real images, those that were trained on; all but a split named test.
    size, channels: crop, resize and convert both sides. pairs: a folder for pictures of the closest
    pairs.

    The result's ``values`` are the scores by name, its ``reasons`` say which are missing and why.

    Raises: ConfigError, DataError, WeightsError.
    """
    changes = {key: _plain(value) for key, value in changes.items()}
    config = presets.load_score(score, None, changes)
    chosen = ImageOptions(
        size=_plain(size),
        channels=_plain(channels),
        on_bad_image=on_bad_image,
        splits=[] if splits is None else _plain(splits),
        classes=[] if classes is None else _plain(classes),
    )
    check_fields(chosen)
    pairs_folder = None if pairs is None else at_home(pairs, "pairs")
    from lungan.data import build as data
    from lungan.data.images import ImageSet
    from lungan.data.inspect import describe_images
    from lungan.device import resolve_device
    from lungan.models.saving import load_generator
    from lungan.runs.scoring import Scorer
    from lungan.scores.evaluate import check_generated

    chosen_device = resolve_device(device)

    def read(images: Any, name: str) -> ImageSet:
        if isinstance(images, str | Path):
            path = at_home(images, name)
            name = str(path)
            found = data.read_images(path, chosen.size, chosen.channels, on_bad_image)
        elif isinstance(images, ImageSet):
            fitted = data.read_array(images.images, name, chosen.size, chosen.channels)
            found = replace(images, images=fitted.images)
        else:
            found = data.read_array(images, name, chosen.size, chosen.channels)
        for line in describe_images(found, name):
            log.info(line)
        return found

    place = fake.folder if isinstance(fake, Run) else fake
    if isinstance(place, str | Path):
        place = at_home(place, "fake")
        place = place / GENERATOR if (place / GENERATOR).is_file() else place
    generator = None
    if isinstance(place, Path) and place.suffix == ".safetensors":
        generator = load_generator(place)  # before the real images, which may be many
    real_images = read(real, "real")
    present = [name for n, name in enumerate(real_images.split_names) if n in real_images.splits]
    trained_on = chosen.splits or [name for name in present if name != "test"] or present
    scorer = Scorer(config, real_images, trained_on, chosen.classes, chosen_device, pairs_folder)
    scorer.announce()
    reference = scorer.reference()
    generated = read(place, "fake").images if generator is None else scorer.sample(generator)
    check_generated(generated, reference)
    if not scorer.encoders:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in scorer.reasons.items())
        raise ConfigError(f"none of score.encoders={shown(config.encoders)} can be had: {reasons}")
    return scorer.measure(generated)


def generate(
    run: PathLike | Run, num_images: int, *, seed: int = 0, device: str = "auto"
) -> NDArray[np.uint8]:
    """Images (num_images, C, H, W) uint8 of a run's generator, or of a generator's file.

    They are those that ``lungan generate`` writes with the same seed; that command makes data sets
    that do not fit into memory, too. A conditional generator's classes follow one another.

    Raises: RunFolderError, WeightsError, ConfigError, DataError.
    """
    num_images, seed = _plain(num_images), _plain(seed)
    check_fields(DrawOptions(num_images=num_images, seed=seed, truncation=None))
    from lungan import memory
    from lungan.device import resolve_device
    from lungan.generation.source import read_source
    from lungan.models.sampling import sample_images

    chosen_device = resolve_device(device)
    source = read_source(run.folder if isinstance(run, Run) else at_home(run, "run"))
    one = sample_images(source.generator, 1, seed, chosen_device)
    way_out = "lungan generate writes as many to a disk"
    memory.check(2 * num_images * one.nbytes, f"num_images={num_images}", way_out)
    images: NDArray[np.uint8] = (
        sample_images(source.generator, num_images, seed, chosen_device).cpu().numpy()
    )
    return images


def _plain(value: Any) -> Any:
    """Python's own of a sequence, or of numpy's numbers and arrays, for ``check_fields``."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return list(value)
    return value.tolist() if hasattr(value, "tolist") else value


@contextlib.contextmanager
def _composing(
    start: PathLike | None, config_dirs: Sequence[PathLike]
) -> Iterator[RunConfig | None]:
    """Hydra made ready for ``compose``; gives the saved config to start from."""
    if isinstance(config_dirs, str | Path) or not isinstance(config_dirs, Sequence):
        raise ConfigError(
            f'config_dirs must be a list of folders, such as ["conf"], got {shown(config_dirs)}'
        )
    begin = None if start is None else read_config(at_home(start, "start"))
    with compose.composer(config_dirs):
        yield begin


def _texts(overrides: Sequence[str]) -> list[str]:
    is_list = isinstance(overrides, Sequence) and not isinstance(overrides, str)
    if not is_list or not all(isinstance(each, str) for each in overrides):
        raise ConfigError(
            f'overrides must be a list of text, such as ["lr=0.0005"], got {shown(overrides)}'
        )
    return list(overrides)
