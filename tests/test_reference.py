"""The reference pages that are made from the code are what the code says now."""

from __future__ import annotations

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
_spec = spec_from_file_location("reference", ROOT / "scripts/reference.py")
assert _spec is not None
assert _spec.loader is not None
reference = module_from_spec(_spec)
_spec.loader.exec_module(reference)


@pytest.mark.parametrize("name", reference.PAGES)
def test_a_page_is_not_stale(name):
    page = (ROOT / "docs/reference" / name).read_text(encoding="utf-8")
    assert page == reference.PAGES[name](), "run: python scripts/reference.py"
