"""The optimizer of classifiers: SGD with one cycle of the learning rate."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class OneCycle:
    """SGD with Nesterov momentum; the learning rate rises to ``peak_lr`` and falls to nearly 0.

    Weight decay is for kernels and matrices, not for biases and normalization. warmup_fraction: of
    ``num_steps``, on the way up.
    Source: Smith & Topin 2018, arXiv:1708.07120, as torch has it.
    """

    def __init__(
        self,
        network: nn.Module,
        num_steps: int,
        *,
        peak_lr: float,
        momentum: float,
        weight_decay: float,
        warmup_fraction: float,
    ) -> None:
        decayed = [value for value in network.parameters() if value.ndim > 1]
        others = [value for value in network.parameters() if value.ndim == 1]
        groups: list[dict[str, Any]] = [
            {"params": decayed, "weight_decay": weight_decay},
            {"params": others},
        ]
        self._optimizer = torch.optim.SGD(groups, lr=peak_lr, momentum=momentum, nesterov=True)
        self._schedule = torch.optim.lr_scheduler.OneCycleLR(
            self._optimizer,
            max_lr=peak_lr,
            total_steps=num_steps,
            pct_start=warmup_fraction,
            cycle_momentum=False,
        )

    def step(self, loss: torch.Tensor) -> None:
        """One update down the gradient of ``loss``."""
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        self._schedule.step()
