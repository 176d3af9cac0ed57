"""Results as Markdown: the tables of docs/scaling.md."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..report import as_number, as_table

Row = dict[str, Any]

WANTED = {"torch over dtwin": 4.0, "kernels over dtwin": 0.7}
WANTED_GROWTH = 0.1
"""Of the peak, between the smallest and the largest cohort."""
COHORTS = (10_000, 100_000, 1_000_000)
MACHINES = (1, 10, 100)


@dataclass(frozen=True)
class Costs:
    """What the formula of docs/scaling.md is made of, in seconds unless it says otherwise.

    Attributes:
        person: the cores of one machine for one person.
        start: of a process, once.
        shard: its bookkeeping.
        merge: of a shard, on one machine, when all are done.
        shard_size: people.
        person_bytes: of input.
        disk: bytes/s of one machine's disk.
    """

    person: float
    start: float
    shard: float
    merge: float
    shard_size: int
    person_bytes: float
    disk: float

    @classmethod
    def of(cls, results: dict[str, Any]) -> Costs | None:
        """Costs by the smallest and the largest cohort of one kind; None where there are no two."""
        runs = memory_runs(results)
        if len(runs) < 2:
            return None
        small, large = runs[0], runs[-1]
        merge = results["bookkeeping"]["merge_s"]
        size = results["shard_size"]
        slope = (large["wall_s"] - small["wall_s"]) / (large["people"] - small["people"])
        return cls(
            person=slope - merge / size,
            start=max(0.0, small["wall_s"] - slope * small["people"]),
            shard=results["bookkeeping"]["shard_s"],
            merge=merge,
            shard_size=size,
            person_bytes=small["input_bytes_per_s"] * small["wall_s"] / small["people"],
            disk=results["disk_bytes_per_s"],
        )

    def shards(self, n_people: int) -> int:
        """Of so many people."""
        return -(-n_people // self.shard_size)

    def seconds(self, n_people: int, n_machines: int) -> float:
        """From the start to results."""
        shards = -(-self.shards(n_people) // n_machines)
        work = shards * self.shard_size * max(self.person, self.person_bytes / self.disk)
        return self.start + work + self.shards(n_people) * self.merge

    def bound(self, n_people: int, n_machines: int) -> str:
        """The largest part of the time."""
        shards = -(-self.shards(n_people) // n_machines)
        parts = {
            "cores": shards * self.shard_size * self.person,
            "disk": shards * self.shard_size * self.person_bytes / self.disk,
            "merge": self.shards(n_people) * self.merge,
            "start": self.start,
        }
        return max(parts, key=lambda name: parts[name])


def memory_runs(results: dict[str, Any]) -> list[Row]:
    """Runs of contrasts alone at the preset's sizes, the smallest cohort first."""
    rows = [
        row
        for row in results["commands"]
        if row["preset"] == results["preset"] and row["outputs"] == ["contrasts"]
    ]
    return sorted(rows, key=lambda row: int(row["people"]))


def as_markdown(results: dict[str, Any]) -> str:
    """All tables."""
    tables = (
        _implementations(results),
        _targets(results),
        _commands(results),
        _overheads(results),
        _costs(results),
        _profile(results),
    )
    return "\n\n".join(table for table in tables if table)


def _implementations(results: dict[str, Any]) -> str:
    lines = [
        (
            row["impl"],
            f"{row['people']}",
            f"{row['batch']}" if "batch" in row else "",
            row.get("reason") or as_number(row.get("median_s"), ".2f"),
            f"{row['q1_s']:.2f} to {row['q3_s']:.2f}" if "q1_s" in row else "",
            as_number(row.get("people_per_s"), ".1f"),
            as_number(row.get("over_ours"), ".2f"),
            f"{row['rel_err']:.1e}",
        )
        for row in results["rows"]
    ]
    return as_table(
        ("implementation", "people", "batch", "median s", "quartiles s", "people/s",
         "x dtwin's time", "rel err"), lines
    )  # fmt: skip


