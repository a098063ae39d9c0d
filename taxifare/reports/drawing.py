"""Drawing with matplotlib: empty panels under their titles, and a figure as PNG or SVG.

The pyplot interface keeps figures alive in a global list, and a process that lives for months must not use it. What is
drawn belongs to the modules of figures.
"""

from collections.abc import Sequence
from io import BytesIO, StringIO
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH_IN = 11.0
"""Width of figures that fill a page."""


def side_by_side(*titles: str) -> tuple["Figure", Sequence["Axes"]]:
    """Returns a figure with a panel for each title, side by side."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5 * len(titles), 4), layout="constrained")
    panels = list(figure.subplots(1, len(titles), squeeze=False)[0])
    for panel, title in zip(panels, titles, strict=True):
        panel.set_title(title)
        _remove_frame(panel)
    return figure, panels


def below_each_other(*titles: str) -> tuple["Figure", Sequence["Axes"]]:
    """Returns a figure as wide as a page with a panel for each title, below each other, with time in common."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH_IN, 3.1 * len(titles)), layout="constrained")
    panels = list(figure.subplots(len(titles), 1, sharex=True, squeeze=False)[:, 0])
    for panel, title in zip(panels, titles, strict=True):
        panel.set_title(title, loc="left")
        _remove_frame(panel)
        panel.grid(axis="y", color="#e5e7eb", linewidth=0.8)
        panel.margins(x=0.01)
    return figure, panels


def _remove_frame(panel: "Axes") -> None:
    """Leaves of a panel's frame what its scales are on."""
    panel.spines[["top", "right"]].set_visible(False)


def png(figure: "Figure") -> bytes:
    """Returns a figure drawn as PNG."""
    file = BytesIO()
    figure.savefig(file, format="png", dpi=80)
    return file.getvalue()


def svg(figure: "Figure") -> str:
    """Returns a figure drawn as SVG to stand in a page, the same for the same figure."""
    import matplotlib as mpl

    file = StringIO()
    with mpl.rc_context({"svg.hashsalt": "taxifare", "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    drawn = file.getvalue()
    return drawn[drawn.index("<svg") :]
