#!/bin/sh
# Make a virtual environment with the newest Python at hand, or say what is missing.
set -eu
venv=$1
for name in python3.14 python3.13 python3.12 python3.11 python3 python; do
    if command -v "$name" >/dev/null 2>&1 &&
        "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        python=$name
        break
    fi
done
if [ -z "${python:-}" ]; then
    echo "dualstream_lab needs Python 3.11 or newer, and none is on PATH." >&2
    echo "Install it (for example: apt install python3 python3-venv), then run make again." >&2
    exit 2
fi
if ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
    echo "$python has no venv module." >&2
    echo "Install it (for example: apt install python3-venv), then run make again." >&2
    exit 2
fi
rm -rf "$venv"
echo "making $venv with $("$python" --version) …"
"$python" -m venv "$venv"
