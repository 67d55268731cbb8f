"""The house style: figures that read on a white page and on a dark one, 360 pixels wide; same data, same bytes.

The ground is transparent. Text and axes are the one grey that keeps 4:1 on white and on #1e1e1e; marks keep 3:1 on
both, so the palette tells colours apart by hue, chosen to stay apart for colour-blind readers. Heat maps carry their
own ground. Nothing goes through pyplot and no string is read as mathtext: formulas are written in plain Unicode.
"""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, Literal, NamedTuple

import matplotlib
import numpy as np
from matplotlib import font_manager, ft2font
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure as Canvas
from matplotlib.image import AxesImage
from matplotlib.rcsetup import cycler
from matplotlib.ticker import LogFormatter
from numpy.typing import NDArray

from vaultlab.result import Figure

WIDTH = 6.4
"""Inches. Every figure is this wide, so that its 12-point text is never under 9 pixels in a column of 360."""

GREY = "#7d7d7d"
"""Text and axes: 4.1:1 on white, 4.05:1 on #1e1e1e. No other grey does better on both."""

PALETTE = ("#3377dd", "#dd7700", "#aa4499", "#cc3333", "#aa8899")
SHADES = LinearSegmentedColormap.from_list("shades", ["#3377dd", "#9d72a0", "#e07800"])
"""Low to high for marks on the bare ground: blue, violet, orange."""

SEQUENTIAL: Colormap = matplotlib.colormaps["viridis"]
DIVERGING: Colormap = matplotlib.colormaps["RdBu_r"]
"""Heat maps: from nothing up; negative blue, positive red, white at 0."""

SVG_LIMIT_BYTES = 500_000
PNG_DPI = 150

_STYLE: dict[str, Any] = {
    **{name: value for name, value in matplotlib.rcParamsDefault.items() if name not in ("backend", "interactive")},
    "font.family": "DejaVu Sans",  # comes with matplotlib: a font of the machine would change the bytes
    "font.size": 12.0,
    "axes.titlesize": 12.0,
    "figure.titlesize": 12.0,
    "axes.labelsize": 12.0,
    "xtick.labelsize": 11.0,
    "ytick.labelsize": 11.0,
    "legend.fontsize": 11.0,
    "text.color": GREY,
    "text.parse_math": False,
    "axes.edgecolor": GREY,
    "axes.labelcolor": GREY,
    "axes.titlecolor": GREY,
    "axes.facecolor": "none",
    "axes.formatter.use_mathtext": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": cycler(color=PALETTE),
    "axes.unicode_minus": True,
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "grid.color": GREY,
    "grid.alpha": 0.35,
    "hatch.color": GREY,
    "image.cmap": "viridis",
    "image.interpolation": "none",  # kept as cells in the SVG, whatever size it is shown at
    "legend.frameon": False,
    "lines.linewidth": 2.0,
    "patch.edgecolor": GREY,
    "svg.fonttype": "path",
    "svg.hashsalt": "vaultlab",
    "xtick.color": GREY,
    "ytick.color": GREY,
}


class Drawing(NamedTuple):
    """A figure before it is bytes, and what it shows in words: stating what is seen, with its numbers."""

    figure: Canvas
    alt: str


@contextmanager
def canvas(rows: int = 1, cols: int = 1, *, height: float = 4.0, **more: Any) -> Iterator[tuple[Canvas, NDArray[Any]]]:
    """A figure in the house style and its axes as an array [rows, cols]; draw inside the `with`, where the style holds.

    `height` is in inches; `more` goes to matplotlib's `Figure.subplots` (`width_ratios`, `sharex`, `gridspec_kw` …).
    """
    with matplotlib.rc_context(_STYLE):
        figure = Canvas(figsize=(WIDTH, height), layout="constrained")
        yield figure, figure.subplots(rows, cols, squeeze=False, **more)


def render(drawing: Drawing) -> Figure:
    """A drawing as a file's bytes: SVG with its text as paths, or PNG where the SVG would pass 500 KB."""
    with matplotlib.rc_context(_STYLE):
        if _cells(drawing.figure) <= SVG_LIMIT_BYTES:  # an image takes about a byte a cell: do not draw it in vain
            content = _svg(drawing.figure)
            if len(content) <= SVG_LIMIT_BYTES:
                return Figure("svg", content, drawing.alt)
        return Figure("png", _png(drawing.figure), drawing.alt)


