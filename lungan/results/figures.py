"""The figures of a report: losses and spectra by group, sample grids side by side, scores
beside floors; and what every figure of a page is drawn with.

How much is drawn is bounded, and every caption says what was left out. Figures are matplotlib's
own objects in its default style, never the user's, so that the same runs give the same bytes.
"""

from __future__ import annotations

import contextlib
import io
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lungan.errors import RunFolderError
from lungan.files import read_json
from lungan.results.comparisons import Summary, leaders, mean_of, ranks
from lungan.results.groups import Group
from lungan.results.read import Problem, Run, noting
from lungan.runs.folder import (
    METRICS,
    SAMPLES,
    SUMMARY,
    grid_classes,
    read_metrics,
    real_images_path,
)
from lungan.scores import catalogue

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

FILES = ("losses.png", "samples.png", "scores.png", "spectra.png")

_MAX_DOTS = 200
_HEADING_CHARACTERS = 28  # as many as fit above a panel
_LABEL_CHARACTERS = 46  # more beside the panels leave them too little room
_FAR_APART = 50
"""Fréchet distances so many times apart are shown on a logarithmic axis."""

_GENERATOR, _DISCRIMINATOR, _FLOOR, _POINT = "#0072B2", "#D55E00", "#009E73", "#333333"

_LOSSES = {"loss_generator": _GENERATOR, "loss_discriminator": _DISCRIMINATOR}
_SPECTRA = ("generated_mean", "real_mean", "real_low", "real_high")
_MAX_RUNS = 20
_MAX_LOSS = 1e100

MAX_CURVE_GROUPS = 12
MAX_SAMPLE_GROUPS = 8
MAX_SCORE_GROUPS = 24

_MAX_SAMPLE_PIXELS = 4096
_WIDTH_INCHES = 9.2
_DPI = 130
_COMPRESSION = 6
_STYLE: Any = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "text.parse_math": False,  # names of runs may hold a $
}


@dataclass(frozen=True, slots=True)
class Figure:
    """A PNG with what it shows: ``title`` and ``caption`` for the page."""

    file: str
    title: str
    caption: str
    png: bytes


def draw(
    groups: Sequence[Group], summaries: Sequence[Summary], problems: list[Problem]
) -> list[Figure]:
    """All figures that the runs have material for; files that cannot be used become problems."""
    best = leaders(summaries)
    done = [group for group in groups if group.done]
    ended = [group for group in groups if group.done or group.count("diverged")]
    with style():
        figures = (
            draw_scores(*choose(done, best, MAX_SCORE_GROUPS), summaries),
            draw_samples(*choose(done, best, MAX_SAMPLE_GROUPS), problems),
            draw_losses(*choose(ended, best, MAX_CURVE_GROUPS), problems),
            draw_spectra(*choose(done, best, MAX_CURVE_GROUPS), problems),
        )
    return [figure for figure in figures if figure is not None]


def choose(
    candidates: Sequence[Group], best: Sequence[Summary], limit: int
) -> tuple[list[Group], str]:
    """The ``limit`` groups that come first in ``best``, in the order of the tables, and what the
    caption says of the others."""
    if len(candidates) <= limit:
        return list(candidates), ""
    chosen = sorted(candidates, key=ranks(best).__getitem__)[:limit]
    which = f"best in {catalogue.title(best[0].score)}" if best else "first"
    left_out = f"Of {len(candidates)} groups, the {limit} {which} are shown."
    return [group for group in candidates if group in chosen], left_out


