"""What training hands to a network beside its input."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Dropout(Protocol):
    """A source of dropout masks, fresh at every call."""

    def __call__(self, features: Tensor, probability: float) -> Tensor:
        """Features with each one zero with this probability, the others scaled up for it."""
        ...
