"""Which runs of a sweep are trained as one, and which are not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from lungan.runs.plan import Job, Plan
from lungan.training.stacked.obstacles import obstacle, shape

Chain = Sequence[Job]

NO_OTHER = "no other run has its data, networks, loss, batch size and precision"


@dataclass(frozen=True, slots=True)
class Stacking:
    """Train runs of one shape as one, in this process. ``max_runs``: at once."""

    max_runs: int
    name: str = "stacked"


@dataclass(frozen=True, slots=True)
class Arrangement:
    """``stacks``: trajectories that are trained side by side. ``alone``: those that are not, each
    with what stands in the way. ``finished``: those that have all their results."""

    stacks: list[list[Chain]]
    alone: list[tuple[Chain, str]]
    finished: list[Chain]

    def describe(self) -> str:
        """Lines for a terminal."""
        sizes = ", ".join(str(len(stack)) for stack in self.stacks) or "none"
        lines = [f"by hydra/launcher=stacked: trajectories trained as one: {sizes}"]
        for reason, count in Counter(reason for _, reason in self.alone).items():
            lines.append(f"one by one: {count}, since {reason}")
        return "\n".join(lines)


def arrange(plan: Plan, stacking: Stacking) -> Arrangement:
    """Put what is left to do into as few stacks as can be, of about the same size."""
    alone: list[tuple[Chain, str]] = []
    finished: list[Chain] = []
    by_shape: dict[str, list[Chain]] = {}
    for chain in plan.chains:
        prepared = chain[0].prepared
        states = {plan.state[job.prepared.identity.run] for job in chain}
        found = obstacle(prepared.config)
        if states <= {"done", "diverged"}:
            finished.append(chain)
        elif found is not None:
            alone.append((chain, f"{found} cannot be stacked"))
        else:
            data_hash = prepared.image_set.content_hash
            device, precision = str(prepared.device), prepared.precision
            key = shape(prepared.config, data_hash, device, precision)
            by_shape.setdefault(key, []).append(chain)
    stacks: list[list[Chain]] = []
    for chains in by_shape.values():
        if len(chains) == 1:
            alone.append((chains[0], NO_OTHER))
            continue
        count = -(-len(chains) // stacking.max_runs)
        stacks += [chains[number::count] for number in range(count)]
    return Arrangement(stacks, alone, finished)
