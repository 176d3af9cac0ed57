"""Results as text: one line a row while it runs, Markdown for README."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from . import ours
from .targets import OPPONENTS, TARGETS, limit_shares, ratio

Row = dict[str, Any]

HEADER = (
    f"{'case':<20} {'op':<8} {'impl':<19} {'S':>4} {'median s':>9} {'peer/this':>9} "
    f"{'GFLOP/s':>8} {'sgemm':>6} {'w_hh':>6} {'copy':>6} {'peak MiB':>9} {'rel err':>8}"
)


def as_line(row: Row) -> str:
    """One row of the table under HEADER; a dash is what was not measured or does not apply."""
    peak = row.get("peak_bytes")
    return (
        f"{row['case']:<20} {row['op']:<8} {row['impl']:<19} {row['S']:>4} "
        f"{row['median_s']:9.4f} {as_number(row['ratio_to_best_peer'], '9.2f')} "
        f"{row['gflops']:8.1f} {_percent(row['percent_sgemm'])} "
        f"{_percent(row['percent_w_hh_reads'])} {_percent(row['percent_copy'])} "
        f"{as_number(peak and peak / 2**20, '9.0f')} "
        f"{row['rel_err']:8.1e}" + (f"  {row['note']}" if "note" in row else "")
    )


def as_markdown(results: dict[str, Any]) -> str:
    """Tables of one results file: targets, ratios, and all rows."""
    rows = results["rows"]
    machine = results["machine"]
    packages = ", ".join(f"{name} {v}" for name, v in machine["packages"].items() if v)
    caches = ", ".join(f"{name} {size}" for name, size in machine["caches"].items())
    parts = [
        f"{machine['processor']}, {machine['threads']} threads, engine {machine['engine_isa']}; "
        f"{caches}; {packages}; {machine['time']}. Medians; ratios are times per subject, "
        "peer over ours.",
        _ratios(rows),
        _targets(rows),
        _stream(rows),
        _all(rows),
    ]
    notes = [
        f"- {row['case']} {row['op']} {row['impl']}: {row['note']}" for row in rows if "note" in row
    ]
    notes += [
        f"- {row['case']} {row['op']} {row['impl']}: {row['reason']}" for row in results["left_out"]
    ]
    return "\n\n".join(part for part in (*parts, "\n".join(notes)) if part)


def _ratios(rows: list[Row]) -> str:
    names = [name for name in OPPONENTS if name != "float32"]  # which is no peer
    lines = []
    for row in rows:
        if not row["impl"].startswith(ours.PREFIX) or row["op"] == "stream":
            continue
        found = [ratio(rows, row["case"], row["op"], row["impl"], name) for name in names]
        cells = (row["case"], row["op"], row["impl"], *(as_number(r, ".1f") for r in found))
        lines.append((*cells, as_number(row["median_s"], ".4f")))
    return as_table(("case", "op", "impl", *(f"x {name}" for name in names), "median s"), lines)


def _targets(rows: list[Row]) -> str:
    lines = []
    for target in TARGETS:
        what = f"{target.impl} over {target.opponent}"
        verdict = _verdict(target.measured(rows), target.ratio, ".2f")
        lines.append((target.case, target.op, what, *verdict))
    for case, field, got, wanted in limit_shares(rows):
        what = {
            "percent_sgemm": "% of sgemm peak",
            "percent_w_hh_reads": "% of the rate of reading w_hh",
        }[field]
        lines.append((case, "fwd", what, *_verdict(got, wanted, ".1f")))
    return as_table(("case", "op", "figure", "target", "measured", "reached"), lines)


def _stream(rows: list[Row]) -> str:
    lines = [
        (
            row["case"],
            f"{row['S']}",
            f"{row['subjects_per_s']:.0f}",
            row["filesystem"],
            f"{row['edge_bytes_per_s'] / 1e6:.0f}",
            *(f"{row[f'percent_{part}']:.0f}" for part in ("read", "personalize", "rollout")),
            f"{row['percent_of_disk_limit']:.0f}",
            f"{row['percent_of_sgemm_limit']:.0f}",
        )
        for row in rows
        if row["op"] == "stream"
    ]
    header = ("case", "subjects", "subjects/s", "file on", "MB/s of edges", "% reading",
              "% personalizing", "% rolling out", "% of disk limit",
              "% of sgemm limit in personalizing")  # fmt: skip
    return as_table(header, lines)


def _all(rows: list[Row]) -> str:
    header = ("case", "op", "impl", "S", "median s", "quartiles s", "GFLOP/s", "% sgemm", "% w_hh",
              "% copy", "peak MiB", "rel err")  # fmt: skip
    lines = []
    for row in rows:
        peak = row.get("peak_bytes")
        lines.append(
            (
                row["case"],
                row["op"],
                row["impl"],
                f"{row['S']}",
                f"{row['median_s']:.4f}",
                f"{row['q1_s']:.4f} to {row['q3_s']:.4f}",
                f"{row['gflops']:.1f}",
                *(as_number(row[f"percent_{of}"], ".0f") for of in ("sgemm", "w_hh_reads", "copy")),
                as_number(peak and peak / 2**20, ".0f"),
                f"{row['rel_err']:.1e}",
            )
        )
    return as_table(header, lines)


def as_table(header: Iterable[str], lines: Sequence[tuple[str, ...]]) -> str:
    """A Markdown table, or nothing where there are no lines."""
    if not lines:
        return ""
    titles = tuple(header)
    rule = tuple("---" for _ in titles)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (titles, rule, *lines))


def as_number(value: float | None, form: str) -> str:
    """The number in a format such as 9.2f; a dash as wide where there is none."""
    width = form.split(".")[0]
    return format("-", f">{width}") if value is None else format(value, form)


def _percent(value: float | None) -> str:
    return format("-", ">6") if value is None else f"{value:5.0f}%"


def _verdict(got: float | None, wanted: float, form: str) -> tuple[str, str, str]:
    """What was wanted, what was measured, and whether that is enough."""
    if got is None:
        return f">= {wanted:g}", "not measured", "-"
    return f">= {wanted:g}", format(got, form), "yes" if got >= wanted else "no"
