"""``python -m lungan.generate``: a data set of images from a finished run or a generator's file."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from lungan.cli import CallableModule, CommandParser, run_as_program, run_command
from lungan.config.rules import check_fields

EXAMPLES = """examples:
  python -m lungan.generate runs/<run> --num-images 1000 --out generated
      PNG files in class folders, a manifest and a dataset card
  python -m lungan.generate generator.safetensors --num-images 1000 --out generated --npz
      one images.npz in MedMNIST's layout, from a generator's file alone
  python -m lungan.generate runs/<run> --num-images 1000 --out generated --reject-memorized
      without images that lie nearer to a training image than unseen real ones do

The same seed gives the same images, and the first of many are those of few.
More in docs/generate.md. Exit codes: 0 good, 2 bad input, 130 interrupted (nothing is left)."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Gives its exit code."""
    return run_command(lambda: _generate(_parser().parse_args(arguments)))


def _parser() -> CommandParser:
    parser = CommandParser(
        "generate", "Make a data set of images with the generator of a finished run.", EXAMPLES
    )
    parser.add_argument(
        "run", metavar="RUN", type=Path, help="folder of a finished run, or a .safetensors"
    )
    parser.add_argument("--num-images", type=int, required=True, metavar="N", help="in all")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="a new folder; never overwritten"
    )
    parser.add_argument("--npz", action="store_true", help="one images.npz instead of PNG files")
    parser.add_argument("--seed", type=int, default=0, help="(default: 0)")
    parser.add_argument(
        "--class",
        dest="classes",
        action="append",
        metavar="NAME",
        help="images of this class only; may be given again",
    )
    parser.add_argument(
        "--truncation",
        type=float,
        metavar="T",
        help="cut latents off at T standard deviations: less variety, fewer failures",
    )
    parser.add_argument(
        "--reject-memorized",
        action="store_true",
        help="replace near copies of training images: nearer than 99 %% of held-out real ones",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:<index>")
    return parser


def _generate(options: argparse.Namespace) -> int:
    # Here, so that --help need not wait for pandas, nor a wrong number for torch.
    from lungan.api import DrawOptions

    asked = {field.name: getattr(options, field.name) for field in dataclasses.fields(DrawOptions)}
    check_fields(DrawOptions(**asked), "--")
    from lungan.device import resolve_device
    from lungan.generation.making import Request, check_new, make_images
    from lungan.generation.source import read_source

    check_new(options.out)
    device = resolve_device(options.device)
    asked = {field.name: getattr(options, field.name) for field in dataclasses.fields(Request)}
    try:
        made = make_images(read_source(options.run), Request(**asked), device)
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt("interrupted; nothing was left behind") from error
    listed = ", ".join(f"{count} {name}" for name, count in made.counts.items())
    print(f"{options.num_images} images in {options.out} ({listed})")
    if made.rejection is not None:
        print(
            f"{made.rejected} of {made.drawn} images drawn were replaced: nearer to a training "
            f"image than 99 % of {made.rejection.num_held_out} held-out real ones"
        )
        if made.rejection.caveat:
            print(f"These limits are rough: {made.rejection.caveat}")
    return 0


sys.modules[__name__].__class__ = CallableModule

if __name__ == "__main__":
    run_as_program(main)
