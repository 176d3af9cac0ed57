"""Results of a run on a GPU as Markdown. Imports no torch."""

from __future__ import annotations

from typing import Any

from ..report import as_number, as_table
from .cases import is_ours

Row = dict[str, Any]


def as_markdown(results: dict[str, Any]) -> str:
    """Tables of one results file: targets, all rows, and what was left out."""
    machine, ceilings = results["machine"], results["ceilings"]
    packages = ", ".join(f"{name} {v}" for name, v in machine["packages"].items() if v)
    head = (
        f"{results['device']}, {machine['multiprocessors']} multiprocessors at most "
        f"{as_number(machine['sm_clock_max_mhz'], '.0f')} MHz; driver {machine['driver'] or '-'}, "
        f"CUDA {machine['cuda']}; {packages}; {machine['time']}. Measured in the same run: copy "
        f"{ceilings['copy_bytes_s'] / 1e12:.2f} TB/s, float32 products "
        f"{ceilings['sgemm_flops'] / 1e12:.1f} TFLOP/s. Medians; JAX by the host's clock, the "
        "others by events."
    )
    notes = [
        f"- {row['case']} {row['op']} {row['impl']}: {row['reason']}" for row in results["left_out"]
    ]
    parts = (head, _targets(results["targets"]), _rows(results["rows"]), "\n".join(notes))
    return "\n\n".join(part for part in parts if part)


def _targets(targets: list[Row]) -> str:
    lines = [
        (
            *(row["case"], row["op"], row["what"], row["wanted"]),
            as_number(row["measured"], ".3g"),
            row["verdict"],
        )
        for row in targets
    ]
    return as_table(("case", "op", "figure", "target", "measured", "verdict"), lines)


def _rows(rows: list[Row]) -> str:
    header = ("case", "op", "impl", "median ms", "quartiles ms", "x best peer", "GFLOP/s",
              "% sgemm", "% copy", "% floor", "rel err", "rel norm err", "same bits")  # fmt: skip
    lines = [
        (
            *(
                row["case"],
                row["op"],
                f"**{row['impl']}**" if is_ours(row["impl"]) else row["impl"],
            ),
            f"{1e3 * row['median_s']:.3f}",
            f"{1e3 * row['q1_s']:.3f} to {1e3 * row['q3_s']:.3f}",
            as_number(row["ratio_to_best_peer"], ".2f"),
            f"{row['gflops']:.0f}",
            *(as_number(row[f"percent_{of}"], ".1f") for of in ("sgemm", "copy", "of_floor")),
            *(f"{row[name]:.1e}" for name in ("rel_err", "rel_norm_err")),
            "yes" if row["bit_equal"] else "no",
        )
        for row in rows
    ]
    return as_table(header, lines)
