"""What is public, and what an import without its extra says."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib import import_module, metadata
from pathlib import Path

import pytest

import dualstream_lab
from dualstream_lab import errors, testing

from .test_extras import blocked_without

PUBLIC = """
BatchReceipt BufferFull ConfigError DualPublisher DualStreamError Event EventError FaultInert Notification
OutcomeUnknown PublishError PublishRejected Receipt RecordingError Settings StackError StoreConflict
StoreError StreamGap StreamUnavailable Subscriber __version__ channel_of encode_event
"""
PACKAGES = {"analysis", "faults", "lab", "replay", "simulation", "testing"}
PRODUCTS = {"lab.compare": ["table"], "lab.isolation": [
    "Options", "Proof", "Rules", "Timing", "headline", "plot_proof", "prove", "table",
]}  # fmt: skip
ROOT = Path(__file__).parents[1]


def test_the_public_names_are_these():
    assert dualstream_lab.__all__ == PUBLIC.split()
    for name in dualstream_lab.__all__:
        assert getattr(dualstream_lab, name) is not None
    assert set(errors.__all__) < set(dualstream_lab.__all__)
    assert dualstream_lab.__version__ == metadata.version("dualstream-lab")


def test_the_public_names_for_tests_are_these():
    assert testing.__all__ == ["MemoryGateway", "MemoryPublisher"]
    members = {"disconnect", "publisher", "url"}
    assert {name for name in vars(testing.MemoryGateway()) if not name.startswith("_")} < members
    assert members <= {*dir(testing.MemoryGateway())}


def test_the_products_of_the_lab_have_these_names():
    for name, names in PRODUCTS.items():
        module = import_module(f"dualstream_lab.{name}")
        assert module.__all__ == names
        assert {getattr(module, each).__module__ for each in names}
        assert set(names) <= set(dir(module))


SHOWN = [
    *ROOT.glob("notebooks/*.ipynb"), *ROOT.glob("examples/*.py"), ROOT / "README.md",
    *ROOT.glob("docs/how-to/*.md"), *ROOT.glob("docs/tutorial/*.md"),
]  # fmt: skip
LOCUSTS = "dualstream_lab.locust_bridge"  # is public, and patches a process that imports it


def public_names(home: str) -> set[str]:
    room = home.removeprefix("dualstream_lab").lstrip(".")
    assert room in {"", "errors", *PACKAGES, *PRODUCTS}, f"{home} is not public"
    below = {name.rpartition(".")[2] for name in PRODUCTS if name.rpartition(".")[0] == room}
    return {*import_module(home).__all__, *below, *(() if room else PACKAGES)}


@pytest.mark.parametrize("path", SHOWN, ids=lambda path: path.name)
def test_what_is_shown_to_users_is_imported_from_public_places(path):
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        text = "\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"])
    imports = re.findall(r"^\s*from (dualstream_lab[\w.]*) import (\([^)]*\)|[^#\n]*)", text, re.MULTILINE)
    for home, names in imports:
        if home != LOCUSTS:
            assert set(re.findall(r"\w+", names)) <= public_names(home), home


def test_tab_completes_them():
    assert {*PUBLIC.split(), *PACKAGES} <= set(dir(dualstream_lab))


def test_what_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'dualstream_lab' has no attribute 'Publisher'"):
        _ = dualstream_lab.Publisher


@pytest.mark.parametrize(
    ("statement", "extra"),
    [
        ("from dualstream_lab import Subscriber", "gateway"),
        ("from dualstream_lab import StreamGap", "gateway"),
        ("from dualstream_lab import analysis", "report"),
        ("from dualstream_lab import lab; lab.run", "lab"),
        ("from dualstream_lab.simulation import simulate", "simulation"),
        ("from dualstream_lab.testing import MemoryGateway", "gateway"),
        ("from dualstream_lab.testing import MemoryPublisher", ""),
        ("from dualstream_lab import faults; faults.FaultSpec", ""),
        ("from dualstream_lab import DualPublisher, OutcomeUnknown, Settings, __version__", ""),
    ],
)
def test_an_import_without_its_extra_names_it(statement, extra):
    code = f"import sys\nfor name in {blocked_without('')!r}: sys.modules[name] = None\n{statement}"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    last = done.stderr.strip().rpartition("\n")[2]
    if extra:
        assert last.startswith("ImportError: dualstream_lab."), done.stderr
        assert last.endswith(f": pip install 'dualstream-lab[{extra}]'")
    else:
        assert done.returncode == 0, done.stderr