def draw_losses(groups: list[Group], left_out: str, problems: list[Problem]) -> Figure | None:
    """One panel a group: mean over seeds, with a band from the lowest to the highest."""
    import pandas as pd

    shown = []
    for group in groups:
        finished = _losses(group.done, problems)
        stopped = _losses([run for run in group.runs if run.status == "diverged"], problems)
        if any(curve.notna().any(axis=None) for curve in (*finished, *stopped)):
            shown.append((group, finished, stopped))
    if not shown:
        return None
    canvas, panels = panels_of(len(shown), columns=2, panel_height=2.4, share=True)
    bands = []
    for axes, (group, finished, stopped) in zip(panels, shown, strict=True):
        for loss, color in _LOSSES.items():
            # Over whatever runs have an epoch, so that none has to have all.
            by_epoch = pd.concat([pd.Series(dtype=float), *(run[loss] for run in finished)])
            band = by_epoch.dropna().groupby(level=0).agg(["mean", "min", "max"])
            axes.plot(band.index, band["mean"], color=color, lw=1.4)
            axes.fill_between(band.index, band["min"], band["max"], color=color, alpha=0.2, lw=0)
            bands.append(band)
            for curve in (run[loss].dropna() for run in stopped):
                axes.plot(curve.index, curve, color=color, lw=0.8, ls=":")
                axes.plot(curve.index[-1:], curve.iloc[-1:], color=color, marker="x", ls="")
        axes.set_title(f"{group.label} (n = {len(finished)})", loc="left")
    # A few peaks must not flatten all curves.
    ends = pd.concat(bands)
    usual = ends["max"].quantile(0.99)
    if clipped := bool(ends["max"].max() > 2 * usual > 0):
        panels[0].set_ylim(min(0.0, ends["min"].min()), 1.2 * usual)
    panels[0].locator_params(axis="x", integer=True)
    label_outer(panels, "epoch", "loss")
    for loss, color in _LOSSES.items():
        panels[0].plot([], [], color=color, label=loss.removeprefix("loss_"))
    panels[0].legend(loc="best")
    caption = join_true(
        "Mean over seeds; the band goes from the lowest to the highest seed."
        if any(len(finished) > 1 for _, finished, _ in shown)
        else "One run a group.",
        any(stopped for *_, stopped in shown)
        and "Dotted lines are runs that diverged, up to the cross.",
        clipped and "The axis is cut where single peaks would flatten the rest.",
        left_out,
        any(len(group.done) > _MAX_RUNS for group in groups)
        and f"At most {_MAX_RUNS} runs of a group are drawn.",
    )
    title = "Losses of generator and discriminator"
    return Figure("losses.png", title, caption, png_bytes(canvas))


def _losses(runs: Sequence[Run], problems: list[Problem]) -> list[pd.DataFrame]:
    """Both losses by epoch of each of the first runs; NaN where a loss is no number to draw."""
    import pandas as pd

    read = []
    for run in runs[:_MAX_RUNS]:
        with noting(problems, run.name):
            rows = read_metrics(run.folder)
            if not rows:
                raise RunFolderError(f"{METRICS} has no epoch: no loss curve")
            table = pd.DataFrame(rows, columns=["epoch", *_LOSSES]).set_index("epoch").astype(float)
            read.append(table.where(table.abs() < _MAX_LOSS))
    return read


def draw_spectra(groups: list[Group], left_out: str, problems: list[Problem]) -> Figure | None:
    """One panel a group: each run's mean radial spectrum within the band of 95 % of real images,
    where runs were scored with the encoder ``spectrum``."""
    shown = [(group, found) for group in groups if (found := _spectra(group.done, problems))]
    if not shown:
        return None
    canvas, panels = panels_of(len(shown), columns=2, panel_height=2.2, share=True)
    for axes, (group, spectra) in zip(panels, shown, strict=True):
        # Most differences between two spectra are far smaller than the fall of one spectrum.
        band = spectra[0].sub(spectra[0]["real_mean"], axis=0)
        frequencies = (band.index + 0.5) / len(band)
        axes.fill_between(
            frequencies, band["real_low"], band["real_high"], color=_FLOOR, alpha=0.25, lw=0
        )
        axes.axhline(0, color=_FLOOR, lw=1.2)
        for run in spectra:
            difference = run["generated_mean"] - run["real_mean"]
            axes.plot(frequencies, difference, color=_DISCRIMINATOR, lw=1.0)
        axes.set_title(f"{group.label} (n = {len(spectra)})", loc="left")
    label_outer(panels, "frequency (Nyquist's = 1)", "log power less real mean")
    caption = (
        "Lines: the mean natural logarithm of power of each run's images, less that of the real "
        "images that the run was scored against. Band: 95 % of those real images. Below 0 at high "
        "frequencies is blur, above 0 noise or a checkerboard. " + left_out
    )
    return Figure(
        "spectra.png",
        "Radial power spectra beside those of real images",
        caption.strip(),
        png_bytes(canvas),
    )


