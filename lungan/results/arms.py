"""The arms of a utility study and what they are compared to: said once, for training and tables."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """What a classifier is trained on, and how.

    controls: the arms that it is compared to, at the same fraction, ratio and seeds.
    synthetic: how generated images take part, ``ratio`` of them for each real one: ``mixed`` into
    batches of the usual size, ``on_top`` of batches that hold as many real images as without them,
    ``first`` for half of the updates with the real ones after them, ``only``, or not at all.
    chosen: which of the generated images: ``believed`` most by the real-only classifier, of
    ``truncated`` latents, or all.
    duration: ``shorter`` shows each real image as often as ``real_synthetic`` does, ``longer``
    makes so many more updates that a real image among mixed ones is shown as often as in ``real``.
    balanced: every batch holds as many images of each class. weighted: the loss weighs classes by
    the inverse of their number. classical: random geometric and grey-level changes of every image.
    mixup: pairs of images are mixed. source: where the arm is from.
    """

    name: str
    title: str
    controls: tuple[str, ...] = ()
    synthetic: str = ""
    chosen: str = ""
    duration: str = ""
    balanced: bool = False
    weighted: bool = False
    classical: bool = False
    mixup: bool = False
    source: str = ""

    @property
    def uses_generator(self) -> bool:
        return bool(self.synthetic)

    @property
    def uses_ratio(self) -> bool:
        return self.uses_generator or bool(self.duration)

    @property
    def shaping(self) -> dict[str, Any]:
        """What another result would follow from."""
        words = ("title", "controls", "source")
        return {key: one for key, one in dataclasses.asdict(self).items() if key not in words}


BASELINE = "real"
PRIMARY_SCORE = "auc"

_ARMS = (
    Arm(name="real", title="real only"),
    Arm(
        name="real_shorter",
        title="real only, shown as often as beside synthetic",
        controls=("real",),
        duration="shorter",
    ),
    Arm(
        name="real_classical",
        title="real, classical augmentation",
        controls=("real",),
        classical=True,
    ),
    Arm(
        name="real_synthetic",
        title="real + synthetic",
        controls=("real", "real_shorter", "real_classical", "oversampled", "real_mixup"),
        synthetic="mixed",
        source="Frid-Adar et al. 2018, arXiv:1803.01229",
    ),
    Arm(
        name="real_classical_synthetic",
        title="real + synthetic, classical augmentation",
        controls=("real_classical",),
        synthetic="mixed",
        classical=True,
    ),
    Arm(
        name="synthetic",
        title="synthetic only",
        controls=("real",),
        synthetic="only",
        source="Ravuri and Vinyals 2019, arXiv:1905.10887",
    ),
    Arm(
        name="real_synthetic_longer",
        title="real + synthetic, real ones shown as often as alone",
        controls=("real",),
        synthetic="mixed",
        duration="longer",
    ),
    Arm(
        name="synthetic_on_top",
        title="real, synthetic on top of each batch",
        controls=("real",),
        synthetic="on_top",
    ),
    Arm(
        name="oversampled",
        title="real, rarer classes oversampled",
        controls=("real",),
        balanced=True,
        source="Buda et al. 2018, arXiv:1710.05381",
    ),
    Arm(
        name="oversampled_classical",
        title="real, rarer classes oversampled, classical augmentation",
        controls=("oversampled",),
        balanced=True,
        classical=True,
    ),
    Arm(
        name="class_weights",
        title="real, class weights",
        controls=("real",),
        weighted=True,
        source="King and Zeng 2001, doi:10.1093/oxfordjournals.pan.a004868",
    ),
    Arm(
        name="real_mixup",
        title="real, mixup",
        controls=("real",),
        mixup=True,
        source="Zhang et al. 2018, arXiv:1710.09412",
    ),
    Arm(
        name="oversampled_synthetic",
        title="rarer classes filled up with synthetic",
        controls=("real", "oversampled", "class_weights", "oversampled_classical"),
        synthetic="mixed",
        balanced=True,
        source="Mariani et al. 2018, arXiv:1803.09655",
    ),
    Arm(
        name="oversampled_classical_synthetic",
        title="rarer classes filled up with synthetic, classical augmentation",
        controls=("oversampled_classical",),
        synthetic="mixed",
        balanced=True,
        classical=True,
    ),
    Arm(
        name="real_filtered",
        title="real + filtered synthetic",
        controls=("real", "real_synthetic"),
        synthetic="mixed",
        chosen="believed",
        source="Xue et al. 2019, arXiv:1907.10655",
    ),
    Arm(
        name="real_truncated",
        title="real + synthetic of truncated latents",
        controls=("real", "real_synthetic"),
        synthetic="mixed",
        chosen="truncated",
        source="Brock et al. 2019, arXiv:1809.11096",
    ),
    Arm(
        name="pretrained",
        title="synthetic, then real",
        controls=("real", "real_synthetic"),
        synthetic="first",
        source="He et al. 2023, arXiv:2210.07574",
    ),
)

ARMS = {arm.name: arm for arm in _ARMS}

STANDARD = tuple(ARMS)[:6]
"""The arms of a study that names none."""

RARE = (
    *("real", "class_weights", "oversampled", "oversampled_classical"),
    *("oversampled_synthetic", "oversampled_classical_synthetic"),
)
"""The arms of a study in which a class is rare: there generators make that class alone."""

QUESTIONS = tuple((arm.name, control) for arm in _ARMS for control in arm.controls)
"""Each arm with a control that it is compared to."""

PRIMARY = {
    "real_synthetic": ("real", "real_shorter"),
    "oversampled_synthetic": ("oversampled", "class_weights"),
}
"""The question of a study that names none: the arm helps where it is better than each of these."""
