"""Text tables: connectomes, time series, and the names that options take from tables."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from .cases import Case, Options, of_file
from .makers import npy_of, relmat, timeseries
from .people import NAMES, edges, matrices

RELMAT = relmat()
SERIES = timeseries()
TWO = "a\tb\n"
SQUARE = "Node\ta\tb\na\t1\t.5\nb\t.5\t1\n"


def sparse(n_bytes: int) -> Any:
    """A writer of a file of this many NULs, which takes no disk."""

    def write(path: Path) -> None:
        with path.open("wb") as file:
            file.truncate(n_bytes)

    return write


def named_by(field: str, content: bytes | str, name: str = "names.csv") -> Case | Any:
    """Options that take names from a table of this content."""

    def options(folder: Path) -> Options:
        path = folder / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return {"regions": NAMES, field: path}

    return options


def names_from(path: str) -> Any:
    """Options that take regions from a path in the folder that is no table."""

    def options(folder: Path) -> Options:
        (folder / "folder").mkdir()
        os.mkfifo(folder / "pipe")
        return {"regions": folder / path}

    return options


COHORT = npy_of(edges())
REGION_LINES = "".join(f"{name}\n" for name in NAMES)

TABLES: dict[str, Case] = {
    "empty": of_file("file_empty", "a_relmat.tsv", b""),
    "blank": of_file("table_empty", "a_relmat.tsv", "\n \n"),
    "BOM only": of_file("table_empty", "a_relmat.tsv", "\ufeff\n"),
    "header only": of_file("table_empty", "a_relmat.tsv", "Node\ta\tb\n"),
    "ragged": of_file("table_ragged", "a_relmat.tsv", "Node\ta\tb\na\t1\nb\t.5\t1\n"),
    "ragged at the end": of_file("table_ragged", "a_relmat.tsv", RELMAT + "region_16\t1\n"),
    "one cell too many": of_file("table_ragged", "a.tsv", SQUARE.replace("1\n", "1\t\n", 1)),
    "too few rows": of_file("not_square", "a_relmat.tsv", RELMAT[: RELMAT.rindex("region_15")]),
    "a row twice": of_file("not_square", "a.tsv", SQUARE + "b\t.5\t1\n"),
    "time series named relmat": of_file("not_square", "a_relmat.tsv", SERIES),
    "decimal commas": of_file("table_number", "a.tsv", RELMAT.replace("0.500", "0,500")),
    "decimal commas in csv": of_file(
        "table_number", "a.csv", relmat(mark=";").replace("0.500", "0,500")
    ),
    "decimal commas in csv with commas": of_file(
        "table_ragged", "a.csv", relmat(mark=",").replace("0.500", "0,500")
    ),
    "semicolons in a tsv": of_file("table_separator", "a.tsv", relmat(mark=";")),
    "commas in a tsv": of_file("table_separator", "a.tsv", relmat(mark=",")),
    "blanks in a tsv": of_file("not_square", "a.tsv", SQUARE.replace("\t", " ")),
    "two separators": of_file("table_separator", "a.csv", SQUARE.replace("\ta", ",a")),
    "words": of_file("table_number", "a.tsv", RELMAT.replace("0.500", "high")),
    "hexadecimal": of_file("table_number", "a.tsv", RELMAT.replace("0.500", "0x1p-1")),
    "underscored digits": of_file("table_number", "a.tsv", RELMAT.replace("0.500", "0_0")),
    "digits of another script": of_file("table_number", "a.tsv", RELMAT.replace("0.500", "\u0660")),
    "NUL for a number": of_file("table_number", "a.tsv", RELMAT.replace("0.500", "\0")),
    "a formula": of_file("table_number", "a.tsv", RELMAT.replace("0.500", "=1/2")),
    "other row names": of_file("table_names", "a.tsv", SQUARE.replace("\nb", "\nc")),
    "rows swapped": of_file("table_names", "a.tsv", "Node\ta\tb\nb\t.5\t1\na\t1\t.5\n"),
    "row names in another case": of_file("table_names", "a.tsv", SQUARE.replace("\nb", "\nB")),
    "column name twice": of_file("region_duplicate", "a.tsv", SQUARE.replace("b", "a")),
    "empty column name": of_file("region_name", "a.tsv", "Node\ta\t\na\t1\t.5\n\t.5\t1\n"),
    "correlations as header": of_file("region_name", "a.tsv", "\t.5\t.4\n.5\t1\t.3\n.4\t.3\t1\n"),
    "NUL in a name": of_file("region_name", "a.tsv", SQUARE.replace("a", "a\0")),
    "no names": of_file("regions_unnamed", "a.tsv", "1\t.5\n.5\t1\n"),
    "no names, as predicted": of_file("regions_unnamed", "a_relmat.tsv", "1\t.5\n.5\t1\n"),
    "names that are not there": of_file("regions_missing", "a.tsv", SQUARE, {"regions": NAMES}),
    "hemispheres in other words": of_file(
        "regions_missing",
        "a.tsv",
        SQUARE.replace("a", "LH_a").replace("b", "RH_a"),
        {"regions": ["lh_a", "rh_a"]},
    ),
    "one name": of_file("region_count", "a.tsv", "Node\ta\na\t1\n"),
    "Latin-1": of_file("table_encoding", "a.tsv", SQUARE.replace("a", "\xe4").encode("latin-1")),
    "UTF-16": of_file("table_encoding", "a.tsv", SQUARE.encode("utf-16")),
    "UTF-32": of_file("table_encoding", "a.tsv", SQUARE.encode("utf-32")),
    "half a character": of_file("table_encoding", "a.tsv", SQUARE.encode() + b"\xc3\n"),
    "a gzip named tsv": of_file("table_encoding", "a.tsv", b"\x1f\x8b\x08\0\0\0\0\0"),
    "open quote": of_file("unreadable", "a.tsv", SQUARE.replace("\tb", '\t"b', 1)),
    "text behind a quote": of_file("unreadable", "a.tsv", SQUARE.replace("\tb", '\t"b"c', 1)),
    "old Mac lines": of_file("unreadable", "a.tsv", SQUARE.replace("\n", "\r")),
    "long cell": of_file("table_cell", "a.tsv", SQUARE.replace(".5", "." + "5" * 2000)),
    "10^6 columns": of_file("table_columns", "a.tsv", "\t".join("x" * 10**6) + "\n"),
    "10^6 quoted columns": of_file("table_columns", "a.csv", '"",' * 10**6 + "\n"),
    "a line of 5 MB": of_file("table_line", "a.tsv", "x" * (5 * 2**20)),
    "a line of 200 MB": of_file("table_line", "a.tsv", sparse(200 * 2**20)),
    "a line of 1 GB": of_file("file_too_large", "a.tsv", sparse(2**30)),
    "a quoted cell of 50 MB": of_file("table_line", "a.tsv", 'a\t"' + "x" * (50 * 2**20)),
    "a quoted cell of 9,000 lines": of_file(
        "unreadable", "a.tsv", 'a\t"' + "twenty characters...\n" * 9_000
    ),
    "a quoted cell of 10^6 lines": of_file("table_rows", "a.tsv", 'a\t"' + "xy\n" * 10**6),
    "asymmetric": of_file("asymmetric", "a.tsv", RELMAT.replace("0.500", "0.600", 1)),
    "infinite cell": of_file("infinite", "a.tsv", RELMAT.replace("0.500", "inf")),
    "1e999": of_file("infinite", "a.tsv", RELMAT.replace("0.500", "1e999")),
    "empty cells": of_file("nan", "a.tsv", RELMAT.replace("0.500", "")),
    "diagonal of zeros and a half": of_file("diagonal", "a.tsv", RELMAT.replace("1.000", "0.5", 1)),
    "percent": of_file("r_out_of_range", "a.tsv", RELMAT.replace("0.500", "50")),
    "Fisher z": of_file("fisher_z_as_r", "a.tsv", RELMAT.replace("0.500", "1.5")),
    "r announced as z": of_file("r_as_fisher_z", "a.tsv", RELMAT, {"is_fisher_z": True}),
    "two subjects for one": of_file("subject_count", "a.tsv", RELMAT, {"subjects": ["a", "b"]}),
    "10^6 rows": of_file("table_rows", "a.tsv", "a\tb\n" + "1\t0\n" * 10**6),
    # time series
    "one volume": of_file("too_short", "a_timeseries.tsv", TWO + "1\t2\n"),
    "nine volumes": of_file("too_short", "a_timeseries.tsv", TWO + "1\t2\n3\t1\n4\t4\n" * 3),
    "no volumes": of_file("table_empty", "a_timeseries.tsv", TWO),
    "one region's series": of_file("region_count", "a_timeseries.tsv", "a\n" + "1\n2\n" * 9),
    "a gap": of_file("nan", "a_timeseries.tsv", TWO + "n/a\t2\n" + "1\t2\n2\t1\n" * 9, exit=4),
    "infinite volume": of_file(
        "infinite", "a_timeseries.tsv", TWO + "-inf\t2\n" + "1\t2\n2\t1\n" * 9, exit=4
    ),
    "constant series": of_file(
        "all_missing", "a_timeseries.tsv", "\t".join(NAMES) + "\n" + ("1\t" * 15 + "2\n") * 20
    ),
    "one constant region": of_file(
        "missing_regions",
        "a_timeseries.tsv",
        "\t".join(NAMES)
        + "\n"
        + "".join(f"7\t{line.split(chr(9), 1)[1]}\n" for line in SERIES.splitlines()[1:]),
    ),
    "unnamed series": of_file("regions_unnamed", "a_timeseries.tsv", "1\t2\n2\t1\n" * 9),
    "named volumes": of_file(
        "table_number", "a_timeseries.tsv", "name\ta\tb\n" + "v\t1\t2\nw\t2\t1\n" * 9
    ),
    "10^6 volumes": of_file("table_rows", "a_timeseries.tsv", "a\n" + "1\n" * 10**6),
    # names
    "regions without a name column": of_file(
        "names_column", "a.npy", COHORT, named_by("regions", "row,x\n1,2\n")
    ),
    "subjects without a column": of_file(
        "names_column", "a.npy", COHORT, named_by("subjects", "row,age\n1,2\n")
    ),
    "regions with a short row": of_file(
        "table_ragged", "a.npy", COHORT, named_by("regions", "row,name\n1\n")
    ),
    "regions in an empty file": of_file("file_empty", "a.npy", COHORT, named_by("regions", "")),
    "regions of another atlas": of_file(
        "region_count", "a.npy", COHORT, named_by("regions", "name\nx\ny\n")
    ),
    "regions in UTF-16": of_file(
        "table_encoding", "a.npy", COHORT, named_by("regions", REGION_LINES.encode("utf-16"))
    ),
    "a region twice": of_file(
        "region_duplicate", "a.npy", COHORT, named_by("regions", REGION_LINES * 2)
    ),
    "10^6 regions": of_file(
        "table_rows",
        "a.npy",
        COHORT,
        named_by("regions", "name\n" + "".join(f"r{i}\n" for i in range(10**6))),
    ),
    "subjects of another study": of_file(
        "subject_count", "a.npy", COHORT, named_by("subjects", "subject\nx\ny\n")
    ),
    "subjects that are paths": of_file(
        "subject_id", "a.npy", COHORT, named_by("subjects", "subject\n../a\nb\nc\nd\n")
    ),
    "subjects that are formulas": of_file(
        "subject_id", "a.npy", COHORT, named_by("subjects", "subject\n=1+1\nb\nc\nd\n")
    ),
    "a subject twice": of_file(
        "subject_duplicate", "a.npy", COHORT, named_by("subjects", "subject\na\na\nc\nd\n")
    ),
    "regions that are absent": of_file("file_missing", "a.npy", COHORT, names_from("absent.csv")),
    "regions from a folder": of_file("file_kind", "a.npy", COHORT, names_from("folder")),
    "regions from a pipe": of_file("file_kind", "a.npy", COHORT, names_from("pipe")),
    "regions from a device": of_file("file_kind", "a.npy", COHORT, names_from("/dev/zero")),
    "a column that is absent": of_file(
        "names_column",
        "a.npy",
        COHORT,
        lambda folder: {
            "regions": f"{named_by('regions', REGION_LINES)(folder)['regions']}:colour"
        },
    ),
    "no path for regions": of_file(
        "argument", "a.npy", npy_of(matrices()), {"regions": ""}, in_command=False
    ),
}
