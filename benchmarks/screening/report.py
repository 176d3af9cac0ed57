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
        shard: its bookkeeping, which others' computation hides.
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
        """Costs by the smallest and the largest cohort of one kind; None if not all is there."""
        runs = sorted(results["memory"], key=lambda row: int(row["people"]))
        if len(runs) < 2 or "overheads" not in results:
            return None
        small, large = runs[0], runs[-1]
        merge = results["overheads"]["bookkeeping"]["merge_s"]
        size = results["shard_size"]
        slope = (large["wall_s"] - small["wall_s"]) / (large["people"] - small["people"])
        return cls(
            person=slope - merge / size,
            start=max(0.0, small["wall_s"] - slope * small["people"]),
            shard=results["overheads"]["bookkeeping"]["shard_s"],
            merge=merge,
            shard_size=size,
            person_bytes=small["input_bytes_per_s"] * small["wall_s"] / small["people"],
            disk=results["disk_bytes_per_s"],
        )

    def seconds(self, n_people: int, n_machines: int) -> float:
        """From the start to results."""
        parts = self._parts(n_people, n_machines)
        return parts.pop("start") + parts.pop("merge") + max(parts.values())

    def bound(self, n_people: int, n_machines: int) -> str:
        """The largest part of the time."""
        parts = self._parts(n_people, n_machines)
        return max(parts, key=lambda name: parts[name])

    def _parts(self, n_people: int, n_machines: int) -> dict[str, float]:
        """Seconds of each part; all but start and merge are at the same time."""
        n_shards = -(-n_people // self.shard_size)
        of_machine = -(-n_shards // n_machines)
        return {
            "cores": of_machine * self.shard_size * self.person,
            "disk": of_machine * self.shard_size * self.person_bytes / self.disk,
            "bookkeeping": of_machine * self.shard,
            "merge": n_shards * self.merge,
            "start": self.start,
        }


def as_markdown(results: dict[str, Any]) -> str:
    """All tables, with the titles that they have in docs/scaling.md."""
    tables = {
        "Beside its kernels and torch": _implementations(results),
        "Targets": _targets(results),
        "The command": _commands(results),
        "Overheads": _overheads(results),
        "Constants of the formula": _constants(results),
        "Time for large cohorts": _cohorts(results),
        "Where the time goes": _profile(results),
    }
    return "\n\n".join(f"## {title}\n\n{table}" for title, table in tables.items() if table)


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
    if len(runs := results["memory"]) > 1:
        peaks = [row["peak_bytes"] for row in runs]
        growth = max(peaks) / min(peaks) - 1
        people = " and ".join(f"{row['people']:,}" for row in runs)
        lines.append(
            (
                f"growth of the peak, {people} people",
                f"<= {WANTED_GROWTH:.0%}",
                f"{growth:.1%}",
                _yes(growth <= WANTED_GROWTH),
            )
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
        for row in (*results["commands"], *results["memory"])
    ]
    return as_table(
        ("sizes", "people", "outputs", "s", "people/s", "MB/s of input", "KB of results a person",
         "peak MiB"), lines
    )  # fmt: skip


def _overheads(results: dict[str, Any]) -> str:
    if "overheads" not in results:
        return ""
    found = results["overheads"]
    book, plan, index, tables = (found[x] for x in ("bookkeeping", "plan", "index", "tables"))
    lines = [
        ("bookkeeping of a shard, while others are computed", f"{1e3 * book['shard_s']:.1f} ms"),
        ("putting a shard into the results, at the end", f"{1e3 * book['merge_s']:.1f} ms"),
        (
            f"plan for {plan['people']:,} people, with the start of Python",
            f"{plan['wall_s']:.1f} s, {plan['peak_bytes'] / 2**20:.0f} MiB",
        ),
        (f"index of a folder of {index['files']:,} files", f"{index['scan_and_keep_s']:.1f} s"),
        ("the same from the index that was kept", f"{index['kept_s']:.1f} s"),
        (
            f"reading a person's `*_relmat.tsv` of {tables['regions']} regions, one core",
            f"{1e3 * tables['person_s']:.0f} ms",
        ),
        (
            f"reading the array from the disk ({results['filesystem']})",
            f"{results['disk_bytes_per_s'] / 1e6:.0f} MB/s",
        ),
    ]
    return as_table(("overhead", "measured"), lines)


def _constants(results: dict[str, Any]) -> str:
    costs = Costs.of(results)
    if costs is None:
        return ""
    lines = [
        ("start", f"{costs.start:.1f} s"),
        ("n", f"{costs.shard_size} people"),
        ("person", f"{1e3 * costs.person:.1f} ms"),
        ("bytes", f"{costs.person_bytes / 1e3:,.0f} KB"),
        ("disk", f"{costs.disk / 1e6:.0f} MB/s"),
        ("merge", f"{1e3 * costs.merge:.1f} ms"),
    ]
    return as_table(("constant", "measured"), lines)


def _cohorts(results: dict[str, Any]) -> str:
    costs = Costs.of(results)
    if costs is None:
        return ""
    lines = []
    for n_people in COHORTS:
        n_bytes = n_people * costs.person_bytes
        for n_machines in MACHINES:
            seconds = costs.seconds(n_people, n_machines)
            what = (_duration(seconds), costs.bound(n_people, n_machines))
            rates = (f"{n_bytes / seconds / 1e6:,.0f}", f"{n_bytes / 1e9:,.1f}")
            lines.append((f"{n_people:,}", f"{n_machines}", *what, *rates))
    header = ("people", "machines", "time", "bound", "MB/s of input in all", "GB of input")
    return as_table(header, lines)


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
