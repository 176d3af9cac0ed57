"""Where the results lie that a report is of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..evaluate.report_files import SCORES_FILE
from ..interventions.files import INTERVENTION_FILE
from .reading import report_error

REPORT_FOLDER = "report"


@dataclass(frozen=True)
class Folders:
    """Folders of results; one of them at least is there.

    Attributes:
        intervention: what ``dtwin intervene`` wrote, or None.
        scores: what ``dtwin evaluate`` wrote, or None.
    """

    intervention: Path | None
    scores: Path | None


def find_folders(out: Path) -> Folders:
    """The results in a folder, itself or its direct subfolders.

    Raises:
        DTwinInputError: neither of them, or more than one of a kind (code ``report``).
    """
    found = Folders(_with_file(out, INTERVENTION_FILE), _with_file(out, SCORES_FILE))
    if found.intervention is None and found.scores is None:
        raise report_error(
            str(out),
            "there are no results to report",
            f"a folder with {INTERVENTION_FILE} or {SCORES_FILE}, itself or in a subfolder",
            "no such folder" if not out.is_dir() else "neither",
            "Run dtwin intervene or dtwin evaluate with --out first",
        )
    return found


def _with_file(out: Path, name: str) -> Path | None:
    if (out / name).is_file():
        return out
    if not out.is_dir():
        return None
    folders = [path for path in sorted(out.iterdir()) if (path / name).is_file()]
    if len(folders) > 1:
        raise report_error(
            str(out),
            "more than one folder has such results",
            f"one {name}",
            ", ".join(path.name for path in folders),
            "Name one of these folders",
        )
    return folders[0] if folders else None
