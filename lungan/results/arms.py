"""The arms of a utility study and what they are compared to: said once, for training and tables."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """What a classifier is trained on.

    extra: what is added to the real images, ``ratio`` times their number in each class; empty,
    ``duplicates``, ``synthetic``, or ``filtered``: the synthetic images that the real-only
    classifier believes most. real: whether the real images are there at all. classical: random
    geometric and grey-level changes of every image. pretrain: half of the updates on the extra
    images alone, then half on the real ones alone.
    """

    name: str
    title: str
    extra: str = ""
    real: bool = True
    classical: bool = False
    pretrain: bool = False

    @property
    def uses_generator(self) -> bool:
        return self.extra in ("synthetic", "filtered")


ARMS = {
    arm.name: arm
    for arm in (
        Arm(name="real", title="real only"),
        Arm(name="real_classical", title="real, classical augmentation", classical=True),
        Arm(name="real_duplicates", title="real + duplicates", extra="duplicates"),
        Arm(name="real_synthetic", title="real + synthetic", extra="synthetic"),
        Arm(
            name="real_classical_synthetic",
            title="real + synthetic, classical augmentation",
            extra="synthetic",
            classical=True,
        ),
        Arm(name="synthetic", title="synthetic only", extra="synthetic", real=False),
        Arm(name="real_filtered", title="real + filtered synthetic", extra="filtered"),
        Arm(name="pretrained", title="synthetic, then real", extra="synthetic", pretrain=True),
    )
}

STANDARD = tuple(ARMS)[:6]
"""Those of every study; the others are asked for by name."""

BASELINE = "real"

QUESTIONS = (
    ("real_synthetic", "real_duplicates"),
    ("real_synthetic", "real"),
    ("real_synthetic", "real_classical"),
    ("real_classical_synthetic", "real_classical"),
    ("synthetic", "real"),
    ("real_classical", "real"),
    ("real_filtered", "real_duplicates"),
    ("real_filtered", "real_synthetic"),
    ("pretrained", "real_duplicates"),
    ("pretrained", "real"),
)
"""Each arm with the control that it is compared to, at the same fraction, ratio and seeds. The
first is the one that the study is made for."""

PRIMARY_SCORE = "auc"
