"""One run: find out whether it was done, and do it where it was not."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import torch

from lungan.errors import RunFolderError
from lungan.models.saving import load_generator
from lungan.runs import folder as names
from lungan.runs.prepare import Prepared
from lungan.runs.scoring import build_scorer
from lungan.runs.stopping import StopSignal
from lungan.runs.store import Busy, Claimed, Finished, Store
from lungan.runs.work import Result, Work


class BusyError(RunFolderError):
    """Another live process has the run, or the shorter one that this one goes on from."""

    def __init__(self, busy: Busy) -> None:
        super().__init__(
            f"{busy.folder} is under way in process {busy.owner.pid} on {busy.owner.host}; "
            "wait for it, or stop it and repeat the command"
        )


def run(prepared: Prepared, *, sweep: str | None = None, stop: StopSignal | None = None) -> Result:
    """Do the run, or find that it was done.

    A result with status ``diverged`` is returned, not raised. What is not the user's doing is
    recorded as ``failed``, with its traceback in log.txt, and raised.

    Raises: RunFolderError where the store cannot be used or another process has the run,
    Interrupted and KeyboardInterrupt where it was stopped: the same call goes on.
    """
    opened = open_run(prepared, sweep=sweep)
    if isinstance(opened, Result):
        return opened
    with contextlib.closing(opened) as work:
        return work.run(stop or StopSignal())


def open_run(prepared: Prepared, *, sweep: str | None) -> Result | Work:
    """The run's result where it was done, else its work, claimed, which the caller closes.

    Raises: RunFolderError where the store cannot be used or another process has the run.
    """
    config, identity = prepared.config, prepared.identity
    if config.threads:
        torch.set_num_threads(config.threads)
    found = Store(Path(config.store)).claim(identity, retry_diverged=config.retry == "diverged")
    match found:
        case Finished():
            return _score_again(prepared, found)
        case Busy():
            raise BusyError(found)
        case Claimed():
            return Work(prepared, found, sweep)


def _score_again(prepared: Prepared, found: Finished) -> Result:
    """A finished run as it is, with the scores that this config asks for and it has not."""
    config = prepared.config
    if not config.score.encoders or found.summary["status"] != "done":
        return Result(found.folder, found.summary, reused=True)
    scorer = build_scorer(prepared, found.folder)
    assert scorer is not None
    result = scorer.find(config.epochs)
    if result is None or result != found.summary["scores"]:
        with claimed_finished(found.folder):
            # Another process may have scored it before the claim.
            summary = names.read_summary(found.folder) or found.summary
            result = scorer.find(config.epochs)
            if result is None:
                scorer.announce()
                generator = load_generator(found.folder / names.GENERATOR)
                result = scorer.score(generator, config.epochs)
            summary["scores"] = result
            names.write_json(found.folder / names.SUMMARY, summary)
        found = Finished(found.folder, summary)
    return Result(found.folder, found.summary, reused=True)


@contextlib.contextmanager
def claimed_finished(folder: Path) -> Iterator[None]:
    """Hold the claim on the folder of a finished run, to add to it. Raises: RunFolderError."""
    claim = Store(folder.parent).claim_finished(folder)
    if isinstance(claim, Busy):
        raise BusyError(claim)
    try:
        yield
    finally:
        claim.release()
