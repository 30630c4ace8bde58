"""The dataset card: what made the images, from which data, how good they are, what they are for."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

import lungan
from lungan.generation.rejection import Rejection
from lungan.generation.source import Source
from lungan.scores.memorization import SHARE_QUANTILE
from lungan.scores.table import format_result


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the command line asked for. classes: None for all that the generator has."""

    run: Path
    out: Path
    num_images: int
    seed: int
    classes: list[str] | None
    truncation: float | None
    npz: bool
    reject_memorized: bool

    def command(self) -> str:
        """What to type to have the same again, without this machine's paths."""
        words = ["python", "-m", "lungan.generate", self.run.resolve().name]
        words += ["--num-images", str(self.num_images), "--out", self.out.name]
        words += ["--seed", str(self.seed)]
        for name in self.classes or []:
            words += ["--class", name]
        words += [] if self.truncation is None else ["--truncation", f"{self.truncation:g}"]
        words += ["--npz"] if self.npz else []
        words += ["--reject-memorized"] if self.reject_memorized else []
        return shlex.join(words)


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What one command made. counts: images by class. labels: their numbers in an .npz, else None.
    drawn: images of which those found memorized were left out, where there is a ``rejection``."""

    counts: dict[str, int]
    labels: dict[str, int] | None
    size: int
    channels: int
    drawn: int
    rejection: Rejection | None

    @property
    def rejected(self) -> int:
        return self.drawn - sum(self.counts.values())


def write_card(path: Path, source: Source, request: Request, made: Made) -> None:
    """Markdown. Text that a generator's file brings is shown as code, never as markup."""
    sections = [
        "# Generated images",
        "These images were made by a generative adversarial network. They show no patient. They "
        "are **not for diagnosis**, nor for training or testing anything that is used on patients "
        "without evidence of its own.",
        *_contents(made),
        *_origin(source, request),
        *_selection(made),
        *_scores(source, request),
        "## Intended use",
        "Research on whether generated images help where real ones are few, teaching, and tests "
        "of software. Whether they help a classifier is a question for measurement: "
        "`python -m lungan.utility` answers it against controls, on real test images. Report "
        "generated images as such; never put them into a validation or test set.",
        "## Limits",
        "A generator repeats what its training images have in common, their selection, equipment "
        "and labels included, and can lose what is rare. An image carries the class that was asked "
        "for; nobody has looked whether it shows it. A generator can also come close to images it "
        "was trained on, so treat these images with the care that the training images ask for.",
        "## To repeat it",
        f"```\n{_plain(request.command())}\n```",
        "The same command on the same machine gives the same bytes; another machine or device can "
        "round single pixels otherwise.",
    ]
    path.write_text("\n\n".join(sections) + "\n", encoding="utf-8")


def _contents(made: Made) -> list[str]:
    kind = "grey" if made.channels == 1 else "colour"
    lines = [
        f"- {_code(name)}: {count} images"
        + ("" if made.labels is None else f", label {made.labels[name]}")
        for name, count in made.counts.items()
    ]
    total = sum(made.counts.values())
    where = "class folders" if made.labels is None else "`images.npz`, in MedMNIST's layout"
    return [
        "## Contents",
        f"{total} {kind} images of {made.size}x{made.size} pixels in {where}; `manifest.csv` has a "
        "row for each.",
        "\n".join(lines),
    ]


def _origin(source: Source, request: Request) -> list[str]:
    lines = [f"- Generator: {_code(source.name)}, weights SHA-256 `{source.weights_hash}`"]
    if source.config is not None and source.summary is not None:
        config, summary = source.config, source.summary
        splits = ", ".join(config.data.splits) or "all"
        classes = ", ".join(config.data.classes) or "all"
        lines += [
            f"- Trained on: {_code(summary.get('data_source') or config.data.name)}; "
            f"{summary['num_train_images']} images, splits {_code(splits)}, classes "
            f"{_code(classes)}, content SHA-256 `{summary['data_hash']}`",
            "- Licence: that of the training images, as far as the line above names one. If it "
            "asks for attribution, as CC BY does, name their authors with these images too",
            f"- Training: {summary['epochs_done']} epochs, seed {config.seed}, generator "
            f"`{config.generator.name}`, loss `{config.loss.name}`, run id `{summary['run_id']}`",
        ]
    else:
        lines.append(
            "- Trained on: unknown. The generator's file does not say, so neither does this card; "
            "find out before you pass the images on, since the training images' licence may bind"
        )
    cut = "" if request.truncation is None else f", latents cut off at {request.truncation:g}"
    lines.append(f"- Made by: lungan {lungan.__version__}, seed {request.seed}{cut}")
    return ["## Origin", "\n".join(lines)]


def _selection(made: Made) -> list[str]:
    rejection = made.rejection
    if rejection is None:
        text = "None: every image that was drawn is here. Nobody looked for memorized ones."
    else:
        text = (
            f"{made.rejected} of {made.drawn} images drawn were left out and replaced. In "
            f"{rejection.encoder.name} features they lie nearer to a training image than "
            f"{rejection.threshold:.4g}, the distance that {SHARE_QUANTILE:.0%} of "
            f"{rejection.num_held_out} held-out real images fall below; or their pixels, mirrored, "
            "moved, turned or cropped, correlate with a training image's above "
            f"{rejection.similarity:.4g}, which "
            f"{SHARE_QUANTILE:.0%} of those real images exceed. So about two in a hundred go "
            "although nothing was memorized; a much larger share is a warning of its own."
        )
    return ["## Selection", text]


def _scores(source: Source, request: Request) -> list[str]:
    result = (source.summary or {}).get("scores")
    if not result:
        return ["## Scores", "None are known. `python -m lungan.score` measures them."]
    words = "Of the generator, beside what real images score against real ones"
    if request.truncation is not None or request.reject_memorized:
        words += "; taken before truncation and selection, which change them"
    return ["## Scores", f"{words}.", f"```\n{_plain(format_result(result))}\n```"]


def _code(text: str) -> str:
    """A code span whatever the text holds."""
    return f"`{_plain(text).replace(chr(10), ' ')}`"


def _plain(text: str) -> str:
    return text.replace("`", "'")
