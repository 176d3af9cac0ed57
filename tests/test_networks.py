"""Networks of regions by their names."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from dtwin_fast.networks import GROUPS, NETWORKS, OTHER, belongs, network_of
from dtwin_fast.simulate import simulate


@pytest.mark.parametrize(
    ("region", "network"),
    [
        ("LH_VisCent_1", "VisCent"),
        ("17networks_RH_SalVentAttnB_Ins_2", "SalVentAttnB"),
        ("17Networks_LH_ContC_pCun_1", "ContC"),
        ("7Networks_LH_Cont_Par_1", "Cont"),
        ("7Networks_RH_SalVentAttn_Med_3", "SalVentAttn"),
        ("lAMY-rh", "MTL"),
        ("aHIP-lh", "MTL"),
        ("NAc-shell-lh", "Striatum"),
        ("THA-DP-rh", "Thalamus"),
        ("cerebellum_left", "Cerebellum"),
        ("parcel 7", OTHER),
        ("", OTHER),
    ],
)
def test_a_name_tells_the_network(region: str, network: str) -> None:
    assert network_of([region]) == (network,)


def test_made_names_tell_their_own_network() -> None:
    simulated = simulate(2, 83, with_bold=False)
    regions = simulated.cohort.connectomes.regions
    assert regions is not None
    atlas = simulated.truth.population.atlas
    assert network_of(regions) == tuple(list(NETWORKS)[k] for k in atlas.network)


def test_groups_take_in_their_networks() -> None:
    for group in GROUPS:
        assert sum(belongs(name, group) for name in NETWORKS) >= 2
        assert belongs(group, group)
        assert not belongs(group, f"{group}A")
    assert not belongs("DefaultA", "Def")
    assert not belongs("DefaultA", "")
    assert not belongs("ContA", "DefaultA")


@pytest.mark.realdata
def test_the_atlas_of_a_real_cohort(shared_data: Path) -> None:
    with (shared_data / "tcp-atlas434" / "regions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    also = {"medial_temporal_lobe": "MTL", "cerebellum_left": "Cerebellum"}
    also |= {"cerebellum_right": "Cerebellum", "striatum": "Striatum", "thalamus": "Thalamus"}
    told = network_of([row["label"] for row in rows])
    assert told == tuple(also.get(row["network"], row["network"]) for row in rows)
    assert {name: told.count(name) for name in NETWORKS} == NETWORKS
