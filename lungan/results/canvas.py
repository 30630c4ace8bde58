"""What all figures share: the style, a grid of panels, and PNG bytes that repeat.

Drawn on matplotlib's own objects with its default style, never the user's, so that the same runs
give the same bytes.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

_WIDTH_INCHES = 9.2
_DPI = 130
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


@contextlib.contextmanager
def style() -> Iterator[None]:
    """The style of the figures drawn inside; the user's comes back after."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


def panels_of(
    count: int, columns: int, panel_height: float, share: bool
) -> tuple[Canvas, list[Axes]]:
    from matplotlib.figure import Figure as Canvas

    columns = min(columns, count)
    rows = -(-count // columns)
    canvas = Canvas(
        figsize=(_WIDTH_INCHES, max(1.8, panel_height * rows + 0.2)), layout="constrained"
    )
    grid = canvas.subplots(rows, columns, squeeze=False, sharex=share, sharey=share)
    panels = list(grid.flat)
    for unused in panels[count:]:
        unused.remove()
    return canvas, panels[:count]


def label_outer(panels: Sequence[Axes], columns: int, x: str, y: str) -> None:
    for index, axes in enumerate(panels):
        if index % columns == 0:
            axes.set_ylabel(y)
        if index + columns >= len(panels):
            axes.set_xlabel(x)
            axes.tick_params(labelbottom=True)


def left_out(count: int, limit: int, what: str) -> str:
    return f"The first {limit} of {count} {what} are shown. " if count > limit else ""


def png_bytes(canvas: Canvas) -> bytes:
    stream = io.BytesIO()
    canvas.savefig(
        stream, format="png", dpi=_DPI, metadata={"Software": None}, pil_kwargs={"optimize": True}
    )
    return stream.getvalue()
