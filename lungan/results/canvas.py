"""What all figures share: the style, a grid of panels, and PNG bytes that repeat.

Drawn on matplotlib's own objects with its default style, never the user's, so that the same runs
give the same bytes.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

_WIDTH_INCHES = 9.2
_DPI = 130
_PAD_POINTS = 4.0
_MAX_ROOM = 0.7
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
    count: int,
    columns: int,
    panel_height: float,
    share: bool,
    layout: Literal["constrained"] | None = "constrained",
) -> tuple[Canvas, list[Axes]]:
    """layout: None for a figure of nothing but panels, which ``png_bytes`` then arranges."""
    from matplotlib.figure import Figure as Canvas

    columns = min(columns, count)
    rows = -(-count // columns)
    canvas = Canvas(
        figsize=(_WIDTH_INCHES, max(1.8, panel_height * rows + 0.2)), dpi=_DPI, layout=layout
    )
    # Without a layout panels begin as large as can be: they have the most ticks to make room for.
    full = {"left": 0, "bottom": 0, "right": 1, "top": 1, "wspace": 0, "hspace": 0}
    grid = canvas.subplots(
        rows,
        columns,
        squeeze=False,
        sharex=share,
        sharey=share,
        gridspec_kw=None if layout else full,
    )
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


def mark_rows(axes: Axes, count: int) -> None:
    """The marks of ticks without labels, as one line: ticks are the dearest things to draw."""
    import matplotlib

    axes.set_yticks([])
    axes.plot(
        [0.0] * count,
        range(count),
        ls="",
        marker=matplotlib.markers.TICKLEFT,
        ms=matplotlib.rcParams["ytick.major.size"],
        mew=matplotlib.rcParams["ytick.major.width"],
        color=matplotlib.rcParams["ytick.color"],
        transform=axes.get_yaxis_transform(),
        clip_on=False,
        scalex=False,
        scaley=False,
    )


def left_out(count: int, limit: int, what: str) -> str:
    return f"The first {limit} of {count} {what} are shown. " if count > limit else ""


def png_bytes(canvas: Canvas, *, exact: bool = False) -> bytes:
    """exact: all grey levels of the images shown. 256 colours do for charts, at half the size."""
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    agg: Any = FigureCanvasAgg(canvas)  # which has no types
    if canvas.get_layout_engine() is None:
        _arrange(canvas, agg.get_renderer())
    agg.draw()
    stream = io.BytesIO()
    image = Image.fromarray(np.asarray(agg.buffer_rgba())[..., :3])
    if not exact:
        image = image.quantize(256, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    image.save(stream, format="png", dpi=(_DPI, _DPI), compress_level=_COMPRESSION)
    return stream.getvalue()


def _arrange(canvas: Canvas, renderer: Any) -> None:
    """Panels of one size, with room in each row and column for the titles and labels there.

    As matplotlib's constrained layout, but measured once: measuring is half of the drawing.
    """
    import numpy as np

    cells, rooms = [], []
    for axes in canvas.axes:
        box = axes.get_tightbbox(renderer, for_layout_only=True)
        spec = axes.get_subplotspec()
        if box is None or spec is None:
            continue
        own = axes.bbox
        cells.append((axes, spec.rowspan.start, spec.colspan.start))
        rooms.append((own.x0 - box.x0, box.x1 - own.x1, box.y1 - own.y1, own.y0 - box.y0))
    rows = 1 + max(row for _, row, _ in cells)
    columns = 1 + max(column for _, _, column in cells)
    across, down = np.zeros((2, columns)), np.zeros((2, rows))
    for (_, row, column), room in zip(cells, rooms, strict=True):
        across[:, column] = np.maximum(across[:, column], room[:2])
        down[:, row] = np.maximum(down[:, row], room[2:])
    pad = _PAD_POINTS / 72 * _DPI
    across, down = across + pad, down + pad
    whole = canvas.bbox
    # Names without an end are cut at the page's edge rather than leave no room for panels.
    across *= min(1.0, _MAX_ROOM * whole.width / across.sum())
    down *= min(1.0, _MAX_ROOM * whole.height / down.sum())
    width, height = (whole.width - across.sum()) / columns, (whole.height - down.sum()) / rows
    for axes, row, column in cells:
        left = across[:, :column].sum() + across[0, column] + column * width
        top = whole.height - down[:, :row].sum() - down[0, row] - row * height
        axes.set_position(
            (
                left / whole.width,
                (top - height) / whole.height,
                width / whole.width,
                height / whole.height,
            )
        )
