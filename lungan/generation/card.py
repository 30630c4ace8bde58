"""The dataset card: what made the images, from which data, how good they are, what they are for."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

import lungan
from lungan.generation.rejection import Rejection
from lungan.generation.source import Source
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
    environment = Environment(
        loader=PackageLoader("lungan.generation"),
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"plain": _plain, "code": _code}
    scores = (source.summary or {}).get("scores")
    text = environment.get_template("card.md.j2").render(
        source=source,
        config=source.config,
        summary=source.summary and {"data_source": None} | source.summary,
        request=request,
        made=made,
        rejection=made.rejection,
        scores=scores and format_result(scores),
        version=lungan.__version__,
    )
    path.write_text(text, encoding="utf-8")


def _code(text: str) -> str:
    """A code span whatever the text holds."""
    return f"`{_plain(text).replace(chr(10), ' ')}`"


def _plain(text: str) -> str:
    return text.replace("`", "'")
