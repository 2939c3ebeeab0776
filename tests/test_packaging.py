"""The base wheel alone, in an environment of its own, is enough to publish."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

LIGHT = """
import sys
import dualstream_lab
heavy = {"aiokafka", "redis", "pandas", "matplotlib", "pydantic", "numpy", "click"} & set(sys.modules)
assert not heavy, heavy
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    directory = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(directory)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)
    (built,) = directory.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def bare(wheel, tmp_path_factory):
    """The Python of an environment with the wheel and what it asks for, in the locked versions."""
    directory = tmp_path_factory.mktemp("bare")
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    pins = [line.partition(" ")[0] for line in lock if line[:1].isalnum()]
    (directory / "pins.txt").write_text("\n".join(pins), encoding="utf-8")
    subprocess.run([sys.executable, "-m", "venv", str(directory / "venv")], check=True, timeout=120)
    python = directory / "venv/bin/python"
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "-c", str(directory / "pins.txt"), str(wheel)], check=True, timeout=300)
    return python


def run(python: Path, *arguments: str, environment: dict[str, str] | None = None):
    ours = ("DUALSTREAM", "PYTHON")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return subprocess.run(
        [str(python), *arguments],
        env=clean | (environment or {}),
        cwd=python.parent,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def example() -> str:
    """The README's first Python block."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return text.partition("```python\n")[2].partition("```")[0]


def test_the_readmes_example_runs_on_the_base_package(bare, stack, topic):
    assert len(example().splitlines()) <= 12
    done = run(bare, "-c", example(), environment=stack.environment() | {"DUALSTREAM_TOPIC": topic})
    assert done.returncode == 0, done.stderr
    assert "Receipt(event_id=" in done.stdout
    assert "offset=0" in done.stdout


def test_the_command_without_its_extra_says_what_to_install(bare):
    done = run(bare, "-m", "dualstream_lab.cli", "--help")
    assert (done.returncode, done.stdout) == (2, "")
    assert "pip install 'dualstream-lab[cli]'" in done.stderr


def test_importing_the_package_is_light(bare):
    done = run(bare, "-c", LIGHT)
    assert done.returncode == 0, done.stderr


def test_the_wheel_has_the_typing_marker_and_nothing_but_the_package(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert "dualstream_lab/py.typed" in names
    assert {name.partition("/")[0] for name in names} == {"dualstream_lab", "dualstream_lab-0.1.0.dist-info"}


def test_what_ci_runs_needs_neither_notebooks_nor_locust():
    heavy = "{'pandas', 'matplotlib', 'jupyterlab', 'locust', 'gevent'}"
    program = (
        f"import sys, dualstream_lab.cli.run; found = {heavy} & set(sys.modules); assert not found, found"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
