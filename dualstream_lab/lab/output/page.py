"""Templates into pages."""

from __future__ import annotations

from functools import cache
from typing import Final

from jinja2 import Environment, PackageLoader, StrictUndefined

__all__ = ["render"]

_MOODS: Final = {
    "passes": "good",
    "held": "good",
    "better": "good",
    "FAILS": "bad",
    "MISSED": "bad",
    "worse": "bad",
    "inconclusive": "open",
}
"""The colour of a table's cell that is one of these words."""


@cache
def _templates() -> Environment:
    made = Environment(
        loader=PackageLoader("dualstream_lab.lab.output"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals["MOODS"] = _MOODS
    return made


def render(template: str, **values: object) -> str:
    """HTML. Whatever is not ``Markup`` is escaped; a name that the template knows and ``values`` has not is a
    jinja2 ``UndefinedError``.
    """
    return _templates().get_template(template).render(values).lstrip() + "\n"
