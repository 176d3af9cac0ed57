"""The scores of ``dtwin evaluate``. A new one is a line in ``METRICS``."""

from __future__ import annotations

from . import bold, choice, identification, reaction_time
from .metric import Metric
from .statistics import correlation_over_people, mean_over_people

_ALL = (
    Metric(
        "concordance",
        "choice",
        "share of trials",
        True,
        choice.matching_choices,
        mean_over_people,
        paper={"faces": 0.94, "stroop": 0.90},
    ),
    Metric("error AUC", "choice", "area", True, choice.error_area, mean_over_people),
    Metric(
        "error balanced accuracy",
        "choice",
        "share",
        True,
        choice.error_balanced_accuracy,
        mean_over_people,
    ),
    Metric("NLL", "choice", "bits/trial", False, choice.surprise_bits, mean_over_people),
    Metric("NLL skill", "choice", "share", True, choice.surprise_and_reference, choice.skill),
    Metric("Brier", "choice", "0-2", False, choice.brier, mean_over_people),
    Metric("error-rate r", "choice", "r", True, choice.error_rates, correlation_over_people),
    Metric(
        "RT person-mean r",
        "rt",
        "r",
        True,
        reaction_time.person_means,
        correlation_over_people,
        paper={"faces": 0.90, "stroop": 0.85},
    ),
    Metric(
        "RT person-mean R2",
        "rt",
        "share",
        True,
        reaction_time.person_deviations,
        reaction_time.explained_share,
    ),
    Metric("RT person-mean MAE", "rt", "s", False, reaction_time.absolute_errors, mean_over_people),
    Metric("RT trial r", "rt", "r", True, reaction_time.trial_moments, reaction_time.pooled_r),
    Metric(
        "RT within-person r",
        "rt",
        "r",
        True,
        reaction_time.within_person_z,
        reaction_time.r_of_mean_z,
    ),
    Metric(
        "RT condition-effect r",
        "rt",
        "r",
        True,
        reaction_time.condition_effects,
        correlation_over_people,
    ),
    Metric(
        "RT log-likelihood",
        "rt",
        "nats/trial",
        True,
        reaction_time.log_likelihood,
        mean_over_people,
    ),
    Metric(
        "RT quantile miscalibration",
        "rt",
        "share",
        False,
        reaction_time.quantile_shares,
        reaction_time.miscalibration,
    ),
    # The paper's .84 is over both tasks together.
    Metric(
        "BOLD group-pattern r",
        "bold",
        "r",
        True,
        bold.maps,
        bold.group_pattern_r,
        paper={"faces": 0.84, "stroop": 0.84},
    ),
    Metric("BOLD group-mean r", "bold", "r", True, bold.maps, bold.group_mean_r),
    Metric("BOLD individual r", "bold", "r", True, bold.map_r, mean_over_people),
    Metric("BOLD individual r gain", "bold", "r", True, bold.map_r_gain, mean_over_people),
    Metric("BOLD mean-removed r", "bold", "r", True, bold.own_map_r, mean_over_people),
    Metric("BOLD region r", "bold", "median r", True, bold.maps, bold.median_region_r),
    Metric("BOLD identification top-1", "bold", "share", True, bold.own_maps, identification.top_1),
    Metric(
        "BOLD identification rank",
        "bold",
        "share",
        True,
        bold.own_maps,
        identification.normalised_rank,
    ),
    Metric(
        "BOLD identification diagonality",
        "bold",
        "share",
        True,
        bold.own_maps,
        identification.diagonality,
    ),
    Metric("BOLD identification AUC", "bold", "area", True, bold.own_maps, identification.own_area),
    Metric(
        "BOLD time-course R2", "bold", "share", True, bold.course_squares, bold.explained_squares
    ),
    Metric(
        "BOLD time-course R2 gain",
        "bold",
        "share",
        True,
        bold.course_gain_squares,
        bold.explained_more,
    ),
)

METRICS: dict[str, Metric] = {metric.name: metric for metric in _ALL}
