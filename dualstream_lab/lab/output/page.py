"""Self-contained HTML pages: nothing is loaded from anywhere, no script is needed.

::

    picture = drawing(plot_this(that, canvas()), label="This of that")
    text = render("mine.html.j2", headline="All is well.", mood="good", picture=picture)

Templates are in ``templates``; they extend ``base.html.j2``, whose first lines say what it wants, and use the
macros of ``parts.html.j2``.
"""

from __future__ import annotations

import io
import re
from functools import cache
from html import escape
from typing import TYPE_CHECKING, Final

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.collections import Collection, QuadMesh
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

MOODS: Final = {
    "passes": "good",
    "held": "good",
    "better": "good",
    "FAILS": "bad",
    "MISSED": "bad",
    "worse": "bad",
    "regression": "bad",
    "inconclusive": "open",
    "cannot tell": "open",
}
"""The colour of a verdict, and of a table's cell that is one."""

_PATH, _POINT = 200, 20  # bytes
_LARGE = 150_000  # bytes of all that an axes draws in one way: as a picture it is smaller
_DPI = 150


def canvas(*, height: float = 4) -> Axes:
    """Axes to draw on, of a figure as wide as a page and ``height`` inches high, which no window shows."""
    return Figure(figsize=(9, height), layout="constrained").subplots()


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
    """About how many bytes the artist takes as SVG."""
    if isinstance(artist, Line2D):
        return _POINT * np.size(artist.get_xdata())
    if isinstance(artist, QuadMesh):
        return _PATH * (np.size(artist.get_coordinates()) // 2)
    if isinstance(artist, Collection):
        once = sum(_PATH + _POINT * np.size(path.vertices) // 2 for path in artist.get_paths())
        return once * max(1, len(np.asarray(artist.get_offsets())))
    return _PATH + _POINT * np.size(artist.get_path().vertices) // 2 if isinstance(artist, Patch) else 0


@cache
def _templates() -> Environment:
    made = Environment(
        loader=PackageLoader("dualstream_lab.lab.output"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals["MOODS"] = MOODS
    return made


def render(template: str, **values: object) -> str:
    """A template's HTML with these values. Whatever is not ``Markup`` is escaped; a name that the template
    knows and ``values`` has not is a jinja2 ``UndefinedError``.
    """
    return _templates().get_template(template).render(values).lstrip() + "\n"
