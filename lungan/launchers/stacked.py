"""Runs of one shape trained as one, in this process; each is claimed and finished by itself."""

from __future__ import annotations

import contextlib
import logging
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from lungan.config.rules import at_least
from lungan.errors import ConfigError
from lungan.runs.folder import Run
from lungan.runs.plan import Plan, PlannedRun, Trajectory
from lungan.runs.run import ActiveRun, claim_run
from lungan.runs.sinks import ProgressSink, log_of
from lungan.runs.stopping import StopSignal
from lungan.runs.store import BusyError
from lungan.runs.sweep import record_failure, record_result, run_trajectories
from lungan.training.events import Event
from lungan.training.loop import Interrupted
from lungan.training.material import Material, gather
from lungan.training.stacked.loop import Member, train_stack
from lungan.training.stacked.obstacles import obstacle, shape

NO_OTHER = "no other run has its data, networks, loss, batch size and precision"

log = logging.getLogger(__name__)


@dataclass(kw_only=True, slots=True)
class StackedConfig:
    """``max_runs``: at once."""

    max_runs: int = at_least(2)


class StackedLauncher:
    name = "stacked"
    elsewhere = False

    def __init__(self, config: StackedConfig) -> None:
        self._max_runs = config.max_runs

    def describe(self, plan: Plan) -> str:
        return arrange(plan, self._max_runs).describe()

    def run(self, plan: Plan, sweep: str, stop: StopSignal) -> None:
        arrangement = arrange(plan, self._max_runs)
        waiting: list[PlannedRun] = []
        for number, stack in enumerate(arrangement.stacks, start=1):
            prefix = f"[stack {number}/{len(arrangement.stacks)}] "
            waiting += run_stack(stack, sweep, stop, prefix)
        others = [*(trajectory for trajectory, _ in arrangement.alone), *arrangement.finished]
        run_trajectories(others, sweep, stop, waiting)


@dataclass(frozen=True, slots=True)
class Arrangement:
    """``stacks``: trajectories that are trained side by side. ``alone``: those that are not, each
    with what stands in the way. ``finished``: those that have all their results."""

    stacks: list[list[Trajectory]]
    alone: list[tuple[Trajectory, str]]
    finished: list[Trajectory]

    def describe(self) -> str:
        """Lines for a terminal."""
        sizes = ", ".join(str(len(stack)) for stack in self.stacks) or "none"
        lines = [f"by hydra/launcher=stacked: trajectories trained as one: {sizes}"]
        for reason, count in Counter(reason for _, reason in self.alone).items():
            lines.append(f"one by one: {count}, since {reason}")
        return "\n".join(lines)


