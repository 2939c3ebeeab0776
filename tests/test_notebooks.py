"""Every notebook runs from top to bottom by itself, on brokers that it starts, and asserts what it found."""

from __future__ import annotations

import ast
import asyncio
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

# Shorter than for a reader; a notebook without an entry runs as it is.
PARAMETERS = {
    "01_quickstart": "RATE, DURATION = 2_000, 4",
    "02_kafka_lag_vs_redis_latency": "RATES, DURATION, LIMIT = [1_000, 4_000], 3, 100",
    "03_redis_down": """
RATE, DURATION, DOWN, BACK = 2_000, 9, 2, 4
PAIRS_RATE, BLOCK, PAIRS_TIME, OTHERS = 1_000, 1, 30, 1024  # other tests use the machine, too
""",
    "04_kafka_faults": """
RATE, DURATION, DEADLINE = 500, 24, 3
MUTE_AT, MUTE_FOR, KILL_AT, KILL_FOR = 2, 5, 10, 4
""",
    "05_fan_out": """
CHANNELS, GATEWAYS, RATE, DURATION, REPEATS, WARM_UP = [1_000], 4, 1_000, 1, 1, 0.2
CLIENTS, TICKS, CLIENT_RATE, CLIENT_DURATION = [10], [0, 0.02], 200, 1
""",
    "06_compare_runs": "RATE, DURATION, REPEATS, AWAY = 1_000, 2, 3, 40",  # told apart also on a busy machine
    "07_capacity_and_outages": """
SWEEP, CHECKS = [(1_000, 1), (4_000, 20)], [(2_000, 4)]
SECONDS, REPEATS, OUTAGE_RATE, AWAY = 3, 1, 1_000, 2
RATES, SUBSCRIBERS, SOURCES, BATCH, LIVE_P99 = [5_000, 10_000], 100_000, 50_000, 50, 0.5
HUGE, HUGE_SECONDS, HUGE_AWAY = 30_000, 60, 15  # runs of 3 s may tell costs that take many brokers
""",
}
EPILOGUE = "import sys; assert 'gevent' not in sys.modules and 'locust' not in sys.modules"


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_thin(path: Path) -> None:
    cells = read(path).cells
    code = [cell for cell in cells if cell.cell_type == "code"]
    assert sum("parameters" in cell.metadata.get("tags", []) for cell in code) == 1
    assert not any(cell.outputs or cell.execution_count for cell in code), "committed without outputs"
    assert any("assert " in cell.source for cell in code)
    for cell in code:
        tree = compile(cell.source, path.name, "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
        assert not any(isinstance(node, kinds) for node in ast.walk(tree))


@pytest.mark.timeout(400)  # kernels are compiled on the way, and another file is tested beside
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run(path: Path, tmp_path: Path) -> None:
    notebook = read(path)
    for cell in notebook.cells:
        if "parameters" in cell.metadata.get("tags", []):
            cell.source = PARAMETERS.get(path.stem, cell.source)
    notebook.cells.append(nbformat.v4.new_code_cell(EPILOGUE))
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    pictures = [
        output
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if "image/png" in output.get("data", {})
    ]
    assert pictures
    assert list(tmp_path.glob("runs/*/manifest.json")), "the run that it looked at is recorded"


def test_there_are_notebooks() -> None:
    assert [path.stem for path in NOTEBOOKS] == list(PARAMETERS)


async def test_the_stop_button_keeps_what_was_recorded(tmp_path: Path) -> None:
    """A real kernel, interrupted as JupyterLab does it."""
    cells = [
        "from dualstream_lab import lab",
        "run = await lab.run(rate=1_000, duration=100, warm_up=0)",
        "print(run.state, int(run.measures['publish.durable']) > 500)",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    client = NotebookClient(notebook, timeout=100, resources={"metadata": {"path": str(tmp_path)}})

    async def press_stop() -> None:
        while len(list(tmp_path.glob("runs/*/published-*.parquet"))) < 2:  # noqa: ASYNC110, ASYNC240
            await asyncio.sleep(0.1)
        assert client.km is not None
        await client.km.interrupt_kernel()

    pressing = asyncio.create_task(press_stop())
    await client.async_execute()
    await pressing
    (text,) = [output["text"] for output in notebook.cells[2].outputs]
    assert text == "interrupted True\n"