def _svg(figure: Canvas) -> bytes:
    buffer, page, own_dpi = io.BytesIO(), FigureCanvasSVG(figure), figure.dpi
    with _laid_out(figure, 72):  # an SVG's own dpi: the layout is that of the page
        figure.dpi = own_dpi
        page.print_svg(buffer, metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def _png(figure: Canvas) -> bytes:
    buffer, page = io.BytesIO(), FigureCanvasAgg(figure)
    with _laid_out(figure, PNG_DPI):
        page.print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()


@contextmanager
def _laid_out(figure: Canvas, dpi: float) -> Iterator[None]:
    """What is printed here is what `savefig` gives, byte for byte, a quarter sooner: it would draw everything twice to
    lay it out once."""
    own_dpi, engine = figure.dpi, figure.get_layout_engine()
    figure.dpi = dpi
    if engine is not None:
        engine.execute(figure)
    figure.set_layout_engine("none")
    yield
    figure.set_layout_engine(engine)
    figure.dpi = own_dpi


def _cells(figure: Canvas) -> int:
    return sum(int(np.prod(image.get_size())) for ax in figure.axes for image in ax.images)


_SPACES = {" ": "·", "\n": "↵", "\t": "⇥"}


def visible(text: str) -> str:
    """A string that is not ours (a token, a name) as it is drawn: · for a space, ↵ for a line end, ⇥ for a tab.

    What the font lacks (CJK, emoji) or what has no look of its own becomes its code point: ⟨4e2d⟩.
    """
    return "".join(_SPACES.get(c) or (c if ord(c) in _glyphs() and c.isprintable() else f"⟨{ord(c):x}⟩") for c in text)


@cache
def _glyphs() -> frozenset[int]:
    return frozenset(ft2font.FT2Font(font_manager.findfont("DejaVu Sans")).get_charmap())


def heat(
    ax: Axes,
    values: NDArray[Any],
    label: str,
    *,
    limits: tuple[float, float] | None = None,
    bar: Literal["right", "top"] | None = "right",
) -> AxesImage:
    """A heat map [row, column] with its colour bar, `label` saying what is shown and its unit.

    Diverging about 0 where `values` or `limits` go below it, else sequential from 0. NaN is left transparent.
    """
    if limits is None:
        most = float(np.nanmax(np.abs(values), initial=0.0)) or 1.0
        limits = (-most if np.nanmin(values, initial=0.0) < 0 else 0.0, most)
    rows, cols = values.shape
    # Cells of many pixels each: a viewer that smooths images, as some do, blurs no cell into the next.
    cells = values.repeat(times := max(1, -(-600 // max(rows, cols))), 0).repeat(times, 1)
    colours = DIVERGING if limits[0] < 0 else SEQUENTIAL
    extent = (-0.5, cols - 0.5, rows - 0.5, -0.5)
    image = ax.imshow(cells, cmap=colours, norm=Normalize(*limits), aspect="auto", extent=extent)
    if bar:
        colour_bar(ax, image, label, bar)
    return image


def colour_bar(
    ax: Axes | Sequence[Axes], mappable: ScalarMappable, label: str, side: Literal["right", "top"] = "right"
) -> None:
    """The colour bar of `mappable` beside one axes or several; `label` names the quantity and its unit."""
    first = ax if isinstance(ax, Axes) else ax[0]
    bar = first.figure.colorbar(mappable, ax=ax, location=side, pad=0.02, aspect=25 if side == "right" else 50)
    bar.set_label(label)
    bar.outline.set_visible(False)


def token_axis(ax: Axes, axis: str, tokens: Sequence[str], most: int = 40) -> None:
    """Tokens along the `x` or `y` axis of a heat map, spaces and line ends visible; beyond `most` every k-th."""
    step = -(-len(tokens) // most)
    places = range(0, len(tokens), step)
    labels = [visible(tokens[place]) for place in places]
    if axis == "x":
        ax.set_xticks(places, labels, rotation=90)
    else:
        ax.set_yticks(places, labels)


def log_axis(ax: Axes, axis: Literal["x", "y"]) -> None:
    """Make an axis logarithmic, its numbers written out (matplotlib would write mathtext)."""
    getattr(ax, f"set_{axis}scale")("log")
    line = ax.xaxis if axis == "x" else ax.yaxis
    line.set_major_formatter(_Plain())
    line.set_minor_formatter(_Plain(labelOnlyBase=False, minor_thresholds=(1.5, 0.5)))


class _Plain(LogFormatter):
    """Labels where LogFormatter would have them, as 0.01 rather than 1e-02."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return f"{x:g}" if super().__call__(x, pos) else ""


def tiles(
    values: NDArray[Any],
    label: str,
    *,
    rows: Sequence[str],
    cols: Sequence[str],
    limits: tuple[float, float] | None = None,
) -> Canvas:
    """A figure of many small heat maps [row, col, height, width]: one image, one colour scale, `rows` and `cols` named.

    Tiles finer than the figure can show are averaged down, so that hundreds of heads stay one small picture.
    """
    small = _pooled(values, max(1, -(-values.shape[3] * len(cols) // 1100)))
    height, width = small.shape[2:]
    gap = max(1, round(0.06 * width))
    mosaic = np.full((len(rows), height + gap, len(cols), width + gap), np.nan)
    mosaic[:, :height, :, :width] = small.swapaxes(1, 2)
    mosaic = mosaic.reshape(len(rows) * (height + gap), len(cols) * (width + gap))[:-gap, :-gap]
    with canvas(height=1.2 + (WIDTH - 0.6) * mosaic.shape[0] / mosaic.shape[1]) as (figure, axes):
        ax = axes[0, 0]
        image = heat(ax, mosaic, label, limits=limits, bar="top")
        image.set_cmap(image.get_cmap().resampled(32))  # 5 bits a cell: half the bytes, and no eye tells more apart
        ax.set_aspect("equal")
        ax.set_xticks([col * (width + gap) + (width - 1) / 2 for col in range(len(cols))], list(cols))
        ax.set_yticks([row * (height + gap) + (height - 1) / 2 for row in range(len(rows))], list(rows))
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
    return figure


def _pooled(values: NDArray[Any], by: int) -> NDArray[Any]:
    """Means over blocks of `by` × `by` cells, NaN left out; the last block takes what is left."""
    if by == 1:
        return values
    seen = np.isfinite(values)
    sums, counts = np.where(seen, values, 0), seen.astype(np.int32)
    for axis in (2, 3):
        starts = np.arange(0, values.shape[axis], by)
        sums, counts = np.add.reduceat(sums, starts, axis=axis), np.add.reduceat(counts, starts, axis=axis)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
