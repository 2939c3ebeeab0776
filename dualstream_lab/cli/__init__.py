"""``dualstream``: the command line. Progress and messages go to stderr, results to stdout."""

from __future__ import annotations

import sys

from dualstream_lab.cli.exit_codes import USAGE

__all__ = ["main"]


def main() -> None:
    """The console entry. Its exit codes are in `cli.exit_codes`."""
    try:
        import click  # noqa: F401, PLC0415  (an extra)
        import rich  # noqa: F401, PLC0415
    except ModuleNotFoundError:
        print("the command line needs its extra: pip install 'dualstream-lab[cli]'", file=sys.stderr)
        sys.exit(USAGE)
    from dualstream_lab.cli.root import run  # noqa: PLC0415

    sys.exit(run(sys.argv[1:]))
