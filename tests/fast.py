"""`pytest --fast`: what tells within a minute whether a change broke something, and what it left out."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest

from dualstream_lab.stack.process import ManagedProcess

_TESTS = Path(__file__).parent
_FIXTURES = {"stack": "a broker", "cluster": "a broker", "browser": "a browser"}
_NO_PARAMETERS = SimpleNamespace(params={})
_DRAWS = "more draws than a minute has time for"
_STARTS = {
    "analysis/test_comparison.py::test_95_percent": _DRAWS,
    "analysis/test_comparison.py::test_repeats": _DRAWS,
    "analysis/test_paired.py::test_looking": _DRAWS,
    "analysis/test_paired.py::test_under_the_null": _DRAWS,
    "analysis/test_plot_images.py": "pictures",
    "cli/test_cli.py": "a broker",
    "faults/test_journal.py": "a broker",
    "gateway/test_bad_input.py": "a broker",
    "gateway/test_handover.py::test_nor_have_schedules": _DRAWS,
    "gateway/test_handover.py::test_two_thousand_schedules": _DRAWS,
    "kafka_log/test_diagnosis.py": "a broker",
    "lab/test_check_gateway.py::test_the_command_checks_a_stack_of_its_own": "a broker",
    "lab/test_demo.py": "a broker",
    "lab/test_report.py": "pictures",
    "lab/test_run.py::test_a_notebook_stopped_while_its_brokers_start": "a broker",
    "lab/test_run.py::test_ctrl_c_while_the_brokers_start": "a broker",
    "locust_bridge/test_bridge.py": "processes of their own",
    "publisher/test_rights.py": "a broker",
    "simulation": "the simulation, which is compiled for half a minute",
    "stack/test_destination.py::test_without_options_a_stack_of_its_own": "a broker",
    "stack/test_stack.py::test_a_full_disk_is_named": "a broker",
    "stack/test_stack.py::test_a_redis_that_cannot_start": "a broker",
    "stack/test_tls.py": "a broker",
    "store/test_model.py": _DRAWS,
    "test_children.py": "processes of their own",
    "test_extras.py": "processes of their own",
    "test_notebooks.py": "a notebook",
    "test_packaging.py": "an installation",
}


class Fast:
    """A pytest plugin. What a worker of pytest-xdist left out is told by the one that it works for."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._left_out: Counter[str] = Counter()
        if missing := [name for name in _STARTS if not (_TESTS / name.partition("::")[0]).exists()]:
            raise pytest.UsageError(f"tests/fast.py: there is no {', '.join(missing)}")

    def pytest_configure(self) -> None:
        ManagedProcess.launch = _refuse  # type: ignore[method-assign]

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        reasons = {item: _reason(item) for item in items}
        self._left_out.update(reason for reason in reasons.values() if reason)
        self._config.hook.pytest_deselected(items=[item for item, reason in reasons.items() if reason])
        items[:] = [item for item, reason in reasons.items() if not reason]

    def pytest_sessionfinish(self) -> None:
        if hasattr(self._config, "workeroutput"):
            self._config.workeroutput["left out"] = dict(self._left_out)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: object) -> None:
        """Each worker collects all tests."""
        self._left_out = Counter(getattr(node, "workeroutput", {}).get("left out", self._left_out))

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        total = sum(self._left_out.values())
        terminalreporter.section(f"--fast left out {total:,} tests")
        for reason, count in self._left_out.most_common():
            terminalreporter.write_line(f"{count:6,} that need {reason}")


def _reason(item: pytest.Item) -> str:
    """Why it is left out; empty if it is not."""
    for fixture in getattr(item, "fixturenames", ()):
        if fixture in _FIXTURES:
            return _FIXTURES[fixture]
    if "kafka" in getattr(item, "callspec", _NO_PARAMETERS).params.values() and "conformance" in item.nodeid:
        return "a broker"  # the other half of what holds for the real one and for the one in memory
    file, _, name = item.nodeid.partition("::")
    place = f"{item.path.relative_to(_TESTS)}::{name}" if item.path.is_relative_to(_TESTS) else file
    return next((reason for start, reason in _STARTS.items() if place.startswith(start)), "")


def _refuse(process: ManagedProcess) -> None:
    raise AssertionError(f"--fast starts no {process.name}: name this test in tests/fast.py")
