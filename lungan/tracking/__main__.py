"""``python -m lungan.tracking``: one tracker that follows a run; ``live.Followers`` starts it.

Its argument says whom to follow, in JSON. Its stdin ends with the run.
"""

from __future__ import annotations

import json
import select
import sys
from collections.abc import Callable
from pathlib import Path

from lungan import registry
from lungan.config.rules import parse_choice
from lungan.config.run import TrackerConfig
from lungan.runs.folder import read_summary
from lungan.tracking import build_tracker
from lungan.tracking.records import TrackedRun, Tracker, in_words, read_records, without_paths

POLL_SECONDS = 1.0


def main(text: str) -> None:
    """Where the tracker does not take the run, this ends in one line on stderr."""
    given = json.loads(text)
    folder = Path(given["run"].pop("folder"))
    try:
        registry.load_again(given["plugins"])
        config = parse_choice(TrackerConfig, "tracker", given["tracker"])
        follow(folder, build_tracker(config, TrackedRun(folder=folder, **given["run"])))
    # wandb leaves some paths by sys.exit.
    except (Exception, SystemExit) as error:
        sys.exit(
            f"tracker={given['tracker']['name']} gets no more of this run, whose folder has it "
            f"all: {in_words(error)}"
        )


def stdin_ends() -> bool:
    """Whether stdin ends within ``POLL_SECONDS``."""
    return bool(select.select([sys.stdin], [], [], POLL_SECONDS)[0])


def follow(folder: Path, tracker: Tracker, has_ended: Callable[[], bool] = stdin_ends) -> None:
    """Give the tracker the epochs of a run, each when it is whole, until the run has ended."""
    tracker.open()
    end, is_over = 0, False
    while not is_over:
        is_over = has_ended()
        summary = read_summary(folder) if is_over else None
        epochs, end = read_records(folder, end, is_finished=summary is not None)
        for epoch in epochs:
            tracker.add(epoch)
    tracker.close(without_paths(summary))


if __name__ == "__main__":
    main(sys.argv[1])