def _targets(results: dict[str, Any]) -> str:
    lines = []
    rows = {row["impl"]: row for row in results["rows"]}
    for what, wanted in WANTED.items():
        got = rows[what.partition(" ")[0]].get("over_ours")
        if got is not None:
            lines.append((what, f">= {wanted:g}", f"{got:.2f}", _yes(got >= wanted)))
    runs = memory_runs(results)
    if len(runs) > 1:
        peaks = [row["peak_bytes"] for row in runs]
        growth = max(peaks) / min(peaks) - 1
        what = f"peak memory, {runs[0]['people']:,} to {runs[-1]['people']:,} people"
        lines.append(
            (what, f"+- {WANTED_GROWTH:.0%}", f"{growth:.1%}", _yes(growth <= WANTED_GROWTH))
        )
    return as_table(("figure", "target", "measured", "reached"), lines)


def _commands(results: dict[str, Any]) -> str:
    lines = [
        (
            row["preset"],
            f"{row['people']:,}",
            ", ".join(row["outputs"]),
            row.get("reason") or f"{row['wall_s']:.1f}",
            f"{row['people_per_s']:.1f}",
            f"{row['input_bytes_per_s'] / 1e6:.1f}",
            f"{row['result_bytes'] / row['people'] / 1e3:.2f}",
            f"{row['peak_bytes'] / 2**20:.0f}",
        )
        for row in results["commands"]
    ]
    return as_table(
        ("sizes", "people", "outputs", "s", "people/s", "MB/s of input", "KB of results a person",
         "peak MiB"), lines
    )  # fmt: skip


def _overheads(results: dict[str, Any]) -> str:
    if "index" not in results:
        return ""
    book, index = results["bookkeeping"], results["index"]
    lines = [
        ("a shard's bookkeeping", f"{1e3 * book['shard_s']:.1f} ms"),
        ("putting a shard into the results", f"{1e3 * book['merge_s']:.1f} ms"),
        (f"index of {index['files']:,} files", f"{index['first_s']:.1f} s"),
        ("the same index from its cache", f"{index['again_s']:.1f} s"),
        (
            f"reading the array from the disk ({results['filesystem']})",
            f"{results['disk_bytes_per_s'] / 1e6:.0f} MB/s",
        ),
    ]
    return as_table(("overhead", "measured"), lines)


def _costs(results: dict[str, Any]) -> str:
    costs = Costs.of(results) if "bookkeeping" in results else None
    if costs is None:
        return ""
    lines = []
    for n_people in COHORTS:
        for n_machines in MACHINES:
            seconds = costs.seconds(n_people, n_machines)
            rate = n_people * costs.person_bytes / seconds
            lines.append(
                (
                    f"{n_people:,}",
                    f"{n_machines}",
                    _duration(seconds),
                    costs.bound(n_people, n_machines),
                    f"{rate / 1e6:,.0f}",
                    f"{n_people * costs.person_bytes / 1e9:,.1f}",
                )
            )
    constants = [
        ("person", f"{1e3 * costs.person:.1f} ms"),
        ("start", f"{costs.start:.1f} s"),
        ("merge", f"{1e3 * costs.merge:.1f} ms"),
        ("n", f"{costs.shard_size}"),
        ("bytes", f"{costs.person_bytes:,.0f}"),
        ("disk", f"{costs.disk / 1e6:.0f} MB/s"),
    ]
    header = ("people", "machines", "time", "bound", "MB/s of all disks", "GB of input")
    return "\n\n".join((as_table(("constant", "measured"), constants), as_table(header, lines)))


def _profile(results: dict[str, Any]) -> str:
    if "profile" not in results:
        return ""
    lines = list(_parts(results["profile"]))
    return as_table(("thread", "part", "s", "% of the whole", "CPU s of this thread"), lines)


def _parts(found: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    for row in found["parts"]:
        share = 100 * row["wall_s"] / found["wall_s"]
        cpu_s = as_number(row["cpu_s"], ".2f")
        yield row["thread"], row["part"], f"{row['wall_s']:.2f}", f"{share:.1f}", cpu_s
    busy = f"{100 * found['busy']:.0f} % of the cores' time"
    yield "", "all", f"{found['wall_s']:.2f}", "100", busy


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def _yes(is_reached: bool) -> str:
    return "yes" if is_reached else "no"
