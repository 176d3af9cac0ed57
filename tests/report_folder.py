"""A folder as ``dtwin intervene`` writes it, of drawn numbers: for tests of reading and drawing.

The numbers say nothing of any model; they agree with each other where a report relies on it.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np

from dtwin_fast.prediction_files import NOTICE, write_json
from dtwin_fast.tables import write_tsv

DOSES = np.arange(-3, 3.5, 0.5)
NETWORKS = ("VisCent", "SomMotA", "DorsAttnA", "ContA", "DefaultB", "MTL", "Striatum")


def write_folder(
    folder: Path,
    *,
    n_people: int = 6,
    n_regions: int = 16,
    methods: tuple[str, ...] = ("connectome", "weights"),
    first_region: str = "LH_first",
    networks: tuple[str, ...] = NETWORKS,
    sources: tuple[str, ...] | None = None,
    seed: int = 0,
) -> Path:
    """Write the folder and return it."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    labels = [f"sub-{i + 1:03d}" for i in range(n_people)]
    ids = sources or tuple(f"person_{i + 1}" for i in range(n_people))
    names = [first_region, *(f"region_{i:03d}" for i in range(1, n_regions))]
    network = [networks[i * len(networks) // n_regions] for i in range(n_regions)]
    ends = np.array(np.triu_indices(n_regions, k=1))
    pre = rng.normal(0.5, 0.2, n_people)
    # Each network pair leans to one side, as gradients of real twins do.
    lean = rng.normal(size=(len(networks), len(networks)))
    index = np.array([networks.index(name) for name in network])
    drawn: dict[str, dict[str, np.ndarray]] = {}
    for m, method in enumerate(methods):
        per_sd = 0.4 * rng.uniform(0.2, 1.2, n_people) * (1 + 0.4 * m)
        gradient = (
            lean[index[ends[0]], index[ends[1]]] + rng.normal(size=(n_people, ends.shape[1]))
        ) / 100
        drawn[method] = {
            "effect": 2 * per_sd,
            "post": pre - 2 * per_sd * pre.std(ddof=1),
            "curve": pre[:, None] - np.outer(per_sd, DOSES) * pre.std(ddof=1),
            "gradient": gradient.astype(np.float32),
            "change": (-gradient / np.abs(gradient).max() * 0.05).astype(np.float32),
            "random": rng.normal(0, 0.05, 100),
        }
    altered = [method for method in methods if method != "weights"]

    write_tsv(
        folder / "effects.tsv",
        ["participant_id", "source_id", "method", "pre", "post", "effect", "predicted", "flags"],
        [
            [labels[i], ids[i], m, float(pre[i]), float(d["post"][i]), float(d["effect"][i]),
             float(1.1 * (d["post"] - pre)[i]), "beyond_range,few_edges" if i == 1 else "n/a"]
            for i in range(n_people)
            for m, d in drawn.items()
        ],
    )  # fmt: skip
    write_tsv(
        folder / "doses.tsv",
        ["participant_id", "method", "dose", "value"],
        [
            [labels[i], m, float(dose), float(d["curve"][i, k])]
            for m, d in drawn.items()
            for i in range(n_people)
            for k, dose in enumerate(DOSES)
        ],
    )
    outcomes = {"amygdala-right": "SD", "speed": "s", "accuracy": "share"}
    write_tsv(
        folder / "off_target.tsv",
        ["method", "outcome", "unit", "mean_change", "sd_change", "n"],
        [[m, o, u, rng.normal(0, 0.2), 0.1, n_people]
         for m in methods for o, u in list(outcomes.items())[1:]],
    )  # fmt: skip
    write_tsv(
        folder / "random.tsv",
        ["method", "direction", "mean_effect", "sd_effect"],
        [[m, k, float(v), 0.05] for m, d in drawn.items() for k, v in enumerate(d["random"])],
    )
    blocks = []
    for m, d in drawn.items():
        for a, b in itertools.combinations_with_replacement(range(len(networks)), 2):
            inside = (np.minimum(*index[ends]) == a) & (np.maximum(*index[ends]) == b)
            if inside.any():
                mean = [float(d[kind][:, inside].mean()) for kind in ("gradient", "change")]
                change = mean[1] if m in altered else float("nan")
                blocks.append([m, networks[a], networks[b], int(inside.sum()), mean[0], change])
    write_tsv(
        folder / "networks.tsv",
        ["method", "network_1", "network_2", "n_edges", "mean_gradient", "mean_change"],
        blocks,
    )
    edge_columns: dict[str, np.ndarray] = {}
    region_columns: dict[str, np.ndarray] = {}
    for m, d in drawn.items():
        for kind in ("gradient", "change") if m in altered else ("gradient",):
            mean = d[kind].mean(axis=0)
            edge_columns[f"{m}_{kind}"] = mean
            if kind == "gradient":
                edge_columns[f"{m}_gradient_sd"] = d[kind].std(axis=0, ddof=1)
            region_columns[f"{m}_{kind}"] = np.array(
                [mean[(ends == r).any(axis=0)].mean() for r in range(n_regions)]
            )
    write_tsv(
        folder / "edges.tsv",
        ["region_1", "region_2", *edge_columns],
        [
            [names[a], names[b], *(float(c[e]) for c in edge_columns.values())]
            for e, (a, b) in enumerate(ends.T)
        ],
    )
    write_tsv(
        folder / "regions.tsv",
        ["name", "network", *region_columns],
        [[names[r], network[r], *(float(c[r]) for c in region_columns.values())]
         for r in range(n_regions)],
    )  # fmt: skip
    write_tsv(
        folder / "range.tsv",
        ["participant_id", "when", "deviation", "beyond_share", "mahalanobis", "min_eigenvalue",
         "flags"],
        [[label, when, 1.2 + k, 0.01, 3.0, 1e-3, "n/a"]
         for label in labels for k, when in enumerate(("before", "after"))],
    )  # fmt: skip
    write_tsv(
        folder / "targets.tsv",
        ["participant_id", "outcome", "unit", "method", "pre", "post"],
        [[labels[i], o, u, m, float(pre[i]), float(d["post"][i])]
         for i in range(n_people) for o, u in outcomes.items() for m, d in drawn.items()],
    )  # fmt: skip
    write_tsv(
        folder / "rejected.tsv",
        ["source_id", "code", "reason", "fix"],
        [["somebody", "asymmetric", "the matrix is not symmetric", "Export it again"]],
    )
    (folder / "maps").mkdir()
    for m, d in drawn.items():
        np.save(folder / "maps" / f"{m}_gradient.npy", d["gradient"])
        if m in altered:
            np.save(folder / "maps" / f"{m}_change.npy", d["change"])
    is_edit = not set(methods) & {"connectome", "weights"}
    method = "site:LH_first:0.2" if is_edit else methods[0]
    about: dict[str, Any] = {
        "notice": NOTICE,
        "target": {"name": "amygdala-right", "unit": "SD", "goal": "down", "tasks": ["faces"]},
        "people": n_people,
        "rejected": 0,
        "flagged": 1,
        "methods": {m: _summary(m, d, pre) for m, d in drawn.items()},
        "flags": ["sub-002: the connectome is outside the training range"],
        "settings": {"method": method, "budget": 2.0, "steps": 50, "edges": None, "seed": seed},
        "provenance": {"dtwin_fast": "0.1.0", "backend": "cpu", "model_sha256": "0" * 64},
    }
    write_json(folder / "intervention.json", about)
    return folder


def _summary(method: str, d: dict[str, np.ndarray], pre: np.ndarray) -> dict[str, Any]:
    effect, random = d["effect"], d["random"]
    summary: dict[str, Any] = {
        "mean_effect": effect.mean(),
        "sd_effect": effect.std(ddof=1),
        "share_improved": (effect > 0).mean(),
        "share_above_0.8": (effect > 0.8).mean(),
        "mean_change_in_unit": (d["post"] - pre).mean(),
        "predicted_r": 0.97,
        "monotone_share": 1.0,
        "random": {
            "n": len(random),
            "people": len(effect),
            "mean_effect": random.mean(),
            "z": (effect.mean() - random.mean()) / random.std(ddof=1),
            "p": 1 / (1 + len(random)),
            "sd_of_intervention": effect.std(ddof=1),
            "sd_effect_mean": 0.05,
            "sd_z": 2.5,
            "sd_p": 0.02,
        },
        "regression_to_mean_r": float(np.corrcoef(effect, pre)[0, 1]),
        "stability": {
            "split_half_r": 0.8,
            "split_half_dice": 0.4,
            "seed_r": None,
            "seed_dice": None,
        },
        "range": {
            "flagged_before": 1,
            "flagged_after": 3,
            "median_deviation_before": 1.2,
            "median_deviation_after": 2.2,
        },
        "truth": None,
    }
    if method == "weights":
        del summary["range"]
        summary["pls"] = {
            "participation_ratio": 18.7,
            "null_r": 0.29,
            "in_sample_r": 0.6,
            "permutation_p": 0.001,
            "cv_r": 0.2,
        }
        summary["truth"] = {
            "trait": "amygdala", "cosine": 0.3, "cosine_low": 0.2, "cosine_high": 0.4, "auc": 0.7,
            "auc_low": 0.6, "auc_high": 0.8,
        }  # fmt: skip
    return {k: float(v) if isinstance(v, np.floating) else _plain(v) for k, v in summary.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: float(v) if isinstance(v, np.floating) else v for k, v in value.items()}
    return value
