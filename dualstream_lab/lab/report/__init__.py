"""A run for somebody who was not there: one page, or a few tables for a pull request.

::

    from dualstream_lab.lab.report import html, markdown, report

    found = report("runs/redis_down-20250601-120000-3f9a")
    Path("report.html").write_text(html(found), encoding="utf-8")
"""

from __future__ import annotations

from dualstream_lab.lab.report.page import html, markdown
from dualstream_lab.lab.report.report import Report, report

__all__ = ["Report", "html", "markdown", "report"]
