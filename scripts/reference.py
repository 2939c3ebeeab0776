"""Write the reference pages that are made from the code. A test holds the pages to it."""

from __future__ import annotations

import ast
from inspect import getsource
from itertools import pairwise
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING, Literal, get_args, get_origin
from unittest.mock import MagicMock

import click

from dualstream_lab import errors as error_tree
from dualstream_lab.cli.chaos import _parameters, _place
from dualstream_lab.cli.root import _COMMANDS, _SECTIONS, _dualstream
from dualstream_lab.config import ServeSettings, Settings
from dualstream_lab.faults import CATALOGUE
from dualstream_lab.gateway.metrics import Metrics
from dualstream_lab.verdict.measures import MEASURES

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

__all__ = ["PAGES"]

DIRECTORY = Path(__file__).parents[1] / "docs/reference"
_MADE = "<!-- made by scripts/reference.py -->\n"
_TOKENS = (
    "Of `dualstream serve`, besides those above. The claims of a bearer token are `exp`, and `read` and "
    "`write`: lists of patterns such as `repo:octo/*`.\n"
)
_UNITS = ((1, ""), (2**10, " KiB"), (2**20, " MiB"), (2**30, " GiB"))


def _table(*rows: tuple[str, ...]) -> str:
    head, *rest = ("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)
    return "\n".join([head, "|" + "---|" * len(rows[0]), *rest]) + "\n"


def faults() -> str:
    """Of the catalogue."""
    rows = [("fault", "what it does", "parameters", "where")]
    for name, kind in CATALOGUE.items():
        rows.append((f"`{name}`", kind.says, _parameters(kind).replace("\n", "; "), _place(kind)))
    return f"# Faults\n\n{_MADE}\nOf a scenario's `[[faults]]`, and `--fault` of a command.\n\n" + _table(
        *rows
    )


def measures() -> str:
    """Of a run, as thresholds name them."""
    rows = [("measure", ""), *((f"`{name}`", says) for name, says in MEASURES.items())]
    text = "As thresholds name them: `live.latency.p99<5ms`. What never arrived counts as infinite.\n"
    return f"# Measures\n\n{_MADE}\n{text}\n" + _table(*rows)


def settings() -> str:
    """Of the publisher, and of ``dualstream serve``."""
    intro = (
        "Arguments of `Settings.load(…)`, or `DUALSTREAM_<NAME>` in the environment; a bad value is refused "
        "with what is allowed. Times are in seconds. [What each codec saves](../benchmarks.md), and why none "
        "is the default.\n"
    )
    serving = f"\n## Delivery\n\n{_TOKENS}\n{_fields(ServeSettings)}"
    return f"# Settings\n\n{_MADE}\n{intro}\n{_fields(Settings)}{serving}"


def _fields(kind: type[Settings]) -> str:
    """Those of its own, as its source lists them."""
    (body,) = (
        node.body for node in ast.parse(dedent(getsource(kind))).body if isinstance(node, ast.ClassDef)
    )
    rows = [("setting", "default", "allowed", "")]
    for node, after in pairwise(body):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            name = node.target.id
            assert isinstance(after, ast.Expr), f"{name} has no docstring"
            assert isinstance(after.value, ast.Constant), f"{name} has no docstring"
            field = kind.model_fields[name]
            default = _value(name, field.default) if field.default not in {None, ""} else ""
            rows.append((f"`{name}`", default, _allowed(name, field), _prose(after.value.value)))
    return _table(*rows)


def _allowed(name: str, field: FieldInfo) -> str:
    if get_origin(field.annotation) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(field.annotation))
    bounds = {
        bound: _value(name, getattr(one, bound))
        for one in field.metadata
        for bound in ("gt", "ge", "le")
        if hasattr(one, bound)
    }
    low = f"more than {bounds['gt']}" if "gt" in bounds else bounds.get("ge")
    return f"{low} to {bounds['le']}" if low else ""


def _value(name: str, value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"`{str(value).lower() if isinstance(value, bool) else value}`"
    if "bytes" in name:
        size, unit = max((size, unit) for size, unit in _UNITS if value % size == 0)
        return f"{value // size:,}{unit}"
    return f"{value:,.10g}"


def commands() -> str:
    """Every command's help."""
    text = f"# Commands\n\n{_MADE}"
    for title, names in _SECTIONS.items():
        text += f"\n## {title}\n"
        for name in names:
            parent = click.Context(_dualstream, info_name="dualstream", **_dualstream.context_settings)
            command = _dualstream.get_command(parent, name)
            assert command is not None, name
            text += f"\n### dualstream {name}\n\n{_help(command, name, parent)}"
            for inner, one in getattr(command, "commands", {}).items():
                around = click.Context(command, info_name=name, parent=parent)
                text += f"\n#### dualstream {name} {inner}\n\n{_help(one, inner, around)}"
    assert sum(map(len, _SECTIONS.values())) == len(_COMMANDS)
    return text


def _help(command: click.Command, name: str, parent: click.Context) -> str:
    context = click.Context(command, info_name=name, parent=parent, max_content_width=100, terminal_width=100)
    return f"```\n{command.get_help(context).rstrip()}\n```\n"


def errors() -> str:
    """The error tree."""
    rows = [("error", "is a", "")]
    for name in error_tree.__all__:
        kind = getattr(error_tree, name)
        parents = ", ".join(f"`{one.__name__}`" for one in kind.__bases__)
        rows.append((f"`{name}`", parents, _prose(kind.__doc__)))
    text = (
        "Of `dualstream_lab.errors`, all at the top, too: `from dualstream_lab import PublishRejected`. "
        "Errors of the clients below are mapped to these where they arise.\n"
    )
    return f"# Errors\n\n{_MADE}\n{text}\n" + _table(*rows)


def _prose(docstring: str) -> str:
    return " ".join(docstring.replace("``", "`").split())


def metrics() -> str:
    """Of the gateway, as its collector gives them: of nobody, so that no broker is needed."""
    rows = [("metric", "type", "labels", "")]
    for one in Metrics(MagicMock(), MagicMock(), MagicMock()).registry.collect():
        name = one.name + "_total" * (one.type == "counter")
        labels = ", ".join(f"`{label}`" for label in getattr(one, "_labelnames", ()))
        rows.append((f"`{name}`", one.type, labels, one.documentation))
    text = (
        "`GET /metrics` of `dualstream serve`, in Prometheus's format. No metric has a source or channel as "
        "its label: there are too many of them.\n"
    )
    return f"# Metrics\n\n{_MADE}\n{text}\n" + _table(*rows)


PAGES = {
    "commands.md": commands,
    "errors.md": errors,
    "faults.md": faults,
    "measures.md": measures,
    "metrics.md": metrics,
    "settings.md": settings,
}


def main() -> None:
    for name, make in PAGES.items():
        (DIRECTORY / name).write_text(make(), encoding="utf-8")


if __name__ == "__main__":
    main()
