"""``python -m lungan.search [overrides]``: a search for the settings with the best score."""

from __future__ import annotations

import argparse
import dataclasses
import shlex
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lungan.cli import (
    FAILED,
    CommandParser,
    add_config_dir,
    run_as_program,
    run_command,
)
from lungan.config.rules import check_fields
from lungan.errors import ConfigError
from lungan.runs.folder import check_name
from lungan.scores import catalogue

if TYPE_CHECKING:
    from lungan.config import RunConfig

EXAMPLES = """ranges, quoted because of the shell:
  'lr=interval(1e-5,1e-2)'            any number between
  'lr=tag(log,interval(1e-5,1e-2))'   the same, evenly over orders of magnitude
  'batch_size=choice(64,128,256)'     or batch_size=64,128,256
  'discriminator.width=range(16,65,16)'
  all else is as in lungan.train; epochs may be searched too, unless there are --rungs

examples:
  python -m lungan.search --sweep adam --trials 20 'lr=tag(log,interval(1e-4,1e-2))' score=fast
      20 trials, each a run of the store
  python -m lungan.search --sweep both --trials 60 --rungs 10,20,50 \\
      'lr=tag(log,interval(1e-4,1e-2))' optimizer=adam,rmsprop
      at 10 and 20 epochs only the best third goes on

The same command goes on after a stop; the same in several terminals or jobs shares the work.
Exit codes: 0 good, 1 a trial failed, 2 bad input, 130 interrupted (resumable)."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Gives its exit code."""
    parser = CommandParser(
        "search", "Search settings for the best score, by Optuna, over a store of runs.", EXAMPLES
    )
    parser.add_argument("overrides", nargs="+", metavar="key=value", help="settings and ranges")
    add_config_dir(parser)
    parser.add_argument("--sweep", metavar="NAME", required=True, help="the search's name")
    parser.add_argument("--trials", type=int, metavar="N", default=20, help="in all (20)")
    parser.add_argument(
        "--objective",
        metavar="SCORE",
        default="domain.frechet_distance",
        help="a column of results.csv (%(default)s)",
    )
    parser.add_argument("--direction", choices=["minimize", "maximize"], default="minimize")
    parser.add_argument("--sampler", choices=["tpe", "random"], default="tpe")
    parser.add_argument("--sampler-seed", type=int, metavar="N", default=0)
    parser.add_argument(
        "--rungs", type=_rungs, metavar="EPOCHS", default=[], help="such as 10,20,50"
    )
    parser.add_argument(
        "--reduction", type=int, metavar="N", default=3, help="one of N goes on from a rung (3)"
    )
    return run_command(lambda: _search(parser.parse_intermixed_args(arguments)))


def _rungs(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def _search(options: argparse.Namespace) -> int:
    check_name(options.sweep, "--sweep")
    if catalogue.describe(options.objective).direction == "unknown":
        known = ", ".join(f"domain.{name}" for name in list(catalogue.CATALOGUE)[:3])
        raise ConfigError(
            f"--objective must be a score of the runs ({known}, ...), got {options.objective}; "
            "docs/scores.md has them all"
        )
    # Here, so that --help need not wait for Hydra, torch and Optuna.
    try:
        import optuna
    except ModuleNotFoundError as error:
        raise ConfigError("searching needs Optuna: pip install 'lungan[search]'") from error
    from lungan.config import compose
    from lungan.runs.run import StopSignal
    from lungan.runs.search import Request, Search, search_space
    from lungan.runs.store import store_path
    from lungan.runs.sweep import write_results

    asked = {field.name: getattr(options, field.name) for field in dataclasses.fields(Request)}
    request = Request(**asked)
    check_fields(request, "--")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    stop = StopSignal()
    with compose.composer(options.config_dir), stop.installed():
        space, fixed = search_space(options.overrides)
        if options.rungs:
            if "epochs" in space:
                raise ConfigError("epochs cannot be searched beside --rungs, which sets it")
            fixed = [text for text in fixed if not text.startswith("epochs=")]

        def config_of(values: dict[str, str]) -> RunConfig:
            return compose.compose([*fixed, *(f"{key}={value}" for key, value in values.items())])

        firsts = {
            key: getattr(each, "choices", [getattr(each, "low", 0)])[0]
            for key, each in space.items()
        }
        first = config_of({key: str(value) for key, value in firsts.items()})
        if not first.score.encoders:
            raise ConfigError(
                f"score={first.score.name} gives no {options.objective}; use score=fast or more"
            )
        store = store_path(first)
        command = shlex.join(["python", "-m", "lungan.search", *sys.argv[1:]])
        search = Search(request, store, command, config_of, space, stop)
        search.run()
    if out := write_results(store, options.sweep):
        print(f"results: {out / 'report.html'}, {out / 'results.csv'}, {out / 'summary.csv'}")
    print(search.describe())
    return FAILED if search.num_failed else 0


if __name__ == "__main__":
    run_as_program(main)
