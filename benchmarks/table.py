"""Figures of interleaved rounds into ratios with their spread. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median

__all__ = ["RATIOS", "Figures", "markdown", "put"]

BEGIN, END = "<!-- bench:{}:begin -->", "<!-- bench:{}:end -->"

# (what, numerator, denominator, shapes, target)
RATIOS = (
    ("ours / naive Python", "ours", "naive Python", ("batches of 1000",), 6.0),
    ("ours / tuned Go", "ours", "Go, tuned", ("batches of 1000", "batches of 200"), 1.0),
    ("ours / tuned Go", "ours", "Go, tuned", ("singles, 100 callers",), 2.5),
    ("ours / ours without Redis", "ours", "ours without Redis", ("batches of 1000",), 0.7),
)


@dataclass
class Figures:
    """events/s by shape, peer and round; or why there is none."""

    rates: dict[tuple[str, str], dict[int, float]] = field(default_factory=dict)
    reasons: dict[tuple[str, str], str] = field(default_factory=dict)
    pings: dict[tuple[str, str], list[float]] = field(default_factory=dict)

    def add(self, shape: str, peer: str, turn: int, rate: float) -> None:
        self.rates.setdefault((shape, peer), {})[turn] = rate

    def ratio(self, shape: str, upper: str, lower: str) -> list[float]:
        """Of the rounds that have both, sorted."""
        above, below = self.rates.get((shape, upper), {}), self.rates.get((shape, lower), {})
        return sorted(above[turn] / below[turn] for turn in above.keys() & below.keys())


def markdown(figures: Figures, *, shapes: list[str], peers: list[str]) -> str:
    """The two tables."""
    lines = ["| ratio | shape | median | spread | rounds | target |", "|---|---|---|---|---|---|"]
    for name, upper, lower, among, target in RATIOS:
        for shape in among:
            if shape not in shapes:
                continue
            found = figures.ratio(shape, upper, lower)
            if found:
                cells = f"**{median(found):.2f}** | {found[0]:.2f} to {found[-1]:.2f} | {len(found)}"
            else:
                cells = "not run | | 0"
            lines.append(f"| {name} | {shape} | {cells} | ≥ {target:g} |")
    lines += ["", "| events/s, median | " + " | ".join(shapes) + " |", "|---" * (len(shapes) + 1) + "|"]
    for peer in peers:
        lines.append(f"| {peer} | " + " | ".join(_cell(figures, shape, peer) for shape in shapes) + " |")
    if figures.pings:
        lines += [
            "",
            "| Redis PING p99 meanwhile, ms | " + " | ".join(shapes) + " |",
            "|---" * (len(shapes) + 1) + "|",
        ]
        for peer in peers:
            cells = [figures.pings.get((shape, peer)) for shape in shapes]
            if any(cells):
                lines.append(
                    f"| {peer} | " + " | ".join(f"{median(c):.2f}" if c else "" for c in cells) + " |"
                )
    return "\n".join(lines)


def _cell(figures: Figures, shape: str, peer: str) -> str:
    rates = figures.rates.get((shape, peer))
    if rates:
        return f"{median(rates.values()):,.0f}"
    reason = figures.reasons.get((shape, peer))
    return f"not run ({reason})" if reason else ""


def put(text: str, kind: str, table: str) -> str:
    """The text, with what is between the markers of ``kind`` replaced. Raises ValueError without them."""
    begin, end = BEGIN.format(kind), END.format(kind)
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise ValueError(f"there is no {begin} … {end}")
    return f"{before}{begin}\n{table}\n{end}{after}"
