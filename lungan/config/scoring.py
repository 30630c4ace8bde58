"""Config of the scores."""

from __future__ import annotations

from dataclasses import dataclass

from lungan.config.rules import Part, at_least, one_of, registered, rule
from lungan.registry import declare


@dataclass(kw_only=True, slots=True)
class ScoreConfig(Part):
    """How a generator is scored. ``encoders``: networks whose features the scores are taken in;
    ``auto`` is Inception where its weights are at hand and the in-domain encoder. ``num_images=0``
    means as many as the reference split allows. ``inception_precision`` of ``auto`` is bf16 where
    the hardware computes in it natively. ``floor_splits``: random halves of the real images.
    ``extra``: scores of plug-ins, in every encoder's features."""

    encoders: list[str] = registered("encoder", "auto")
    num_images: int = rule("0, or at least 20", lambda value: value == 0 or value >= 20)
    batch_size: int = at_least(1)
    seed: int = rule("from 0 to 2^63 - 1", lambda value: 0 <= value < 2**63)
    every_epochs: int = at_least(0)
    inception_weights: str | None
    inception_precision: str = one_of("auto", "fp32", "bf16", neutral="auto")
    require_inception: bool
    inception_splits: int = at_least(1)
    nearest_k: int = at_least(1)
    kernel_subsets: int = at_least(1)
    kernel_subset_size: int = at_least(2)
    extrapolate: bool
    memorization: bool
    floor_splits: int = at_least(1)
    extra: list[str] = registered("score", neutral=[])


for _name in ("inception", "domain", "efficientnet_lite2", "spectrum", "contrast"):
    declare("encoder", _name, f"lungan.scores.encoders:{_name}")
