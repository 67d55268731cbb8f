"""The house style: contrast, bytes, strings that are not ours."""

import hashlib
import io
import os
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_rgb
from matplotlib.image import imread
from matplotlib.text import Text

import vaultlab
from vaultlab.plots import style
from vaultlab.plots.style import (
    DIVERGING,
    GREY,
    PALETTE,
    SEQUENTIAL,
    SHADES,
    Drawing,
    canvas,
    heat,
    render,
    tiles,
    visible,
)

WHITE, DARK = "#ffffff", "#1e1e1e"

# Machado, Oliveira and Fernandes (2009), severity 1.0, on linear RGB.
BLINDNESS = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def linear(colour):
    c = np.array(to_rgb(colour))
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def contrast(one, other):
    """WCAG 2's ratio."""
    low, high = sorted(float(linear(c) @ [0.2126, 0.7152, 0.0722]) + 0.05 for c in (one, other))
    return high / low


def oklab(rgb):
    cones = np.array([[0.41222, 0.53633, 0.05145], [0.21190, 0.68070, 0.10740], [0.08830, 0.28172, 0.62998]])
    mix = np.array([[0.21045, 0.79362, -0.00407], [1.97800, -2.42859, 0.45059], [0.02590, 0.78277, -0.80868]])
    return mix @ np.cbrt(cones @ np.clip(rgb, 0, 1))


@pytest.mark.parametrize("ground", [WHITE, DARK])
def test_text_and_axes_have_four_to_one_on_both_grounds(ground):
    assert contrast(GREY, ground) >= 4


def test_no_other_grey_is_better():
    greys = [f"#{level:02x}{level:02x}{level:02x}" for level in range(256)]
    worst = {grey: min(contrast(grey, WHITE), contrast(grey, DARK)) for grey in greys}
    assert worst[GREY] >= max(worst.values()) - 0.02


@pytest.mark.parametrize("ground", [WHITE, DARK])
def test_marks_have_three_to_one_on_both_grounds(ground):
    for colour in [*PALETTE, *SHADES(np.linspace(0, 1, 64))]:
        assert contrast(colour, ground) >= 3, colour


@pytest.mark.parametrize("kind", BLINDNESS)
def test_the_palette_stays_apart_for_colour_blind_readers(kind):
    seen = {colour: oklab(np.array(BLINDNESS[kind]) @ linear(colour)) for colour in PALETTE}
    for one, other in combinations(PALETTE, 2):
        assert np.linalg.norm(seen[one] - seen[other]) > 0.08, (kind, one, other)


def test_maps_of_heat_rise_and_diverge_in_lightness():
    light = lambda colours: np.array([oklab(linear(c))[0] for c in colours])  # noqa: E731
    assert (np.diff(light(SEQUENTIAL(np.linspace(0, 1, 32)))) > 0).all()
    half = light(DIVERGING(np.linspace(0, 1, 33)))
    assert (np.diff(half[:17]) > 0).all()
    assert (np.diff(half[16:]) < 0).all()


def a_drawing():
    with canvas(1, 2, height=3) as (figure, axes):
        axes[0, 0].plot([1, 2, 3], [0.3, 0.1, 0.2], label="one")
        axes[0, 0].set(xlabel="step", ylabel="loss")
        axes[0, 0].legend()
        heat(axes[0, 1], np.arange(12.0).reshape(3, 4) - 5, "effect (nats)")
        style.token_axis(axes[0, 1], "x", [" The", "\n", "中", "🙂"])
    return Drawing(figure, "a line that falls from 0.3 to 0.1")


def test_the_same_data_gives_the_same_bytes_also_in_another_process():
    here = render(a_drawing())
    assert here.kind == "svg"
    assert render(a_drawing()) == here
    code = "import hashlib, test_style as t; print(hashlib.sha256(t.render(t.a_drawing()).content).hexdigest())"
    roots = os.pathsep.join(map(str, [Path(__file__).parent, Path(vaultlab.__file__).parents[1]]))
    env = {**os.environ, "PYTHONPATH": roots, "PYTHONHASHSEED": "7"}
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    assert there.stdout.strip() == hashlib.sha256(here.content).hexdigest()


@pytest.mark.parametrize("also", ["", "a heading\nof two lines"])
@pytest.mark.parametrize(
    ("kind", "how"),
    [("svg", {"metadata": {"Date": None, "Creator": None}}), ("png", {"metadata": {"Software": None}, "dpi": 150})],
)
def test_a_figure_is_what_matplotlib_itself_would_save(kind, how, also, monkeypatch):
    ours, theirs = a_drawing(), a_drawing()
    for one in (ours, theirs):
        one.figure.suptitle(also)
    with matplotlib.rc_context(style._STYLE):
        buffer = io.BytesIO()
        theirs.figure.savefig(buffer, format=kind, transparent=True, **how)
    if kind == "png":
        monkeypatch.setattr(style, "SVG_LIMIT_BYTES", 10)
    printed = render(ours)
    assert (printed.kind, printed.content) == (kind, buffer.getvalue())


def test_the_readers_own_matplotlib_settings_change_nothing_and_are_left_alone():
    before = render(a_drawing())
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "svg.fonttype": "none", "lines.color": "k"}):
        assert render(a_drawing()) == before
        assert matplotlib.rcParams["font.size"] == 30