def _spectra(runs: Sequence[Run], problems: list[Problem]) -> list[pd.DataFrame]:
    """What ``scores.texture.spectra`` gave of the first runs, a row a ring of frequencies; runs
    scored before lungan kept it have none."""
    import pandas as pd

    read = []
    for run in runs[:_MAX_RUNS]:
        if "spectrum" not in run.settings:
            continue
        try:
            with noting(problems, run.name):
                encoder = read_json(run.folder / SUMMARY)["scores"]["encoders"]["spectrum"]
                if (spectra := encoder.get("spectra")) is not None:
                    columns = {name: spectra[name] for name in _SPECTRA}
                    read.append(pd.DataFrame(columns, dtype=float))
        except (AttributeError, KeyError, TypeError, ValueError):
            text = f"its spectra must be lists of equally many numbers: {', '.join(_SPECTRA)}"
            problems.append(Problem(run.name, text))
    return read


def draw_samples(groups: list[Group], left_out: str, problems: list[Problem]) -> Figure | None:
    """Training images in the first row, where a run has kept a grid of some; below, the last sample
    grid of one run of each group, of the same seed where all have one."""
    seed = _common_seed(groups)
    shown: list[tuple[str, Any]] = []
    real = None
    classes = set()
    for group in groups:
        run = next((run for run in group.done if run.config.get("seed") == seed), group.done[0])
        grids = [path.stem for path in (run.folder / SAMPLES).glob("epoch_*.png")]
        if not grids:
            continue
        newest = max(grids, key=lambda name: (len(name), name))
        image = read_picture(run, f"{SAMPLES}/{newest}.png", problems)
        if image is None:
            continue
        own = f", seed {run.config.get('seed')}" if seed is None else ""
        epoch = newest.removeprefix("epoch_").lstrip("0") or "0"
        shown.append((f"{group.label}{own}, after epoch {epoch}", image))
        with noting(problems, run.name):
            classes.add(grid_classes(run.folder))
        path = real_images_path(run.folder)
        if real is None and path.is_file():
            real = read_picture(run, f"{path.parent.name}/{path.name}", problems)
    if not shown:
        return None
    if real is not None:
        shown.insert(0, ("real images, of the training set", real))
    gap = real is not None and len(shown) > 2
    canvas, panels = panels_of(len(shown) + gap, columns=2, panel_height=2.45, share=False)
    if gap:
        panels.pop(1).remove()
    for axes, (label, image) in zip(panels, shown, strict=True):
        show_picture(axes, image, label)
    named = classes.pop() if len(classes) == 1 else ""
    caption = join_true(
        f"Seed {seed}: the same latents in the same places, nothing selected."
        if seed is not None
        else "One run a group, nothing selected; the groups have no seed in common.",
        named and f"Classes, row by row: {named}.",
        real is not None and "Real images may be patients': who gets this page gets them.",
        left_out,
    )
    title = "Generated images side by side" if real is None else "Real and generated images"
    return Figure("samples.png", title, caption, png_bytes(canvas, exact=True))


