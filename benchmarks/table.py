"""Figures of interleaved rounds into ratios with their spread. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median

__all__ = ["RATIOS", "Figures", "Sample", "markdown", "put"]

BEGIN, END = "<!-- bench:{}:begin -->", "<!-- bench:{}:end -->"

# numerator, denominator, targets by shape
RATIOS = (
    (
        "ours", "Go, tuned",
        {
            "batches of 1000": 1.25, "batches of 200": 1.25, "singles, 20 callers": 3.0,
            "singles, 100 callers": 2.0, "singles, 400 callers": 1.1, "8 kB, batches of 1000": 1.0,
        },
    ),
    ("ours", "naive Python", {"batches of 1000": 7.0}),
    ("ours", "bound", {"batches of 1000": 0.8}),
    ("ours", "ours without Redis", {"batches of 1000": 0.75}),
    ("ours without Redis", "kafka-producer-perf-test", {"batches of 1000": 0.9}),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One run of a peer: events/s; microseconds of CPU an event, by process; p99 of a PING meanwhile, ms."""

    rate: float
    cpu: Mapping[str, float] = field(default_factory=dict)
    ping: float | None = None

    @property
    def cpu_text(self) -> str:
        return " + ".join(f"{name} {spent:.1f}" for name, spent in self.cpu.items()) + " µs CPU an event"


@dataclass
class Figures:
    """Samples by shape, peer and round; or why there are none."""

    samples: dict[tuple[str, str], dict[int, Sample]] = field(default_factory=dict)
    reasons: dict[tuple[str, str], str] = field(default_factory=dict)

    def add(self, shape: str, peer: str, turn: int, sample: Sample) -> None:
        self.samples.setdefault((shape, peer), {})[turn] = sample

    def ratio(self, shape: str, upper: str, lower: str) -> list[float]:
        """Of the rounds that have both, sorted."""
        above, below = self.samples.get((shape, upper), {}), self.samples.get((shape, lower), {})
        return sorted(above[turn].rate / below[turn].rate for turn in above.keys() & below.keys())

    def of(self, shape: str, peer: str) -> list[Sample]:
        return list(self.samples.get((shape, peer), {}).values())


def markdown(figures: Figures, *, shapes: list[str], peers: list[str]) -> str:
    """The ratios, and a table each of rate, CPU and PING."""
    lines = ["| ratio | shape | median | spread | rounds | target |", "|---|---|---|---|---|---|"]
    for upper, lower, targets in RATIOS:
        for shape in (each for each in targets if each in shapes):
            found = figures.ratio(shape, upper, lower)
            if found:
                cells = f"**{median(found):.2f}** | {found[0]:.2f} to {found[-1]:.2f} | {len(found)}"
            else:
                cells = "not run | | 0"
            lines.append(f"| {upper} / {lower} | {shape} | {cells} | ≥ {targets[shape]:g} |")
    for title, cell in (
        ("events/s, median", _rate),
        ("CPU an event, µs: client + Kafka + Redis", _cpu),
        ("Redis PING p99 meanwhile, ms", _ping),
    ):
        rows = {peer: [cell(figures, shape, peer) for shape in shapes] for peer in peers}
        if any(any(cells) for cells in rows.values()):
            lines += ["", f"| {title} | {' | '.join(shapes)} |", "|---" * (len(shapes) + 1) + "|"]
            lines += [f"| {peer} | {' | '.join(cells)} |" for peer, cells in rows.items() if any(cells)]
    return "\n".join(lines)


def _rate(figures: Figures, shape: str, peer: str) -> str:
    if samples := figures.of(shape, peer):
        return f"{median(each.rate for each in samples):,.0f}"
    reason = figures.reasons.get((shape, peer))
    return f"not run ({reason})" if reason else ""


def _cpu(figures: Figures, shape: str, peer: str) -> str:
    found = [each.cpu for each in figures.of(shape, peer) if each.cpu]
    return " + ".join(f"{median(cpu[name] for cpu in found):.1f}" for name in found[0]) if found else ""


def _ping(figures: Figures, shape: str, peer: str) -> str:
    found = [each.ping for each in figures.of(shape, peer) if each.ping is not None]
    return f"{median(found):.2f}" if found else ""


def put(text: str, kind: str, table: str) -> str:
    """The text, with what is between the markers of ``kind`` replaced. Raises ValueError without them."""
    begin, end = BEGIN.format(kind), END.format(kind)
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise ValueError(f"there is no {begin} … {end}")
    return f"{before}{begin}\n{table}\n{end}{after}"
