"""``python -m dualstream_lab.cli``."""

from dualstream_lab.cli import main

main()
