"""Runs trained as one: claimed, followed and finished each by itself."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from lungan.errors import ConfigError
from lungan.runs.chain import record, record_failure
from lungan.runs.plan import Job
from lungan.runs.run import BusyError, open_run
from lungan.runs.sinks import ProgressSink, speaking_of
from lungan.runs.stopping import StopSignal
from lungan.runs.work import Result, Work
from lungan.training.events import Event
from lungan.training.loop import Interrupted
from lungan.training.material import Material, gather
from lungan.training.stacked.loop import Member, train_stack

log = logging.getLogger(__name__)


def run_stack(
    chains: Sequence[Sequence[Job]], sweep: str, stop: StopSignal, say: str = ""
) -> list[Job]:
    """Do the runs of trajectories of one shape; gives those under way elsewhere.

    All train side by side. Where a run ends, the next longer one of its trajectory takes its
    place. Runs that begin behind the others train until they have caught up.

    Raises: Interrupted, KeyboardInterrupt, ConfigError where the runs do not fit into memory.
    """
    with contextlib.closing(_Stack(chains, sweep, stop, say)) as stack:
        return stack.run()


@dataclass(frozen=True, slots=True)
class _Running:
    """A claimed run. ``later``: the longer ones of its trajectory."""

    job: Job
    work: Work
    member: Member
    later: Sequence[Job]

    @property
    def epochs(self) -> int:
        return self.job.prepared.config.epochs

    @property
    def has_ended(self) -> bool:
        return self.member.error is not None or self.member.state.epoch >= self.epochs


class _Stack:
    def __init__(
        self, chains: Sequence[Sequence[Job]], sweep: str, stop: StopSignal, say: str
    ) -> None:
        self._chains = chains
        self._sweep = sweep
        self._stop = stop
        self._say = say
        self._running: list[_Running] = []
        self._busy: list[Job] = []
        first = chains[0][0].prepared
        self._prepared = first
        self._material: Material = gather(
            first.config, first.image_set, first.training_set, first.device
        )
        last = max(job.prepared.config.epochs for chain in chains for job in chain)
        self._progress = ProgressSink("", last)

    def close(self) -> None:
        self._progress.close()
        for running in self._running:
            running.work.close()

    def run(self) -> list[Job]:
        for chain in self._chains:
            self._begin(chain)
        while self._running:
            ended = [running for running in self._running if running.has_ended]
            for running in ended:
                self._end(running)
            if not ended:
                self._train()
        return self._busy

    def _begin(self, chain: Sequence[Job]) -> None:
        """Claim and begin the first run of a trajectory that is left to do."""
        for number, job in enumerate(chain, start=1):
            if self._stop.requested():
                raise Interrupted
            try:
                opened = open_run(job.prepared, sweep=self._sweep)
                if isinstance(opened, Result):
                    record(job, self._sweep, opened, self._say)
                    continue
                self._running.append(self._begun(job, opened, chain[number:]))
                return
            except BusyError as error:
                log.info("%s%s", self._say, error)
                self._busy.append(job)
            except Exception as error:
                record_failure(job, self._sweep, error, self._say)

    def _begun(self, job: Job, work: Work, later: Sequence[Job]) -> _Running:
        try:
            with speaking_of(work.folder):
                state = work.recorded(lambda: work.begin(self._material))
        except BaseException:
            work.close()
            raise
        assert not isinstance(state, Result), "nothing diverges before it has begun"

        def emit(event: Event) -> None:
            with speaking_of(work.folder):
                work.emit(event)

        return _Running(job, work, Member(job.prepared.config, state, emit), later)

    def _end(self, running: _Running) -> None:
        """Leave the run's result, and begin the next of its trajectory."""
        self._running.remove(running)
        work, member = running.work, running.member

        def result() -> Result:
            if member.error is not None:
                raise member.error
            return work.end(member.state)

        with speaking_of(work.folder):
            try:
                with contextlib.closing(work):
                    ended = work.recorded(result)
                record(running.job, self._sweep, ended, self._say)
            except Exception as error:
                record_failure(running.job, self._sweep, error, self._say)
        self._begin(running.later)

    def _train(self) -> None:
        """Train those that are furthest behind, until one ends or they have caught up."""
        step = min(running.member.state.step for running in self._running)
        behind = [running for running in self._running if running.member.state.step == step]
        ahead = [running for running in self._running if running not in behind]
        epoch = behind[0].member.state.epoch
        targets = {running.epochs for running in behind} | {self._next_epoch(a) for a in ahead}
        until = min(target for target in targets if target > epoch)
        log.info(
            "%s%d runs as one, from epoch %d to %d%s",
            self._say,
            len(behind),
            epoch,
            until,
            f"; {len(ahead)} more join there" if ahead else "",
        )
        members = [running.member for running in behind]
        try:
            with self._stop.deferred(), _shared_time([running.work for running in behind]):
                train_stack(
                    members,
                    self._material,
                    self._prepared.precision,
                    until,
                    tell=self._progress,
                    stop=self._stop.requested,
                )
        except Interrupted:
            raise
        except torch.OutOfMemoryError as error:
            raise ConfigError(
                f"{len(behind)} runs at once need more memory than {self._prepared.device} has; "
                f"use hydra.launcher.max_runs={max(2, len(behind) // 2)}"
            ) from error
        except Exception as error:
            for member in members:
                member.error = member.error or error

    def _next_epoch(self, running: _Running) -> int:
        """Where the next epoch begins, which a run that was stopped in the middle has to reach."""
        state = running.member.state
        steps_per_epoch = -(-len(self._material.images) // running.member.config.batch_size)
        return state.epoch + (state.step > state.epoch * steps_per_epoch)


@contextlib.contextmanager
def _shared_time(works: Sequence[Work]) -> Iterator[None]:
    """Share out the time that training takes inside; what a run scores meanwhile is its own."""
    scored = [work.seconds_scoring for work in works]
    began = time.perf_counter()
    try:
        yield
    finally:
        own = [work.seconds_scoring - before for work, before in zip(works, scored, strict=True)]
        share = (time.perf_counter() - began - sum(own)) / len(works)
        for work, seconds in zip(works, own, strict=True):
            work.share_training(share + seconds, len(works))  # it has taken these off itself