def arrange(plan: Plan, max_runs: int) -> Arrangement:
    """Put what is left to do into as few stacks as can be, of about the same size."""
    alone: list[tuple[Trajectory, str]] = []
    finished: list[Trajectory] = []
    by_shape: dict[str, list[Trajectory]] = {}
    for trajectory in plan.trajectories:
        prepared = trajectory[0].prepared
        states = {plan.state[planned.prepared.identity.run] for planned in trajectory}
        found = obstacle(prepared.config)
        if states <= {"done", "diverged"}:
            finished.append(trajectory)
        elif found is not None:
            alone.append((trajectory, f"{found} cannot be stacked"))
        else:
            data_hash = prepared.image_set.content_hash
            device, precision = str(prepared.device), prepared.precision
            key = shape(prepared.config, data_hash, device, precision)
            by_shape.setdefault(key, []).append(trajectory)
    stacks: list[list[Trajectory]] = []
    for trajectories in by_shape.values():
        if len(trajectories) == 1:
            alone.append((trajectories[0], NO_OTHER))
            continue
        count = -(-len(trajectories) // max_runs)
        stacks += [trajectories[number::count] for number in range(count)]
    return Arrangement(stacks, alone, finished)


def run_stack(
    trajectories: Sequence[Trajectory], sweep: str, stop: StopSignal, prefix: str = ""
) -> list[PlannedRun]:
    """Do the runs of trajectories of one shape; gives those under way elsewhere.

    All train side by side. Where a run ends, the next longer one of its trajectory takes its
    place. Runs that begin behind the others train until they have caught up.

    Raises: Interrupted, KeyboardInterrupt, ConfigError where the runs do not fit into memory.
    """
    with contextlib.closing(_Stack(trajectories, sweep, stop, prefix)) as stack:
        return stack.run()


@dataclass(frozen=True, slots=True)
class _Running:
    """A claimed run. ``later``: the longer ones of its trajectory."""

    planned: PlannedRun
    active: ActiveRun
    member: Member
    later: Trajectory

    @property
    def epochs(self) -> int:
        return self.planned.prepared.config.epochs

    @property
    def has_ended(self) -> bool:
        return self.member.error is not None or self.member.state.epoch >= self.epochs


class _Stack:
    def __init__(
        self, trajectories: Sequence[Trajectory], sweep: str, stop: StopSignal, prefix: str
    ) -> None:
        self._trajectories = trajectories
        self._sweep = sweep
        self._stop = stop
        self._prefix = prefix
        self._running: list[_Running] = []
        self._busy: list[PlannedRun] = []
        first = trajectories[0][0].prepared
        self._prepared = first
        self._material: Material = gather(
            first.config, first.image_set, first.training_set, first.device
        )
        last = max(each[-1].prepared.config.epochs for each in trajectories)
        self._progress = ProgressSink("", last)

    def close(self) -> None:
        self._progress.close()
        for running in self._running:
            running.active.close()

    def run(self) -> list[PlannedRun]:
        for trajectory in self._trajectories:
            self._begin(trajectory)
        while self._running:
            ended = [running for running in self._running if running.has_ended]
            for running in ended:
                self._end(running)
            if not ended:
                self._train()
        return self._busy

    def _begin(self, trajectory: Trajectory) -> None:
        """Claim and begin the first run of a trajectory that is left to do."""
        for number, planned in enumerate(trajectory, start=1):
            if self._stop.requested():
                raise Interrupted
            try:
                claimed = claim_run(planned.prepared, sweep=self._sweep)
                if isinstance(claimed, Run):
                    record_result(planned, self._sweep, claimed, self._prefix)
                    continue
                self._running.append(self._begun(planned, claimed, trajectory[number:]))
                return
            except BusyError as error:
                log.info("%s%s", self._prefix, error)
                self._busy.append(planned)
            except Exception as error:
                record_failure(planned, self._sweep, error, self._prefix)

    def _begun(self, planned: PlannedRun, active: ActiveRun, later: Trajectory) -> _Running:
        try:
            with log_of(active.folder):
                state = active.recorded(lambda: active.begin(self._material))
        except BaseException:
            active.close()
            raise
        assert not isinstance(state, Run), "nothing diverges before it has begun"

        def emit(event: Event) -> None:
            with log_of(active.folder):
                active.emit(event)

        return _Running(planned, active, Member(planned.prepared.config, state, emit), later)

    def _end(self, running: _Running) -> None:
        """Leave the run's result, and begin the next of its trajectory."""
        self._running.remove(running)
        active, member = running.active, running.member

        def result() -> Run:
            if member.error is not None:
                raise member.error
            return active.end(member.state)

        with log_of(active.folder):
            try:
                with contextlib.closing(active):
                    ended = active.recorded(result)
                record_result(running.planned, self._sweep, ended, self._prefix)
            except Exception as error:
                record_failure(running.planned, self._sweep, error, self._prefix)
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
            self._prefix,
            len(behind),
            epoch,
            until,
            f"; {len(ahead)} more join there" if ahead else "",
        )
        members = [running.member for running in behind]
        try:
            with self._stop.deferred(), _shared_time([running.active for running in behind]):
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
def _shared_time(runs: Sequence[ActiveRun]) -> Iterator[None]:
    """Share out the time that training takes inside; what a run scores meanwhile is its own."""
    scored = [run.seconds_scoring for run in runs]
    began = time.perf_counter()
    try:
        yield
    finally:
        own = [active.seconds_scoring - before for active, before in zip(runs, scored, strict=True)]
        share = (time.perf_counter() - began - sum(own)) / len(runs)
        for run, seconds in zip(runs, own, strict=True):
            run.share_training(share + seconds, len(runs))  # it has taken these off itself
