"""``python -m lungan.score``: score finished runs, or any images against any real ones."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lungan.cli import CommandParser, run_as_program, run_command
from lungan.config import ScoreConfig, presets
from lungan.config.checks import check_fields
from lungan.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor

    from lungan.data.images import ImageSet

EXAMPLES = """examples:
  python -m lungan.score runs/*
      score finished runs anew as their configs say; results are added to scores.json
  python -m lungan.score runs/<run> --score full --encoders inception,domain
      with more floors and the extrapolation to infinitely many images
  python -m lungan.score --real <folder> --fake <folder>
      judge another system's images: folders of image files, .npz, or a generator's .safetensors
  python -m lungan.score --real data.npz --splits train,val --classes 1 --fake runs/<run>
      against the images that the generator trained on; the other splits are held out

Every score stands beside its floor: the same score between two disjoint sets of real images.
What the scores mean: docs/scores.md. Exit codes: 0 good, 2 bad input, 130 interrupted."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Gives its exit code."""
    options = _parser().parse_args(arguments)
    return run_command(lambda: _score(options))


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="python -m lungan.score",
        description="Score finished runs, or any generated images against any real ones.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", nargs="*", metavar="RUN", help="folder of a finished run")
    parser.add_argument("--real", metavar="PATH", help="real images: a folder or an .npz")
    parser.add_argument(
        "--fake", metavar="PATH", help="generated images: a folder, an .npz, a generator or a run"
    )
    presets_named = presets.choices("score")
    parser.add_argument(
        "--score",
        metavar="NAME",
        help=f"{', '.join(presets_named)} (a run's own, else standard)",
    )
    parser.add_argument(
        "--encoders",
        metavar="A,B",
        type=_names,
        help="auto, inception, domain, efficientnet_lite2",
    )
    parser.add_argument("--num-images", type=int, metavar="N", help="on each side; 0: all it can")
    parser.add_argument("--inception-weights", metavar="FILE", help="torchvision's inception_v3")
    parser.add_argument(
        "--require-inception", action="store_true", help="fail where Inception cannot be had"
    )
    images = parser.add_argument_group("with --real and --fake")
    images.add_argument(
        "--splits", metavar="A,B", type=_names, help="trained on (all but a split named test)"
    )
    images.add_argument("--classes", metavar="A,B", type=_names, help="trained on (all)")
    images.add_argument("--size", type=int, metavar="PIXELS", help="crop and resize both sides")
    images.add_argument("--channels", type=int, choices=(1, 3), help="convert both sides")
    images.add_argument(
        "--on-bad-image",
        choices=("error", "skip"),
        help="skip: leave out files that cannot be read, and name them",
    )
    images.add_argument("--pairs", metavar="FOLDER", help="write pictures of the closest pairs")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:<index>")
    parser.add_argument("--json", metavar="FILE", help="write the results there")
    return parser


def _choose_splits(real: ImageSet) -> list[str]:
    """What was trained on where nobody says: all splits but one named test."""
    present = [
        name for number, name in enumerate(real.split_names) if (real.splits == number).any()
    ]
    return [name for name in present if name != "test" or len(present) == 1]


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _score(options: argparse.Namespace) -> int:
    if bool(options.runs) == bool(options.real or options.fake) or (
        bool(options.real) != bool(options.fake)
    ):
        raise ConfigError("give run folders, or --real and --fake, not both; --help has examples")
    image_options = [
        name
        for name in ("splits", "classes", "size", "channels", "on_bad_image", "pairs")
        if getattr(options, name) is not None
    ]
    if options.runs and image_options:
        option = image_options[0].replace("_", "-")
        raise ConfigError(f"--{option} needs --real and --fake: a run knows its own")
    if options.size is not None and not 16 <= options.size <= 512:
        raise ConfigError(f"--size must be from 16 to 512, got {options.size}")
    results = _score_images(options) if options.real else _score_runs(options)
    if options.json:
        from lungan.runs.folder import (
            write_json,
        )

        write_json(Path(options.json), results)
    return 0


def _config(options: argparse.Namespace, own: ScoreConfig | None) -> ScoreConfig:
    if options.score is not None:
        config: ScoreConfig = presets.load("score", options.score)
    elif own is not None and own.encoders:
        config = own
    else:
        config = presets.load("score", "standard")
    changes = {
        "encoders": options.encoders,
        "num_images": options.num_images,
        "inception_weights": options.inception_weights,
        "require_inception": options.require_inception or None,
    }
    config = dataclasses.replace(
        config, **{key: value for key, value in changes.items() if value is not None}
    )
    check_fields(config, "score.")
    if not config.encoders:
        raise ConfigError(f"score={config.name} has no encoders, so there is nothing to score")
    return config


def _score_runs(options: argparse.Namespace) -> dict[str, Any]:
    from lungan.data import build as data
    from lungan.device import resolve_device
    from lungan.errors import RunFolderError
    from lungan.models.saving import load_generator
    from lungan.runs.folder import (
        GENERATOR,
        SUMMARY,
        read_config,
        read_summary,
        write_json,
    )
    from lungan.runs.run import claimed_finished
    from lungan.runs.scoring import Scorer
    from lungan.scores.table import format_result

    device = resolve_device(options.device)
    loaded: dict[str, ImageSet] = {}
    results = {}
    skipped: list[str] = []
    for folder in map(Path, options.runs):
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
        scorer = Scorer(_config(options, config.score), config.data, loaded[key], device, folder)
        scorer.announce()
        generator = load_generator(folder / GENERATOR)
        with claimed_finished(folder):
            result = scorer.score(generator, summary["epochs_done"])
            summary["scores"] = result
            write_json(folder / SUMMARY, summary)
        results[str(folder)] = result
        print(f"{folder}\n{format_result(result)}\n")
    if not results:
        raise RunFolderError(f"nothing to score: {'; '.join(skipped)}")
    for line in skipped:
        print(f"skipped: {line}", file=sys.stderr)
    return results


def _score_images(options: argparse.Namespace) -> dict[str, Any]:
    from lungan.device import resolve_device
    from lungan.runs import pictures
    from lungan.runs.folder import (
        pairs_path,
    )
    from lungan.scores import encoders, evaluate
    from lungan.scores.evaluate import ProgressLine, check_generated
    from lungan.scores.table import format_result

    config, device = _config(options, None), resolve_device(options.device)
    real = _read_images(options, Path(options.real).expanduser())
    splits = options.splits or _choose_splits(real)
    reference = real.select(splits, options.classes or [])
    num_images = evaluate.num_images_a_side(len(reference), config)
    generated = _generated(options, num_images, config, device)
    check_generated(generated, reference)
    chosen, reasons = encoders.resolve(config)
    built, unfit = encoders.build_all(chosen, config, real, device)
    reasons |= unfit
    for name, reason in reasons.items():
        print(f"no {name} scores: {reason}", file=sys.stderr)
    if not built:
        raise ConfigError(
            f"no encoder of score.encoders={config.encoders} can be had: see the lines above"
        )

    def write_pairs(encoder: str, picture: Any) -> None:
        if options.pairs:
            pictures.write_png(pairs_path(Path(options.pairs), encoder), picture)

    with ProgressLine() as progress:
        result = evaluate.score_images(
            generated,
            real,
            splits=splits,
            classes=options.classes or [],
            config=config,
            encoders=built,
            reasons=reasons,
            progress=progress,
            on_pairs=write_pairs,
        )
    print(format_result(result))
    return result


def _read_images(options: argparse.Namespace, path: Path) -> ImageSet:
    from lungan.data.build import read_images
    from lungan.data.images import first

    images = read_images(path, options.size, options.channels, options.on_bad_image or "error")
    skipped = [f"{name} ({reason})" for name, reason in images.facts.skipped.items()]
    if skipped:
        print(f"skipped {len(skipped)} files of {path}: {first(skipped)}", file=sys.stderr)
    for warning in images.facts.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    return images


def _generated(
    options: argparse.Namespace, num_images: int, config: ScoreConfig, device: torch.device
) -> NDArray[np.uint8] | Tensor:
    from lungan.models.sampling import sample_images
    from lungan.models.saving import load_generator
    from lungan.runs.folder import (
        GENERATOR,
    )

    path = Path(options.fake).expanduser()
    if (path / GENERATOR).is_file():
        path = path / GENERATOR
    if path.suffix != ".safetensors":
        return _read_images(options, path).images
    generator = load_generator(path)
    return sample_images(generator, num_images, config.seed, device)


if __name__ == "__main__":
    run_as_program(main)
