"""The arms of a utility study and what they are compared to: said once, for training and tables."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Arm:
    """What a classifier is trained on, and how.

    synthetic: how generated images take part, ``ratio`` of them for each real one: ``mixed`` into
    batches of the usual size, ``on_top`` of batches that hold as many real images as without them,
    ``first`` for half of the updates with the real ones after them, ``only``, or not at all.
    source: what takes part so in place of images of the fraction's generator: those of a generator
    without classes ``of_all`` training images, ``moved`` real ones, real ones that the fraction has
    ``left_out``, or nothing else.
    chosen: which of the generated images: ``believed`` most by the real-only classifier, ``dense``
    with real ones in its features, of ``truncated`` latents, or all.
    labels: of these images: the ``soft`` ones of the real-only classifier, which are its
    probabilities, the class that it ``believed`` most, or those that they have.
    duration: ``shorter`` shows each real image as often as ``real_synthetic`` does, ``longer``
    makes so many more updates that a real image among mixed ones is shown as often as in ``real``.
    balanced: every batch holds as many images of each class. weighted: the loss weighs classes by
    the inverse of their number. classical: random geometric and grey-level changes of every image.
    mixup: pairs of images are mixed. network: what is trained, the recipe's classifier, the
    ``discriminator`` of the generator's run or the same network ``untrained``.
    """

    name: str
    title: str
    synthetic: str = ""
    chosen: str = ""
    duration: str = ""
    balanced: bool = False
    weighted: bool = False
    classical: bool = False
    mixup: bool = False
    network: str = ""
    source: str = ""
    labels: str = ""

    @property
    def uses_generator(self) -> bool:
        """Whether it takes the run of a generator."""
        return self.has_synthetic or self.network == "discriminator"

    @property
    def has_synthetic(self) -> bool:
        return bool(self.synthetic) and self.source in ("", "of_all")

    @property
    def is_unlabelled(self) -> bool:
        """Whether it uses training images that the fraction leaves out, without their labels."""
        return self.source in ("left_out", "of_all")

    @property
    def uses_ratio(self) -> bool:
        return bool(self.synthetic or self.duration)

    @property
    def shaping(self) -> dict[str, Any]:
        """What another result would follow from."""
        # Fields that arms got after the first ids were given do not shape an arm without them: its
        # trials keep their ids.
        later = [key for key in ("network", "source", "labels") if not getattr(self, key)]
        fields = dataclasses.asdict(self).items()
        return {key: one for key, one in fields if key not in ("title", *later)}


BASELINE = "real"
PRIMARY_SCORE = "auc"

_ARMS = (
    Arm("real", "real only"),
    Arm("real_shorter", "real only, shown as often as beside synthetic", duration="shorter"),
    Arm("real_classical", "real, classical augmentation", classical=True),
    # Frid-Adar et al. 2018, arXiv:1803.01229
    Arm("real_synthetic", "real + synthetic", "mixed"),
    Arm(
        "real_classical_synthetic",
        "real + synthetic, classical augmentation",
        "mixed",
        classical=True,
    ),
    # Ravuri and Vinyals 2019, arXiv:1905.10887
    Arm("synthetic", "synthetic only", "only"),
    Arm(
        "real_synthetic_longer",
        "real + synthetic, real ones shown as often as alone",
        "mixed",
        duration="longer",
    ),
    Arm("synthetic_on_top", "real, synthetic on top of each batch", "on_top"),
    # Buda et al. 2018, arXiv:1710.05381
    Arm("oversampled", "real, rarer classes oversampled", balanced=True),
    Arm(
        "oversampled_classical",
        "real, rarer classes oversampled, classical augmentation",
        balanced=True,
        classical=True,
    ),
    # King and Zeng 2001, doi:10.1093/oxfordjournals.pan.a004868
    Arm("class_weights", "real, class weights", weighted=True),
    # Zhang et al. 2018, arXiv:1710.09412
    Arm("real_mixup", "real, mixup", mixup=True),
    # Mariani et al. 2018, arXiv:1803.09655
    Arm("oversampled_synthetic", "rarer classes filled up with synthetic", "mixed", balanced=True),
    Arm(
        "oversampled_classical_synthetic",
        "rarer classes filled up with synthetic, classical augmentation",
        "mixed",
        balanced=True,
        classical=True,
    ),
    # Xue et al. 2019, arXiv:1907.10655
    Arm("real_filtered", "real + filtered synthetic", "mixed", chosen="believed"),
    # Naeem et al. 2020, arXiv:2002.09797
    Arm("real_dense", "real + synthetic amid real ones", "mixed", chosen="dense"),
    # Brock et al. 2019, arXiv:1809.11096
    Arm("real_truncated", "real + synthetic of truncated latents", "mixed", chosen="truncated"),
    # He et al. 2023, arXiv:2210.07574
    Arm("pretrained", "synthetic, then real", "first"),
    # Radford et al. 2016, arXiv:1511.06434
    Arm("discriminator", "real only, pretrained discriminator", network="discriminator"),
    Arm("discriminator_untrained", "real only, untrained discriminator", network="untrained"),
    # Hinton et al. 2015, arXiv:1503.02531
    Arm("real_soft", "real + synthetic, soft labels", "mixed", labels="soft"),
    Arm(
        "real_classical_soft",
        "real + moved real, soft labels",
        "mixed",
        source="moved",
        labels="soft",
    ),
    # Lee 2013, ICML workshop on challenges in representation learning
    Arm("real_pseudo", "real + unlabelled real", "mixed", source="left_out", labels="believed"),
    # Lucic et al. 2019, arXiv:1903.02271
    Arm(
        "real_unlabelled",
        "real + synthetic of unlabelled",
        "mixed",
        source="of_all",
        labels="believed",
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

_CONTROLS = {
    "real_shorter": "real",
    "real_classical": "real",
    "real_synthetic": "real real_shorter real_classical oversampled real_mixup",
    "real_classical_synthetic": "real_classical",
    "synthetic": "real",
    "real_synthetic_longer": "real",
    "synthetic_on_top": "real",
    "oversampled": "real",
    "oversampled_classical": "oversampled",
    "class_weights": "real",
    "real_mixup": "real",
    "oversampled_synthetic": "real oversampled class_weights oversampled_classical",
    "oversampled_classical_synthetic": "oversampled_classical",
    "real_filtered": "real real_synthetic",
    "real_dense": "real real_synthetic",
    "real_truncated": "real real_synthetic",
    "pretrained": "real real_synthetic",
    "discriminator": "real discriminator_untrained",
    "discriminator_untrained": "real",
    "real_soft": "real real_synthetic real_classical_soft",
    "real_classical_soft": "real",
    "real_pseudo": "real",
    "real_unlabelled": "real real_pseudo",
}

QUESTIONS = tuple((arm, control) for arm, of in _CONTROLS.items() for control in of.split())
"""Each arm with a control that it is compared to, at the same fraction, ratio and seeds."""

PRIMARY = {
    "real_synthetic": ("real", "real_shorter"),
    "oversampled_synthetic": ("oversampled", "class_weights"),
}
"""The question of a study that names none: the arm helps where it is better than each of these."""
