"""Builds the publisher's compiled core where a C compiler is at hand; without one the wheel is plain Python.

``DUALSTREAM_COMPILED``: ``yes`` fails without it, ``no`` does not try; left out, either way is fine.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_ROOM = "dualstream_lab/publisher"


class CustomBuildHook(BuildHookInterface):  # type: ignore[type-arg]  # of any builder
    """Adds the extension to the wheel; into the tree for an editable one."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Before a build."""
        wanted = os.environ.get("DUALSTREAM_COMPILED", "auto")
        if self.target_name != "wheel":
            return
        room = Path(self.root, _ROOM)
        if version == "editable":
            for old in room.glob("compiled.*.so"):
                old.unlink()
        if wanted == "no":
            return
        try:
            built = self._compile(room)
        except (Exception, SystemExit) as error:  # setuptools ends so where the compiler is missing
            if wanted == "yes":
                raise
            self.app.display_warning(f"the publisher's core is plain Python: {type(error).__name__}: {error}")
            return
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        if version == "editable":
            shutil.copy2(built, room / built.name)
        else:
            build_data["force_include"][str(built)] = f"{_ROOM}/{built.name}"

    def _compile(self, room: Path) -> Path:
        # Here, as either may be missing where a wheel is built without isolation.
        from Cython.Build import cythonize  # noqa: PLC0415
        from setuptools import Distribution, Extension  # noqa: PLC0415
        from setuptools.command.build_ext import build_ext  # noqa: PLC0415

        self._work = Path(tempfile.mkdtemp())
        name = f"{_ROOM.replace('/', '.')}.compiled"
        extensions = cythonize(
            [Extension(name, [str(room / "compiled.pyx")], extra_compile_args=["-g0"])],
            build_dir=str(self._work),
            force=True,
            quiet=True,
        )
        command = build_ext(Distribution({"name": "dualstream_lab", "ext_modules": extensions}))
        command.build_lib, command.build_temp = str(self._work / "lib"), str(self._work / "temp")
        command.ensure_finalized()
        command.run()
        return next(self._work.glob(f"lib/{_ROOM}/compiled.*"))

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002
        """After it."""
        if hasattr(self, "_work"):
            shutil.rmtree(self._work, ignore_errors=True)
