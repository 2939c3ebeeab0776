"""What is public, and what an import without its extra says."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata

import pytest

import dualstream_lab
from dualstream_lab import errors, testing

from .test_extras import blocked_without

PUBLIC = """
BatchReceipt BufferFull ConfigError DualPublisher DualStreamError Event EventError FaultInert Notification
OutcomeUnknown PublishError PublishRejected Receipt RecordingError Settings StackError StoreConflict
StoreError StreamGap StreamUnavailable Subscriber __version__
"""
PACKAGES = {"analysis", "faults", "lab", "simulation", "testing"}


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
        ("from dualstream_lab import simulation", "simulation"),
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
