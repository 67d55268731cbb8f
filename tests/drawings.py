"""What every figure has to be, whatever it shows."""

from matplotlib.text import Text

from vaultlab.plots.style import Drawing, render


def assert_whole(drawing: Drawing) -> None:
    """Nothing clipped, every axis named, no mathtext, said in words with numbers."""
    assert render(drawing).content
    box = drawing.figure.get_tightbbox()
    width, height = drawing.figure.get_size_inches()
    assert min(box.x0, box.y0) >= -0.01
    assert box.x1 <= width + 0.01
    assert box.y1 <= height + 0.01
    assert not any("$" in text.get_text() for text in drawing.figure.findobj(Text))
    assert any(character.isdigit() for character in drawing.alt)
    for ax in drawing.figure.axes:
        assert not ax.axison or ax.get_ylabel() or ax.get_xlabel()
