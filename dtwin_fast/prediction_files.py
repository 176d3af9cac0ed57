"""A prediction on disk: a BIDS-style derivative folder of TSV and JSON files."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import DTwinInputError
from .files import write_atomic
from .prediction import Prediction
from .tables import Cell, write_tsv
from .tasks import TASKS

DESCRIPTION_FILE = "dataset_description.json"
NOTICE = "In silico, not clinical: simulations of a model, no basis for any treatment."


def write_prediction(
    prediction: Prediction, folder: Path, *, progress: Callable[[int, int], None] | None = None
) -> None:
    """Write a prediction.

    ::

        dataset_description.json   provenance: model sha256, versions, backend, input digest
        participants.tsv           per subject: its id in the input (source_id), flags,
                                   condition means of choice and RT
        contrasts.tsv              per subject and contrast: the effect in each BOLD region
        rejected.tsv               subjects left out: source_id, code, reason, the way out
        sub-X/func/sub-X_task-T_desc-dtwin_beh.tsv          trials
        sub-X/func/sub-X_task-T_desc-dtwin_timeseries.tsv   BOLD at TR, when predicted

    A number that does not exist is ``n/a``, such as the probability of no response under
    the head ``sigmoid``.

    Raises:
        DTwinInputError: two subject ids give the same BIDS label (code ``subject_label``).
    """
    labels = bids_labels(prediction.subjects)
    (folder / DESCRIPTION_FILE).unlink(missing_ok=True)
    write_tsv(
        folder / "rejected.tsv",
        ["source_id", "code", "reason", "fix"],
        ([e.subject or "n/a", e.code, e.what, e.fix] for e in prediction.rejected),
    )
    write_tsv(folder / "participants.tsv", *_participants(prediction, labels))
    write_tsv(folder / "contrasts.tsv", *_contrasts(prediction, labels))
    for i, label in enumerate(labels):
        for task in prediction.schedules:
            stem = folder / label / "func" / f"{label}_task-{task}_desc-dtwin"
            write_tsv(stem.with_name(f"{stem.name}_beh.tsv"), *_trials(prediction, task, i))
            if prediction.bold is not None:
                write_tsv(
                    stem.with_name(f"{stem.name}_timeseries.tsv"),
                    prediction.bold_regions,
                    prediction.bold[i, prediction.volume_slice(task)].tolist(),
                )
        if progress is not None:
            progress(i + 1, len(labels))
    # Written last (and an older one removed first): a folder with this file is complete.
    write_json(folder / DESCRIPTION_FILE, _description(prediction))


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write a JSON file with a final newline; NaN is refused."""
    write_atomic(path, json.dumps(values, indent=1, allow_nan=False) + "\n")


def bids_labels(subjects: tuple[str, ...]) -> list[str]:
    """``sub-<letters and digits>`` for each subject id; ``sub-01`` and ``01`` give ``sub-01``."""
    labels = ["sub-" + re.sub("[^0-9A-Za-z]", "", s.removeprefix("sub-")) for s in subjects]
    seen: dict[str, str] = {}
    for subject, label in zip(subjects, labels, strict=True):
        if label == "sub-" or label in seen:
            raise DTwinInputError(
                "subject_label",
                "this subject id gives no file name of its own",
                field="subjects",
                subject=subject,
                wanted="ids that differ in letters and digits",
                got=f"{label}, as for {seen.get(label, 'nobody')}",
                fix="Rename the subject",
            )
        seen[label] = subject
    return labels


def condition_means(p: Prediction) -> dict[str, npt.NDArray[Any]]:
    """(S,) means over the trials of each condition, by column of ``participants.tsv``.

    A person's means are the same to the bit in any company.
    """
    columns: dict[str, npt.NDArray[Any]] = {}
    for task, schedule in p.schedules.items():
        trials = p.trial_slice(task)
        prob, rt_s = p.choice_prob[:, trials], p.rt_s[:, trials]
        correct = np.take_along_axis(prob, schedule.correct[None, :, None], axis=2)[..., 0]
        silent = p.no_response_prob[:, trials]
        for condition in dict.fromkeys(schedule.condition):
            of = np.array([c == condition for c in schedule.condition])
            columns[f"{task}_{condition}_p_correct"] = _mean(correct[:, of])
            columns[f"{task}_{condition}_p_no_response"] = _mean(silent[:, of])
            columns[f"{task}_{condition}_rt_s"] = _mean(rt_s[:, of])
    return columns


def _mean(trials: npt.NDArray[Any]) -> npt.NDArray[Any]:
    # numpy adds the trials of one person in another order than those of many in Fortran order.
    mean: npt.NDArray[Any] = np.ascontiguousarray(trials).mean(axis=1)
    return mean


def _participants(p: Prediction, labels: list[str]) -> tuple[list[str], Iterator[list[Cell]]]:
    columns = condition_means(p)

    def row(i: int) -> list[Cell]:
        flags = (*p.flags[i], *(["diverged"] if p.diverged[i] else []))
        means = [float(column[i]) for column in columns.values()]
        return [labels[i], p.subjects[i], ",".join(flags) or "n/a", *means]

    return ["participant_id", "source_id", "flags", *columns], map(row, range(len(labels)))


def _contrasts(p: Prediction, labels: list[str]) -> tuple[list[str], Iterator[list[Cell]]]:
    rows = (
        [label, name, *p.contrasts[i, k].tolist()]
        for i, label in enumerate(labels)
        for k, name in enumerate(p.contrast_names)
    )
    return ["participant_id", "contrast", *p.bold_regions], rows


def _trials(p: Prediction, task: str, i: int) -> tuple[list[str], Iterator[list[Cell]]]:
    schedule, trials = p.schedules[task], p.trial_slice(task)
    names = TASKS[task].action_names
    prob = p.choice_prob[i, trials].tolist()
    choice, silent, rt_s = p.choice[i, trials], p.no_response_prob[i, trials], p.rt_s[i, trials]
    rows = (
        [
            float(schedule.onset_s[n]),
            float(schedule.duration_s[n]),
            schedule.condition[n],
            names[schedule.correct[n]],
            names[choice[n]] if choice[n] >= 0 else "n/a",
            float(rt_s[n]),
            *prob[n],
            float(silent[n]),
        ]
        for n in range(schedule.n_trials)
    )
    header = ["onset", "duration", "trial_type", "correct", "choice", "response_time"]
    return [*header, *(f"p_{name}" for name in names), "p_no_response"], rows


def _description(p: Prediction) -> dict[str, Any]:
    return {
        "Name": "dtwin_fast predictions",
        "BIDSVersion": "1.10.0",
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "dtwin_fast", "Version": p.provenance["dtwin_fast"]}],
        "Notice": NOTICE,
        "Provenance": p.provenance,
        "RepetitionTime": p.tr_s,
        "Subjects": len(p.subjects),
        "Rejected": len(p.rejected),
        "Diverged": int(p.diverged.sum()),
    }
