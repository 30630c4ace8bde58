"""``python -m lungan.score``: score finished runs, or any images against any real ones."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lungan.cli import CallableModule, CommandParser, run_as_program, run_command
from lungan.config import presets
from lungan.errors import ConfigError

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
    return run_command(lambda: _score(_parser().parse_args(arguments)))


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        "score", "Score finished runs, or any generated images against any real ones.", EXAMPLES
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
        help="auto, inception, domain, efficientnet_lite2, spectrum, contrast",
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
    images.add_argument(
        "--pairs", metavar="FOLDER", type=Path, help="write pictures of the closest pairs"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:<index>")
    parser.add_argument("--json", metavar="FILE", help="write the results there")
    return parser


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _score(options: argparse.Namespace) -> int:
    if bool(options.runs) == bool(options.real or options.fake) or (
        bool(options.real) != bool(options.fake)
    ):
        raise ConfigError("give run folders, or --real and --fake, not both; --help has examples")
    changes = {
        "encoders": options.encoders,
        "num_images": options.num_images,
        "inception_weights": options.inception_weights,
        "require_inception": options.require_inception or None,
    }
    changes = {key: value for key, value in changes.items() if value is not None}
    names = ("splits", "classes", "size", "channels", "on_bad_image", "pairs")
    how = {name: value for name in names if (value := getattr(options, name)) is not None}
    for name in how if options.runs else ():
        raise ConfigError(
            f"--{name.replace('_', '-')} needs --real and --fake: a run knows its own"
        )
    # Here, so that --help and a wrong option need not wait for torch.
    from lungan.files import write_json
    from lungan.scores.table import format_result

    results: dict[str, Any] = {}
    if options.real:
        from lungan import api

        device = options.device
        results = api.score(
            options.real, options.fake, score=options.score, device=device, **how, **changes
        )
        print(format_result(results))
    else:
        from lungan.runs.scoring import score_runs

        for folder, result in score_runs(options.runs, options.score, changes, options.device):
            results[str(folder)] = result
            print(f"{folder}\n{format_result(result)}\n")
    if options.json:
        write_json(Path(options.json), results)
    return 0


sys.modules[__name__].__class__ = CallableModule

if __name__ == "__main__":
    run_as_program(main)
