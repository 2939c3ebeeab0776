"""Where a stack keeps its data."""

from __future__ import annotations

import pytest

from dualstream_lab.stack import directory
from dualstream_lab.stack.directory import temporary_directory


def test_in_memory_only_where_there_is_room(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(directory, "MEMORY", tmp_path)
    monkeypatch.setattr(directory, "_ROOM", 0)
    assert temporary_directory(in_memory=True).parent == tmp_path
    monkeypatch.setattr(directory, "_ROOM", 2**62)
    elsewhere = temporary_directory(in_memory=True)
    assert elsewhere.parent != tmp_path
    elsewhere.rmdir()


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_system_without_such_a_place_uses_its_temporary_directory(tmp_path, monkeypatch, in_memory) -> None:
    monkeypatch.setattr(directory, "MEMORY", tmp_path / "none")
    made = temporary_directory(in_memory=in_memory)
    assert made.is_dir()
    made.rmdir()
