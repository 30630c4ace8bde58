"""The utility study as figures: AUC against the number of real images, and convincing images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lungan.results import numbers
from lungan.results.comparisons import Summary
from lungan.results.figures import (
    Figure,
    panels_of,
    png_bytes,
    read_picture,
    show_picture,
    style,
)
from lungan.results.groups import Group
from lungan.results.read import Problem, Run
from lungan.runs.folder import CONVINCING, Scalar
from lungan.scores import catalogue
from lungan.utility.analysis import (
    FRACTION,
    GAN,
    PREVALENCE,
    RARE,
    Utility,
    num_real,
    place,
    setting,
    value,
)
from lungan.utility.arms import ARMS, PRIMARY_SCORE, Arm

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CURVES = "utility.png"
PICTURES = "utility_convincing.png"
FILES = (CURVES, PICTURES)

MAX_PANELS = 6
MAX_PICTURES = 4

_COLORS = {
    "": "#333333",
    "mixed": "#0072B2",
    "on_top": "#56B4E9",
    "only": "#009E73",
    "first": "#CC79A7",
    "of_all": "#332288",
    "moved": "#999933",
    "left_out": "#AA4499",
    "discriminator": "#882255",
    "untrained": "#CC6677",
    "soft": "#44AA99",
}
"""By how synthetic images take part and are labelled, or by what there is in their place."""


def draw_utility(utility: Utility, problems: list[Problem]) -> list[Figure]:
    with style():
        figures = (_draw_curves(utility), _draw_convincing(utility, problems))
    return [figure for figure in figures if figure is not None]


def _draw_curves(utility: Utility) -> Figure | None:
    """A panel for each ratio, and for each generator or classifier where there are several."""
    summaries = [summary for summary in utility.summaries if summary.score == PRIMARY_SCORE]
    panels = _panels(summaries)
    if not panels:
        return None
    shown = panels[:MAX_PANELS]
    columns = min(len(shown), 3)
    canvas, grid = panels_of(len(shown), columns, panel_height=3.4, share=True)
    arms = [arm for arm in ARMS if any(value(s.group, "arm") == arm for s in summaries)]
    for axes, (heading, members) in zip(grid, shown, strict=True):
        _draw_panel(axes, arms, members)
        axes.set_title(heading, loc="left")
    counts = sorted({_count(summary) for summary in summaries})
    rare = next((one for s in summaries if (one := value(s.group, RARE))), None)
    for axes in grid:
        axes.set_xscale("log")
        axes.set_xticks(counts, [f"{count:g}" for count in counts])
        axes.minorticks_off()
        axes.tick_params(labelbottom=True)
        axes.set_xlabel(f"real training images{f' of {rare}' if rare else ''}")
    values = [one for summary in summaries for one in summary.values]
    room = max(0.6 * (max(values) - min(values)), 0.005)
    most = min(max(values) + room, 1 + room / 20)  # no AUC is above 1
    low, high = grid[0].get_ylim()
    grid[0].set_ylim(max(low, min(values) - room), min(high, most))
    grid[0].set_ylabel(f"{catalogue.title(PRIMARY_SCORE)} on {utility.measured_on} images")
    handles, labels = grid[0].get_legend_handles_labels()
    canvas.legend(handles, labels, loc="outside lower center", ncols=min(2, len(labels)))
    title = "AUC against the number of real training images"
    caption = (
        "Mean over seeds with the 95 % interval; points of one number stand beside each other. "
    )
    low, high = grid[0].get_ylim()
    if any(each.interval.low < low or each.interval.high > high for each in summaries):
        caption += "Intervals of too few seeds are cut at the edge. "
    if len(panels) > MAX_PANELS:
        caption += f"The first {MAX_PANELS} of {len(panels)} panels are shown. "
    return Figure(CURVES, title, caption.strip(), png_bytes(canvas))


def _panels(summaries: Sequence[Summary]) -> list[tuple[str, list[Summary]]]:
    """What shares ratio, classifier and data; arms without a ratio stand in every panel."""
    ratios: list[Any] = sorted({value(s.group, "ratio") for s in summaries} - {None}) or [None]
    settings = list(dict.fromkeys(setting(summary.group) for summary in summaries))
    panels = []
    for one in settings:
        of_setting = [summary for summary in summaries if setting(summary.group) == one]
        gans = _competing(of_setting)
        for gan in gans:
            for ratio in ratios:
                members = [
                    summary
                    for summary in of_setting
                    if value(summary.group, "ratio") in (None, ratio)
                    and (gan is None or value(summary.group, GAN) in (None, gan))
                ]
                added = f"{numbers.scalar(ratio)} added for each real image"
                words = [added] if ratio is not None else []
                words += [str(gan)] if gan is not None else []
                words += [f"{one[0]}, {one[1]} updates"] if len(settings) > 1 else []
                if members:
                    panels.append((", ".join(words) or "no extra images", members))
    return panels


def _competing(summaries: Sequence[Summary]) -> list[Scalar]:
    """Generators that have to be told apart: those that stand beside another in one arm at one
    fraction."""
    at: dict[tuple[Scalar, ...], set[Scalar]] = {}
    for summary in summaries:
        if value(summary.group, GAN) is not None:
            where = tuple(value(summary.group, key) for key in (FRACTION, "arm"))
            at.setdefault(where, set()).add(value(summary.group, GAN))
    if all(len(gans) < 2 for gans in at.values()):
        return [None]
    return sorted({gan for gans in at.values() for gan in gans}, key=str)


def _draw_panel(axes: Axes, arms: Sequence[str], members: Sequence[Summary]) -> None:
    for index, arm in enumerate(arms):
        own = [summary for summary in members if value(summary.group, "arm") == arm]
        color, line = _look(ARMS[arm])
        if not own:
            axes.plot([], [], color=color, ls=line, label=ARMS[arm].title)
            continue
        own.sort(key=_count)
        # Beside each other and not on top: a factor, since the axis is logarithmic.
        beside = 1 + 0.03 * (index - (len(arms) - 1) / 2)
        x = [_count(summary) * beside for summary in own]
        means = [summary.interval.mean for summary in own]
        face = "white" if ARMS[arm].classical else color
        reach = list(zip(*(summary.interval.reach for summary in own), strict=True))
        mark: Any = {"marker": "o", "ms": 4, "mfc": face, "elinewidth": 1.2}
        axes.errorbar(x, means, reach, color=color, ls=line, label=ARMS[arm].title, **mark)


def _look(arm: Arm) -> tuple[str, str]:
    """Color by how synthetic images take part, line by what else is changed."""
    color = _COLORS[arm.source or arm.network or arm.labels or arm.synthetic]
    if arm.balanced or arm.weighted:
        color = "#E69F00" if arm.synthetic else "#D55E00"
    plain = not (arm.chosen or arm.duration or arm.mixup or arm.weighted)
    plain &= not arm.labels and arm.network != "untrained"
    return color, ("--" if arm.classical else "-") if plain else ":"


def _draw_convincing(utility: Utility, problems: list[Problem]) -> Figure | None:
    """The pictures that trials left, one a fraction and share, of the largest ratio."""
    best: dict[tuple[Scalar, Scalar], tuple[Group, Run]] = {}
    for group in utility.groups:  # of one place the largest ratio stands last
        kept = [run for run in group.runs if (run.folder / CONVINCING).is_file()]
        if kept:
            best[value(group, FRACTION), value(group, PREVALENCE)] = group, kept[0]
    found = []
    for group, run in list(best.values())[:MAX_PICTURES]:
        pixels = read_picture(run, CONVINCING, problems)
        if pixels is not None:
            found.append((group, run, pixels))
    if not found:
        return None
    canvas, panels = panels_of(len(found), columns=2, panel_height=2.6, share=False)
    for axes, (group, _, pixels) in zip(panels, found, strict=True):
        show_picture(axes, pixels, f"generators of {place(group)}")
    seeds = sorted({str(run.config.get("seed")) for _, run, _ in found})
    caption = (
        "Two rows a class, in the order of the data's classes: the synthetic images that the "
        "real-only classifier of the same real images gives their class most surely, then those "
        f"that it gives their class least. They are of the study's first seed ({', '.join(seeds)}) "
        "and of no other, so that nobody chose them by their looks."
    )
    if len(best) > MAX_PICTURES:
        caption += f" The first {MAX_PICTURES} of {len(best)} are shown."
    title = "Synthetic images that a classifier finds most and least convincing"
    return Figure(PICTURES, title, caption, png_bytes(canvas, exact=True))


def _count(summary: Summary) -> float:
    """Real training images, of the rare class where there is one."""
    number, share = num_real(summary.group), value(summary.group, PREVALENCE)
    count = float(number) if isinstance(number, int | float) else 1.0
    return round(count * share) if isinstance(share, float) else count
