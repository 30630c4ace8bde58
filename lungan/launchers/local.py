"""Runs one after another in this process: what a sweep without a launcher does."""

from __future__ import annotations

from dataclasses import dataclass

from lungan.runs.plan import Plan
from lungan.runs.stopping import StopSignal
from lungan.runs.sweep import run_trajectories


@dataclass(kw_only=True, slots=True)
class LocalConfig:
    """It has no settings."""


class LocalLauncher:
    name = "local"
    elsewhere = False

    def __init__(self, _config: LocalConfig) -> None: ...

    def describe(self, _plan: Plan, /) -> str:
        return ""

    def run(self, plan: Plan, sweep: str, stop: StopSignal) -> None:
        run_trajectories(plan.trajectories, sweep, stop)