def test_an_svg_has_its_text_as_paths_and_no_date():
    content = render(a_drawing()).content.decode()
    assert "<text" not in content
    assert "<dc:date>" not in content
    assert matplotlib.__version__ not in content


@pytest.mark.parametrize(
    ("token", "drawn"),
    [
        (" Paris", "·Paris"),
        ("\n", "↵"),
        ("\r\n", "⟨d⟩↵"),
        ("a\tb", "a⇥b"),
        ("é", "é"),
        ("中", "⟨4e2d⟩"),
        ("🙂", "⟨1f642⟩"),
        ("\x00", "⟨0⟩"),
        ("\u202e", "⟨202e⟩"),
        ("$x_1$", "$x_1$"),
    ],
)
def test_strings_that_are_not_ours_are_visible(token, drawn):
    assert visible(token) == drawn


@settings(max_examples=25, deadline=None)
@given(st.text(max_size=12))
def test_any_string_is_drawn_without_a_warning_and_never_read_as_mathtext(text):
    with canvas(height=1) as (figure, axes):
        axes[0, 0].set_title(visible("$" + text + r"$\frac{"))
        style.token_axis(axes[0, 0], "y", [text, "$\\alpha$", "_"])
    assert render(Drawing(figure, "x")).kind == "svg"


HEADS = {"rows": [f"L{i}" for i in range(30)], "cols": [f"H{i}" for i in range(9)]}


def test_many_heads_are_one_small_image():
    scores = np.random.default_rng(0).normal(size=(30, 9, 128, 128)) * 2
    scores[:, :, *np.triu_indices(128, 1)] = np.nan
    patterns = np.exp(scores) / np.nansum(np.exp(scores), axis=-1, keepdims=True)
    figure = tiles(patterns, "attention", **HEADS)
    assert len(figure.axes) == 2  # the image and its colour bar
    drawn = render(Drawing(figure, "heads"))
    assert drawn.kind == "png"
    assert len(drawn.content) <= 1_000_000
    pixels = imread(io.BytesIO(drawn.content))
    assert pixels[0, 0, 3] == 0  # the ground is transparent
    assert pixels.shape[1] == style.WIDTH * style.PNG_DPI
    assert render(Drawing(tiles(patterns, "attention", **HEADS), "heads")).content == drawn.content


def test_tiles_stand_in_their_places():
    values = np.arange(6.0).reshape(2, 3, 1, 1) * np.ones((2, 3, 4, 5))
    figure = tiles(values, "head", rows=["a", "b"], cols=["x", "y", "z"])
    image = figure.axes[0].images[0].get_array().filled(np.nan)
    ax = figure.axes[0]
    times = image.shape[1] / (ax.get_xlim()[1] + 0.5)  # a cell is many pixels
    for row, y in enumerate(ax.get_yticks()):
        for col, x in enumerate(ax.get_xticks()):
            assert image[int((y + 0.5) * times), int((x + 0.5) * times)] == values[row, col, 0, 0]
    assert np.isnan(image).any()  # the gaps


@given(st.integers(1, 9), st.integers(1, 9), st.integers(2, 4))
def test_pooling_is_the_mean_of_each_block(height, width, by):
    values = np.random.default_rng(height * 10 + width).normal(size=(1, 1, height, width))
    values[0, 0, 0, 0] = np.nan
    pooled = style._pooled(values, by)[0, 0]
    for row in range(pooled.shape[0]):
        for col in range(pooled.shape[1]):
            block = values[0, 0, row * by : (row + 1) * by, col * by : (col + 1) * by]
            if np.isnan(block).all():
                assert np.isnan(pooled[row, col])
            else:
                assert pooled[row, col] == pytest.approx(np.nanmean(block))


def test_a_heat_map_is_diverging_about_zero_where_values_go_below_it():
    with canvas() as (_, axes):
        both = heat(axes[0, 0], np.array([[-1.0, 3.0]]), "x")
        up = heat(axes[0, 0], np.array([[1.0, 3.0]]), "x")
        none = heat(axes[0, 0], np.zeros((2, 2)), "x")
    assert (both.norm.vmin, both.norm.vmax, both.cmap.name) == (-3, 3, "RdBu_r")
    assert (up.norm.vmin, up.norm.vmax, up.cmap.name) == (0, 3, "viridis")
    assert none.norm.vmax > none.norm.vmin


def test_logarithmic_axes_write_plain_numbers():
    with canvas() as (figure, axes):
        axes[0, 0].plot([1, 10, 1000], [0.003, 0.01, 2])
        style.log_axis(axes[0, 0], "x")
        style.log_axis(axes[0, 0], "y")
    render(Drawing(figure, "x"))
    words = {text.get_text() for text in figure.findobj(Text)}
    assert {"10", "1000", "0.01"} <= words
    assert not any("$" in word for word in words)


def test_text_is_legible_in_a_column_of_360_pixels():
    pixels_a_point = 360 / (style.WIDTH * 72)
    for text in a_drawing().figure.findobj(Text):
        assert text.get_fontsize() * pixels_a_point > 8.5
