"""Builds wheels with the compiled core for Linux and macOS, on x86-64 and ARM, with zig's compiler.

For the Python that runs this. Those of macOS are compiled against this Python's headers, and not tried here.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parent.parent
ROOM = Path("dualstream_lab/publisher")
PYTHON = f"cp{sys.version_info.major}{sys.version_info.minor}"
_LINUX = ("-shared",)
_MACOS = ("-dynamiclib", "-Wl,-undefined,dynamic_lookup")
# zig's target, the platform in the wheel's name, the end of the module's name, what the linker is told
TARGETS = (
    ("x86_64-linux-gnu.2.17", "manylinux_2_17_x86_64", "x86_64-linux-gnu", _LINUX),
    ("aarch64-linux-gnu.2.17", "manylinux_2_17_aarch64", "aarch64-linux-gnu", _LINUX),
    ("x86_64-macos.11.0", "macosx_11_0_x86_64", "darwin", _MACOS),
    ("aarch64-macos.11.0", "macosx_11_0_arm64", "darwin", _MACOS),
)


def python(*words: str | Path, **environment: str) -> None:
    """Run a module of this Python's. Raises CalledProcessError."""
    command = (sys.executable, "-m", *words)
    subprocess.run(command, cwd=ROOT, env=os.environ | environment, check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    """All of them, into dist/."""
    dist = ROOT / "dist"
    with TemporaryDirectory() as temporary:
        work = Path(temporary)
        python("hatchling", "build", "-t", "wheel", "-d", work, DUALSTREAM_COMPILED="no")
        (plain,) = work.glob("*.whl")
        source = work / "compiled.c"
        python(
            "cython",
            "-3",
            ROOT / ROOM / "compiled.pyx",
            "-o",
            source,
            "--module-name",
            "dualstream_lab.publisher.compiled",
        )
        for target, platform, end, linked in TARGETS:
            unpacked = work / target
            python("wheel", "unpack", plain, "-d", unpacked)
            (tree,) = unpacked.iterdir()
            module = tree / ROOM / f"compiled.cpython-{PYTHON[2:]}-{end}.so"
            include = f"-I{sysconfig.get_path('include')}"
            compiler = ("ziglang", "cc", "-target", target, "-O2", "-g0", "-fPIC", *linked, include)
            python(*compiler, source, "-o", module)
            (about,) = tree.glob("*.dist-info/WHEEL")
            about.write_text(about.read_text().replace("Purelib: true", "Purelib: false"))
            python("wheel", "pack", tree, "-d", unpacked)
            (packed,) = unpacked.glob("*.whl")
            tags = ("--python-tag", PYTHON, "--abi-tag", PYTHON, "--platform-tag", platform)
            python("wheel", "tags", *tags, "--remove", packed)
            (tagged,) = unpacked.glob("*.whl")
            dist.mkdir(exist_ok=True)
            tagged.rename(dist / tagged.name)
            print(f"dist/{tagged.name}")


if __name__ == "__main__":
    main()
