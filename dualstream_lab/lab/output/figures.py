"""Plots as SVG within a page."""

from __future__ import annotations

import io
import re
from html import escape
from typing import TYPE_CHECKING

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from markupsafe import Markup
from matplotlib.collections import Collection, QuadMesh
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

__all__ = ["canvas", "drawing"]

_PATH, _POINT = 200, 20  # bytes
_LARGE = 150_000  # bytes of all that an axes draws in one way: as a picture it is smaller
_DPI = 150


def canvas(*, width: float = 9, height: float = 4) -> Axes:
    """Axes to draw on, of a figure that no window shows (inches)."""
    return Figure(figsize=(width, height), layout="constrained").subplots()


def drawing(axes: Axes, *, label: str) -> Markup:
    """The figure of ``axes`` as an ``<svg>``, and the figure is closed.

    The same plot gives the same text. Fonts are the reader's; what has thousands of points is a picture
    inside. ``label``: for those who cannot see it, and different for each plot of a page.
    """
    figure = axes.get_figure(root=True)
    assert figure is not None  # noqa: S101  (axes that were not removed)
    for each in figure.axes:
        _rasterize(each)
    text = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": f"dualstream {label}", "svg.fonttype": "none"}):
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(text, format="svg", dpi=_DPI, metadata=nothing)
    plt.close(figure)
    found = text.getvalue()
    found = found[found.index("<svg") :]
    found = re.sub(r'<g id="[^"]*"', "<g", found)  # other plots of the page have a figure_1, too
    return Markup(found.replace("<svg", f'<svg role="img" aria-label="{escape(label)}"', 1))  # noqa: S704


def _rasterize(axes: Axes) -> None:
    for group in (axes.lines, axes.collections, axes.patches):
        if sum(map(_size, group)) > _LARGE:
            for artist in group:
                artist.set_rasterized(True)


def _size(artist: Artist) -> int:
    """Bytes as SVG, roughly."""
    if isinstance(artist, Line2D):
        return _POINT * np.size(artist.get_xdata())
    if isinstance(artist, QuadMesh):
        return _PATH * (np.size(artist.get_coordinates()) // 2)
    if isinstance(artist, Collection):
        once = sum(_PATH + _POINT * np.size(path.vertices) // 2 for path in artist.get_paths())
        return once * max(1, len(np.asarray(artist.get_offsets())))
    return _PATH + _POINT * np.size(artist.get_path().vertices) // 2 if isinstance(artist, Patch) else 0
