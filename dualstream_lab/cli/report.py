"""``dualstream report``: one run as a page, or for a pull request."""

from __future__ import annotations

from pathlib import Path

import click

from dualstream_lab.cli import USAGE
from dualstream_lab.cli.console import say, stdout
from dualstream_lab.cli.options import output
from dualstream_lab.errors import ConfigError, RecordingError
from dualstream_lab.recording import RunDirectory


@click.command(
    epilog="Example:  dualstream report runs/smoke-20250601-120000-3f9a   then open its report.html"
)
@click.argument("run", type=click.Path(path_type=Path))
@output("--html", "page", help="The page.  [default: RUN/report.html]")
@output(
    "--markdown", help="Tables for a pull request; then the page is made only where --html is given, too."
)
def report(run: Path, page: Path | None, markdown: Path | None) -> int:
    """Make a page of RUN, a run directory: its verdict, its story in pictures, the ledger, how to repeat it.

    It is one file that needs no network and no script. A run that was interrupted or is damaged has one, too;
    it says what is missing.

    Exit codes: 0 made, whatever the verdict is; 2 RUN is no run directory, or a file has no place.
    """
    try:
        RunDirectory.open(run)
        say(f"reading {run} …")
        from dualstream_lab.lab import report as lab  # noqa: PLC0415  (matplotlib and pandas take a second)

        found = lab.report(run)
    except RecordingError as error:
        say(f"error: {error}")
        return USAGE
    if markdown is not None:
        _write(markdown, lab.markdown(found))
    if page is not None or markdown is None:
        if page is None:
            page = run / "report.html"
            if page.is_symlink():  # never through a link: the directory may be a stranger's
                page.unlink()
        _write(page, lab.html(found))
        say("next: open it in a browser, or send it to somebody who was not there")
    else:
        say("no page was made; with --html FILE there is one, too")
    for problem in found.problems:
        say(f"missing: {problem}")
    return 0


def _write(file: Path, text: str) -> None:
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{file} cannot be written: {error.strerror or error}") from error
    stdout.print(f"report  {file}")
