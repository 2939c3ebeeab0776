"""Into the streams: lines of a file, and requests over HTTP, through a publisher.

``lines``: bytes into events. ``splitting``, ``feed``: a file or a pipe. ``http``: routes for
aiohttp, which is an extra; so it is not imported here.
"""

from __future__ import annotations

from dualstream_lab.ingest.feed import Ingest, Progress, Publisher, Reader, Reject
from dualstream_lab.ingest.lines import FORMATS, Format, parse_line

__all__ = ["FORMATS", "Format", "Ingest", "Progress", "Publisher", "Reader", "Reject", "parse_line"]
