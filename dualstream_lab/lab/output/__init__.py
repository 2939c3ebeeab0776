"""Self-contained HTML pages: nothing is loaded from anywhere, no script is needed.

::

    from dualstream_lab.lab.output import canvas, drawing, render

    picture = drawing(plot_this(that, canvas()), label="This of that")
    text = render("mine.html.j2", headline="All is well.", mood="good", picture=picture)

Templates are in ``templates``; they extend ``base.html.j2``, whose first lines say what it wants, and use the
macros of ``parts.html.j2``.
"""

from __future__ import annotations

from dualstream_lab.lab.output.figures import canvas, drawing
from dualstream_lab.lab.output.page import render

__all__ = ["canvas", "drawing", "render"]