def draw_scores(groups: list[Group], left_out: str, summaries: Sequence[Summary]) -> Figure | None:
    """One panel a score: mean, 95 % interval and single runs of each group, beside the floor; of
    the summaries under the settings that most runs share."""
    most = max(6, min(24, 120 // max(1, len(groups))))
    rows = {group: row for row, group in enumerate(groups)}
    scores: dict[str, list[Summary]] = {}
    for each in summaries:
        is_shown = each.is_main and each.group in rows
        if is_shown and (each.score in scores or len(scores) < most):
            scores.setdefault(each.score, []).append(each)
    if all(catalogue.is_inception_score(score) for score in scores):
        return None
    labels = [textwrap.fill(group.label, _LABEL_CHARACTERS) for group in groups]
    height = 0.75 + (0.34 if any("\n" in label for label in labels) else 0.24) * len(groups)
    columns = 2 if len(scores) in (2, 4) else 3
    canvas, panels = panels_of(len(scores), columns, panel_height=height, share=False)
    cut = logarithmic = False
    for index, (axes, (score, cells)) in enumerate(zip(panels, scores.items(), strict=True)):
        dots = [(one, rows[cell.group] + 0.22) for cell in cells for one in cell.values[:_MAX_DOTS]]
        axes.plot(*zip(*dots, strict=True), ".", color=_GENERATOR, ms=3, alpha=0.6)
        centers, places = [cell.interval.center for cell in cells], [rows[c.group] for c in cells]
        reach = list(zip(*(cell.interval.reach for cell in cells), strict=True))
        axes.errorbar(centers, places, xerr=reach, fmt="o", color=_POINT, ms=5, elinewidth=1.8)
        _draw_floor(axes, cells)
        beside = [v for cell in cells for v in (cell.floor, cell.real) if v is not None]
        shown = [value for cell in cells for value in cell.values] + beside
        least, greatest = min(shown), max(shown)
        # A distance is never negative and has no upper end.
        is_distance = catalogue.name_of(score) == catalogue.LEADING
        if is_distance and 0 < least * _FAR_APART < greatest:
            logarithmic = True
            axes.set_xscale("log")
            axes.set_xlim(least / 2, greatest * 2)
            axes.xaxis.set_major_formatter("{x:g}")  # matplotlib's own are formulas
            axes.xaxis.set_minor_formatter("")
        else:
            # The intervals of two or three seeds must not flatten all others.
            if room := 0.6 * (greatest - least):
                left, right = axes.get_xlim()
                axes.set_xlim(max(left, least - room), min(right, greatest + room))
            axes.locator_params(axis="x", nbins=4)
        left, right = axes.get_xlim()
        cut |= any(cell.interval.low < left or cell.interval.high > right for cell in cells)
        axes.set_title(_heading(score), loc="left")
        axes.set_ylim(len(groups) - 0.5, -0.5)
        axes.set_yticks(range(len(groups)), labels if index % columns == 0 else [""] * len(groups))
        axes.grid(axis="y", visible=False)
    num_scores = len({each.score for each in summaries})
    drawn = [cell for cells in scores.values() for cell in cells]
    caption = join_true(
        "Point and bar: mean and 95 % interval over seeds. Small dots: single runs."
        if any(cell.interval.n > 1 for cell in drawn)
        else "One run a group.",
        any(cell.floor is not None for cell in drawn)
        and "Green: the floor, what real images score against other real ones of the same number, "
        "with one standard deviation to either side.",
        any(cell.real is not None for cell in drawn) and "Dashed: the real images' own score.",
        logarithmic and f"Distances more than {_FAR_APART} times apart are on a logarithmic axis.",
        cut and "Intervals of too few seeds are cut at the edge of the panel.",
        num_scores > len(scores) and f"The first {len(scores)} of {num_scores} scores are shown.",
        left_out,
    )
    return Figure("scores.png", "Scores beside their floors", caption, png_bytes(canvas))


def _heading(score: str) -> str:
    encoder, described = catalogue.encoder_of(score), catalogue.describe(score)
    parts = [part for part in (encoder, described.hint) if part]
    fits = len(", ".join(parts)) <= _HEADING_CHARACTERS
    return f"{described.title}\n" + (", " if fits else "\n").join(parts)


def _draw_floor(axes: Axes, cells: Sequence[Summary]) -> None:
    floor, spread, real = (
        mean_of(getattr(cell, name) for cell in cells) for name in ("floor", "floor_std", "real")
    )
    if floor is not None:
        ends = floor - (spread or 0.0), floor + (spread or 0.0)
        axes.axvspan(*ends, color=_FLOOR, alpha=0.2, lw=0, zorder=0)
        axes.axvline(floor, color=_FLOOR, lw=1.2, zorder=0)
    if real is not None:
        axes.axvline(real, color=_POINT, lw=1.0, ls="--", zorder=0)


def _common_seed(groups: Sequence[Group]) -> Any:
    """The lowest seed that every group has a finished run of."""
    seeds = [{run.config.get("seed") for run in group.done} for group in groups]
    common = set.intersection(*seeds) if seeds else set()
    return min((seed for seed in common if isinstance(seed, int)), default=None)


@contextlib.contextmanager
def style() -> Iterator[None]:
    """The style of the figures drawn inside; the user's comes back after."""
    from lungan.runs.pictures import import_matplotlib

    matplotlib = import_matplotlib()
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


def panels_of(
    count: int, columns: int, panel_height: float, share: bool
) -> tuple[Canvas, list[Axes]]:
    """A figure of ``count`` panels, each ``panel_height`` inches high. share: both axes."""
    from matplotlib.figure import Figure as Canvas

    columns = min(columns, count)
    rows = -(-count // columns)
    canvas = Canvas(
        figsize=(_WIDTH_INCHES, max(1.8, panel_height * rows + 0.2)), dpi=_DPI, layout="constrained"
    )
    panels = list(canvas.subplots(rows, columns, squeeze=False, sharex=share, sharey=share).flat)
    for unused in panels[count:]:
        unused.remove()
    return canvas, panels[:count]


def label_outer(panels: list[Axes], x: str, y: str) -> None:
    """Label the axes that panels in two columns share, below the last of a column and left."""
    for index, axes in enumerate(panels):
        axes.set(ylabel="" if index % 2 else y)
        if index + 2 >= len(panels):
            axes.set_xlabel(x)
            axes.tick_params(labelbottom=True)


def png_bytes(canvas: Canvas, *, exact: bool = False) -> bytes:
    """exact: all grey levels of the images shown. 256 colours do for charts, at half the size."""
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    agg: Any = FigureCanvasAgg(canvas)  # which has no types
    agg.draw()
    stream = io.BytesIO()
    image = Image.fromarray(np.asarray(agg.buffer_rgba())[..., :3])
    if not exact:
        image = image.quantize(256, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    image.save(stream, format="png", dpi=(_DPI, _DPI), compress_level=_COMPRESSION)
    return stream.getvalue()


def read_picture(run: Run, name: str, problems: list[Problem]) -> Any | None:
    """Pixels of a PNG in the run's folder; None, and a problem, where it cannot be used."""
    import numpy as np
    from PIL import Image

    try:
        with Image.open(run.folder / name, formats=["PNG"]) as image:
            if max(image.size) > _MAX_SAMPLE_PIXELS:
                raise ValueError("too large")
            return np.asarray(image.convert("RGB" if image.mode == "RGB" else "L"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        problems.append(Problem(run.name, f"{name} is not a usable PNG"))
        return None


def show_picture(axes: Axes, pixels: Any, title: str) -> None:
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axes.set_axis_off()
    axes.set_title(title, loc="left")


def join_true(*sentences: str | bool) -> str:
    """Those of the sentences that are true of this figure."""
    return " ".join(each for each in sentences if isinstance(each, str) and each)
