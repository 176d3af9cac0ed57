"""Twin: weights and predictions, policies for bad input, bits that stay, provenance."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dtwin_fast import twin as twin_module
from dtwin_fast.connectome import Connectomes, matrices
from dtwin_fast.dispatch import isa, rollout
from dtwin_fast.errors import BackendUnavailableError, DTwinInputError, MissingExtraError
from dtwin_fast.hypernetwork import Layer
from dtwin_fast.prediction import Prediction
from dtwin_fast.readouts import hazard
from dtwin_fast.tasks import TASKS
from dtwin_fast.twin import Twin
from dtwin_fast.twin_files import load
from dtwin_fast.weights import WEIGHT_NAMES, RNNWeights

ARRAYS = ("choice_prob", "rt_s", "bold", "contrasts", "diverged")
Z_ROUNDING = 1e-5  # arctanh in float32 here, in float64 there
# float32 sums over 500 volumes against float64, for effects of order 0.1
GLM_ROUNDING = 1e-5


def _r(n_subjects: int, seed: int = 0, n_regions: int = 16) -> np.ndarray:
    n_edges = n_regions * (n_regions - 1) // 2
    edges = np.random.default_rng(seed).uniform(-0.5, 0.9, (n_subjects, n_edges))
    return edges.astype(np.float32)


def _without(edges: np.ndarray, subject: int, *regions: int) -> np.ndarray:
    full = matrices(edges.copy())
    for region in regions:
        full[subject, region] = full[subject, :, region] = np.nan
    return full


def _named(twin: Twin, edges: np.ndarray) -> Connectomes:
    return Connectomes.from_arrays(edges, regions=twin.regions)


def _bits(p: Prediction, rows: Any = slice(None)) -> list[bytes]:
    return [np.ascontiguousarray(getattr(p, name)[rows]).tobytes() for name in ARRAYS]


def _weight_bits(w: RNNWeights, rows: Any = slice(None)) -> list[bytes]:
    return [getattr(w, name)[rows].tobytes() for name in WEIGHT_NAMES]


def _code(act: Callable[[], object]) -> str:
    with pytest.raises(DTwinInputError) as caught:
        act()
    return caught.value.code


def _limit_chunks(monkeypatch: pytest.MonkeyPatch, n_bytes: int = 1) -> None:
    monkeypatch.setattr(twin_module, "CHUNK_BYTES", n_bytes)


@pytest.fixture(scope="module")
def prediction(tiny_twin: Twin) -> Prediction:
    return tiny_twin.predict(_r(5))


@pytest.fixture(scope="module")
def raw_twin(tiny_twin: Twin) -> Twin:
    """A twin that takes Fisher z as it is, as the paper's."""
    return replace(tiny_twin, spec=replace(tiny_twin.spec, standardize=False, head="sigmoid"))


def _explosive(twin: Twin) -> Twin:
    """The twin with finite numbers that overflow for people with a large first edge."""
    first, *rest = twin.layers
    weight = first.weight.copy()
    weight[0, 0] = 3e38
    return replace(twin, layers=(Layer(weight, first.bias), *rest))


class TestPersonalize:
    def test_weights_are_the_hypernetworks(self, tiny_twin: Twin, tolerances: ModuleType) -> None:
        r = _r(3).astype(np.float64)
        h = (np.arctanh(r) - tiny_twin.edge_mean) / tiny_twin.edge_sd
        *hidden, last = tiny_twin.layers
        for layer in hidden:
            u = h @ layer.weight.T.astype(np.float64) + layer.bias
            h = u * np.tanh(np.log1p(np.exp(u)))
        wanted = h @ last.weight.T.astype(np.float64) + last.bias
        got = tiny_twin.personalize(_r(3)).to_flat()
        assert got.dtype == np.float32
        tolerances.assert_close(got, wanted, "generated", "float32")

    def test_the_papers_twin_takes_fisher_z_as_it_is(
        self, raw_twin: Twin, tolerances: ModuleType
    ) -> None:
        h = np.arctanh(_r(3).astype(np.float64))
        *hidden, last = raw_twin.layers
        for layer in hidden:
            u = h @ layer.weight.T.astype(np.float64) + layer.bias
            h = u * np.tanh(np.log1p(np.exp(u)))
        wanted = h @ last.weight.T.astype(np.float64) + last.bias
        got = raw_twin.personalize(_r(3)).to_flat()
        tolerances.assert_close(got, wanted, "generated", "float32")

    def test_edges_matrices_and_connectomes_are_one(self, tiny_twin: Twin) -> None:
        edges = _r(4)
        wanted = _weight_bits(tiny_twin.personalize(edges))
        assert _weight_bits(tiny_twin.personalize(matrices(edges))) == wanted
        assert _weight_bits(tiny_twin.personalize(_named(tiny_twin, edges))) == wanted
        assert _weight_bits(tiny_twin.personalize(edges.tolist())) == wanted
        assert _weight_bits(tiny_twin.personalize(matrices(edges[:1])[0])) == _weight_bits(
            tiny_twin.personalize(edges[:1])
        )

    def test_fisher_z_is_r(self, tiny_twin: Twin) -> None:
        z = Connectomes.from_arrays(np.arctanh(_r(4)), regions=tiny_twin.regions, is_fisher_z=True)
        got, wanted = tiny_twin.personalize(z), tiny_twin.personalize(_r(4))
        np.testing.assert_allclose(got.w_hh, wanted.w_hh, rtol=0, atol=Z_ROUNDING)

    @settings(max_examples=50, deadline=None)
    @given(order=st.permutations(range(16)))
    def test_order_of_the_regions_does_not_matter(self, tiny_twin: Twin, order: list[int]) -> None:
        full = matrices(_r(2))
        shuffled = Connectomes.from_arrays(
            full[:, order][:, :, order], regions=[tiny_twin.regions[i] for i in order]
        )
        wanted = _weight_bits(tiny_twin.personalize(full))
        assert _weight_bits(tiny_twin.personalize(shuffled)) == wanted

    def test_regions_that_the_twin_does_not_know_are_left_out(self, tiny_twin: Twin) -> None:
        more = Connectomes.from_arrays(
            _r(2, n_regions=18), regions=("other", *tiny_twin.regions, "another")
        )
        wanted = matrices(more.edges)[:, 1:17, 1:17]
        got = tiny_twin.predict(more)
        assert _bits(got) == _bits(tiny_twin.predict(wanted))
        assert got.flags == (("extra_regions_dropped:2",),) * 2

    @pytest.mark.parametrize(
        ("fc", "code"),
        [
            (_r(2, n_regions=15), "region_count"),
            (_r(2, n_regions=18), "region_count"),
            (matrices(_r(2, n_regions=15)), "region_count"),
            (np.zeros((2, 121)), "edge_count"),
            (np.full((2, 136), 0.5), "triangle_with_diagonal"),
            (np.empty((0, 120)), "no_subjects"),
            (np.zeros((2, 16, 15)), "shape"),
            (2.5 * _r(1), "fisher_z_as_r"),
            (np.full((1, 120), np.inf), "infinite"),
            (np.full((1, 120), np.nan), "all_missing"),
            ("file.npy", "dtype"),
            (None, "dtype"),
            ([[0.1], [0.2, 0.3]], "dtype"),
            (Connectomes.from_arrays(_r(2)), "regions_unnamed"),
            (
                Connectomes.from_arrays(_r(2), regions=[f"other_{i}" for i in range(16)]),
                "regions_missing",
            ),
        ],
        ids=[
            "15 regions",
            "18 regions",
            "15 x 15",
            "no E",
            "with diagonal",
            "nobody",
            "not square",
            "Fisher z",
            "infinite",
            "NaN",
            "path",
            "None",
            "ragged",
            "no names",
            "other names",
        ],
    )
    def test_input_that_does_not_fit(self, tiny_twin: Twin, fc: Any, code: str) -> None:
        assert _code(lambda: tiny_twin.personalize(fc)) == code
        assert _code(lambda: tiny_twin.predict(fc)) == code


class TestPolicies:
    def test_reject_raises(self, tiny_twin: Twin) -> None:
        fc = _without(_r(3), 1, 4)
        with pytest.raises(DTwinInputError) as caught:
            tiny_twin.predict(fc)
        assert (caught.value.code, caught.value.subject) == ("missing_regions", "sub-0002")

    def test_reject_and_drop(self, tiny_twin: Twin) -> None:
        p = tiny_twin.predict(_without(_r(3), 1, 4), bad_subjects="drop")
        assert p.subjects == ("sub-0001", "sub-0003")
        assert [(e.subject, e.code) for e in p.rejected] == [("sub-0002", "missing_regions")]
        assert p.flags == ((), ())
        assert _bits(p) == _bits(tiny_twin.predict(_r(3)), [0, 2])

    def test_drop_other_faults_too(self, tiny_twin: Twin) -> None:
        fc = _without(_r(4), 1, 4)
        fc[2, 0, 1] = 0.99  # no longer symmetric
        p = tiny_twin.predict(fc, bad_subjects="drop")
        assert p.subjects == ("sub-0001", "sub-0004")
        assert {e.subject: e.code for e in p.rejected} == {
            "sub-0002": "missing_regions",
            "sub-0003": "asymmetric",
        }
        assert _bits(p) == _bits(tiny_twin.predict(_r(4)), [0, 3])

    @pytest.mark.parametrize("policy", ["mask", "impute"])
    def test_kept_subjects_are_flagged_and_alone(self, tiny_twin: Twin, policy: Any) -> None:
        p = tiny_twin.predict(_without(_r(3), 1, 4, 7), missing=policy)
        word = {"mask": "masked", "impute": "imputed"}[policy]
        assert p.flags == ((), ("missing_regions:2", f"{word}_regions:2"), ())
        assert p.rejected == ()
        assert p.provenance["missing_policy"] == policy
        assert _bits(p, [0, 2]) == _bits(tiny_twin.predict(_r(3)), [0, 2])
        assert np.isfinite(p.choice_prob).all()
        assert not p.diverged.any()

    @pytest.mark.parametrize("which", ["tiny_twin", "raw_twin"])
    def test_impute_is_the_training_mean(self, which: str, request: pytest.FixtureRequest) -> None:
        twin: Twin = request.getfixturevalue(which)
        fc = _without(_r(2), 0, 4)
        filled = np.where(np.isnan(fc), matrices(np.tanh(twin.edge_mean)[None]), fc)
        got = twin.personalize(fc, missing="impute")
        wanted = twin.personalize(filled)
        np.testing.assert_allclose(got.w_hh, wanted.w_hh, rtol=0, atol=Z_ROUNDING)
        assert not np.array_equal(got.w_hh[0], twin.personalize(_r(2)).w_hh[0])

    @pytest.mark.parametrize("which", ["tiny_twin", "raw_twin"])
    def test_mask_is_dropout(
        self, which: str, request: pytest.FixtureRequest, tolerances: ModuleType
    ) -> None:
        twin: Twin = request.getfixturevalue(which)
        fc = _without(_r(1), 0, 4)
        x = np.arctanh(_r(1).astype(np.float64))
        if twin.spec.standardize:
            x = (x - twin.edge_mean) / twin.edge_sd
        kept = ~np.isnan(fc[0][np.triu_indices(16, 1)])
        h = np.where(kept, x * 120 / 105, 0)
        *hidden, last = twin.layers
        for layer in hidden:
            u = h @ layer.weight.T.astype(np.float64) + layer.bias
            h = u * np.tanh(np.log1p(np.exp(u)))
        wanted = h @ last.weight.T.astype(np.float64) + last.bias
        got = twin.personalize(fc, missing="mask").to_flat()
        tolerances.assert_close(got, wanted, "generated", "float32")

    def test_unknown_policies(self, tiny_twin: Twin) -> None:
        bad: Any = "guess"
        assert _code(lambda: tiny_twin.predict(_r(1), missing=bad)) == "argument"
        assert _code(lambda: tiny_twin.predict(_r(1), bad_subjects=bad)) == "argument"
        named = _named(tiny_twin, _r(1))
        assert _code(lambda: tiny_twin.predict(named, missing=bad)) == "argument"
        assert _code(lambda: tiny_twin.predict(named, bad_subjects=bad)) == "argument"

    def test_everybody_rejected(self, tiny_twin: Twin) -> None:
        fc = np.concatenate([_without(_r(1), 0, 4), _without(_r(1), 0, 5)])
        done: list[tuple[int, int]] = []
        p = tiny_twin.predict(fc, bad_subjects="drop", progress=lambda i, n: done.append((i, n)))
        assert (p.subjects, p.flags, len(p.rejected)) == ((), (), 2)
        assert p.choice_prob.shape == (0, 186, 3)
        assert p.rt_s.shape == p.choice.shape == p.no_response_prob.shape == (0, 186)
        assert p.bold is not None
        assert p.bold.shape == (0, 1003, 4)
        assert p.contrasts.shape == (0, 2, 4)
        assert p.diverged.shape == (0,)
        assert p.provenance["backend"] == "cpu"
        assert done == [(0, 0)]
        weights = tiny_twin.personalize(fc, bad_subjects="drop")
        assert weights.n_subjects == 0
        assert tiny_twin.predict(fc, bad_subjects="drop", bold=False).bold is None


class TestPredict:
    def test_shapes(self, tiny_twin: Twin, prediction: Prediction) -> None:
        assert prediction.choice_prob.shape == (5, 108 + 78, 3)
        assert prediction.rt_s.shape == (5, 186)
        assert prediction.bold is not None
        assert prediction.bold.shape == (5, 493 + 510, 4)
        assert prediction.contrasts.shape == (5, 2, 4)
        assert prediction.contrast_names == ("faces>shapes", "incongruent>congruent")
        for name in ARRAYS[:-1]:
            assert getattr(prediction, name).dtype == np.float32
        assert prediction.bold_regions == tiny_twin.spec.bold_regions

    def test_is_the_readout_of_the_rollout(self, tiny_twin: Twin, prediction: Prediction) -> None:
        assert prediction.bold is not None
        weights = tiny_twin.personalize(_r(5))
        for task, schedule in tiny_twin.schedules.items():
            inputs = TASKS[task].encode(schedule, 0.08)[None]
            outputs = rollout(weights, inputs, backend="cpu").outputs[:, 0]
            windows = schedule.response_windows(0.08)
            responses = hazard(outputs[..., :3], windows, schedule.onset_s, 0.08)
            trials, volumes = prediction.trial_slice(task), prediction.volume_slice(task)
            np.testing.assert_array_equal(prediction.choice_prob[:, trials], responses.choice_prob)
            np.testing.assert_array_equal(prediction.rt_s[:, trials], responses.rt_s)
            n_volumes = schedule.n_volumes(0.8)
            at_tr = outputs[:, : 10 * n_volumes : 10, 3:]
            np.testing.assert_array_equal(prediction.bold[:, volumes], at_tr)

    def test_probabilities_and_times(self, tiny_twin: Twin, prediction: Prediction) -> None:
        total = prediction.choice_prob.sum(axis=2) + prediction.no_response_prob
        np.testing.assert_allclose(total, 1, rtol=0, atol=1e-6)
        window = np.concatenate([s.window_s for s in tiny_twin.schedules.values()])
        assert (prediction.rt_s > -0.08).all()
        assert (prediction.rt_s < window + 0.08).all()
        np.testing.assert_array_equal(prediction.choice, prediction.choice_prob.argmax(axis=2))

    def test_contrasts_are_nilearns_on_the_predicted_bold(
        self, tiny_twin: Twin, prediction: Prediction
    ) -> None:
        from nilearn.glm import compute_contrast
        from nilearn.glm.first_level import run_glm

        from dtwin_fast.tasks.design import design_matrix

        assert prediction.bold is not None
        for k, (task, schedule) in enumerate(tiny_twin.schedules.items()):
            design, columns = design_matrix(schedule, 0.8)
            (weights,) = TASKS[task].contrasts.values()
            vector = np.array([weights.get(c, 0.0) for c in columns])
            for s in range(2):
                series = prediction.bold[s, prediction.volume_slice(task)].astype(np.float64)
                labels, results = run_glm(series, design, noise_model="ols")
                wanted = compute_contrast(labels, results, vector, stat_type="t").effect_size()
                got = prediction.contrasts[s, k]
                assert np.abs(wanted).max() > 100 * GLM_ROUNDING
                np.testing.assert_allclose(got, wanted, rtol=0, atol=GLM_ROUNDING)

    def test_saved_and_loaded_twin_predicts_the_same_bits(
        self, tiny_twin: Twin, prediction: Prediction, tmp_path: Path
    ) -> None:
        saved = tiny_twin.save(tmp_path / "model")
        loaded = load(str(tmp_path / "model"))
        assert _bits(loaded.predict(_r(5))) == _bits(prediction)
        assert _bits(saved.predict(_r(5))) == _bits(prediction)
        again = loaded.predict(_r(5))
        assert again.provenance["model_sha256"] == loaded.sha256 == saved.sha256
        assert re.fullmatch("[0-9a-f]{64}", saved.sha256)

    def test_company_does_not_matter(self, tiny_twin: Twin) -> None:
        fc = _r(40)
        whole = tiny_twin.predict(fc)
        rng = np.random.default_rng(0)
        for n in (1, 2, 7, 33):
            rows = rng.permutation(40)[:n]
            assert _bits(tiny_twin.predict(fc[rows])) == _bits(whole, rows)

    @pytest.mark.parametrize("per_chunk", [1, 2, 3, 5, 100])
    def test_chunks_do_not_matter(
        self,
        tiny_twin: Twin,
        prediction: Prediction,
        monkeypatch: pytest.MonkeyPatch,
        per_chunk: int,
    ) -> None:
        steps = max(s.n_steps(0.08) for s in tiny_twin.schedules.values())
        n_bytes = 4 * (len(tiny_twin.layers[-1].bias) + 2 * steps * 7)
        _limit_chunks(monkeypatch, per_chunk * n_bytes)
        done: list[tuple[int, int]] = []
        p = tiny_twin.predict(_r(5), progress=lambda i, n: done.append((i, n)))
        assert _bits(p) == _bits(prediction)
        stops = [*range(per_chunk, 5, per_chunk), 5]
        assert done == [(stop, 5) for stop in stops]

    def test_progress_is_told_often(self, tiny_twin: Twin) -> None:
        done: list[tuple[int, int]] = []
        tiny_twin.predict(
            _r(150), ["stroop"], bold=False, progress=lambda i, n: done.append((i, n))
        )
        assert done == [(64, 150), (128, 150), (150, 150)]

    def test_chunks_without_bold(
        self, tiny_twin: Twin, prediction: Prediction, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        _limit_chunks(monkeypatch)
        p = tiny_twin.predict(_r(5), bold=False)
        assert p.bold is None
        assert p.contrasts.tobytes() == prediction.contrasts.tobytes()
        assert p.choice_prob.tobytes() == prediction.choice_prob.tobytes()

    def test_chunks_with_rejected_and_flagged(
        self, tiny_twin: Twin, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fc = _without(_r(6), 4, 4)
        fc[1, 0, 1] = 0.99
        wanted = tiny_twin.predict(fc, missing="mask", bad_subjects="drop")
        _limit_chunks(monkeypatch)
        got = tiny_twin.predict(fc, missing="mask", bad_subjects="drop")
        assert _bits(got) == _bits(wanted)
        assert (got.subjects, got.flags) == (wanted.subjects, wanted.flags)
        assert [e.subject for e in got.rejected] == ["sub-0002"]
        assert got.flags[3] == ("missing_regions:1", "masked_regions:1")

    @pytest.mark.parametrize(
        "tasks", [["faces"], ["stroop"], ["stroop", "faces"], ("faces", "stroop")], ids=str
    )
    def test_tasks(self, tiny_twin: Twin, prediction: Prediction, tasks: list[str]) -> None:
        p = tiny_twin.predict(_r(5), tasks)
        assert p.bold is not None
        assert prediction.bold is not None
        assert list(p.schedules) == list(tasks)
        names = [c for t in tasks for c in TASKS[t].contrasts]
        assert list(p.contrast_names) == names
        for task in tasks:
            a, b = p.trial_slice(task), prediction.trial_slice(task)
            np.testing.assert_array_equal(p.choice_prob[:, a], prediction.choice_prob[:, b])
            np.testing.assert_array_equal(p.rt_s[:, a], prediction.rt_s[:, b])
            v, w = p.volume_slice(task), prediction.volume_slice(task)
            np.testing.assert_array_equal(p.bold[:, v], prediction.bold[:, w])
        for name in names:
            k, m = p.contrast_names.index(name), prediction.contrast_names.index(name)
            np.testing.assert_array_equal(p.contrasts[:, k], prediction.contrasts[:, m])

    @pytest.mark.parametrize(
        "tasks",
        [["nback"], ["faces", "nback"], "faces", [], [["faces"]], [None], 5, 0, {"faces"}],
        ids=repr,
    )
    def test_tasks_that_are_none(self, tiny_twin: Twin, tasks: Any) -> None:
        assert _code(lambda: tiny_twin.predict(_r(1), tasks)) == "task"

    def test_sigmoid_head(self, raw_twin: Twin) -> None:
        p = raw_twin.predict(_r(3))
        np.testing.assert_allclose(p.choice_prob.sum(axis=2), 1, rtol=0, atol=1e-6)
        assert np.isfinite(p.rt_s).all()

    def test_no_response_is_known_to_the_hazard_head_alone(
        self, raw_twin: Twin, prediction: Prediction
    ) -> None:
        assert (raw_twin.predict(_r(3)).head, prediction.head) == ("sigmoid", "hazard")
        assert np.isnan(raw_twin.predict(_r(3)).no_response_prob).all()
        rest = 1 - prediction.choice_prob.sum(axis=2, dtype=np.float64)
        np.testing.assert_allclose(prediction.no_response_prob, rest, rtol=0, atol=1e-6)
        assert prediction.no_response_prob.max() > 0


class TestDiverged:
    @pytest.mark.parametrize("head", ["hazard", "sigmoid"])
    def test_only_its_subject_is_spoilt(self, raw_twin: Twin, head: Any) -> None:
        twin = _explosive(replace(raw_twin, spec=replace(raw_twin.spec, head=head)))
        fc = _r(4)
        fc[:, 0] = 0
        wanted = twin.predict(fc)
        assert not wanted.diverged.any()
        fc[2, 0] = 0.999
        got = twin.predict(fc)  # and no RuntimeWarning
        assert got.diverged.tolist() == [False, False, True, False]
        assert _bits(got, [0, 1, 3]) == _bits(wanted, [0, 1, 3])
        assert np.isnan(got.contrasts[2]).any()
        unknown = np.isnan(got.choice_prob[2]).any(axis=1)
        assert unknown.any()
        assert (got.choice[2][unknown] == -1).all()
        assert np.isnan(got.rt_s[2][unknown]).all()

    def test_constants_that_overflow(self, tiny_twin: Twin) -> None:
        twin = replace(tiny_twin, edge_sd=np.full(120, 1e-40, np.float32))
        assert twin.predict(_r(2)).diverged.all()


class TestOptions:
    def test_reference_backend_agrees(self, tiny_twin: Twin, prediction: Prediction) -> None:
        pytest.importorskip("torch")
        p = tiny_twin.predict(_r(5), backend="reference", n_threads=1)
        assert p.provenance["backend"] == "reference"
        assert p.provenance["isa"] == isa("reference")
        # An untrained RNN over 5,100 steps forgets; its rounding errors do not grow.
        for name in ARRAYS[:-1]:
            np.testing.assert_allclose(
                getattr(p, name), getattr(prediction, name), rtol=0, atol=2e-4
            )

    def test_float64(self, tiny_twin: Twin, prediction: Prediction) -> None:
        p = tiny_twin.predict(_r(5), precision="float64")
        assert p.provenance["precision"] == "float64"
        for name in ARRAYS[:-1]:
            assert getattr(p, name).dtype == np.float32
            np.testing.assert_allclose(
                getattr(p, name), getattr(prediction, name), rtol=0, atol=2e-4
            )
        assert _bits(p) != _bits(prediction)

    def test_threads_do_not_matter(self, tiny_twin: Twin, prediction: Prediction) -> None:
        assert _bits(tiny_twin.predict(_r(5), n_threads=1)) == _bits(prediction)
        assert _bits(tiny_twin.predict(_r(5), n_threads=3)) == _bits(prediction)

    @pytest.mark.parametrize(
        ("options", "code"),
        [
            ({"backend": "gpu"}, "backend"),
            ({"precision": "float16"}, "precision"),
            ({"n_threads": 0}, "n_threads"),
        ],
        ids=["backend", "precision", "threads"],
    )
    def test_unknown(self, tiny_twin: Twin, options: dict[str, Any], code: str) -> None:
        assert _code(lambda: tiny_twin.predict(_r(1), **options)) == code

    def test_named_backend_never_falls_back(self, tiny_twin: Twin) -> None:
        with pytest.raises(BackendUnavailableError, match="backend='cuda' cannot run"):
            tiny_twin.predict(_r(1), backend="cuda")


class TestProvenance:
    def test_fields(self, tiny_twin: Twin, prediction: Prediction) -> None:
        import importlib.metadata

        facts = prediction.provenance
        assert set(facts) == {
            "model", "model_sha256", "dtwin_fast", "backend", "isa", "precision",
            "training_seed", "input_sha256", "missing_policy",
        }  # fmt: skip
        assert facts["model"] == "tiny"
        assert facts["dtwin_fast"] == importlib.metadata.version("dtwin_fast")
        assert (facts["backend"], facts["isa"]) == ("cpu", isa("cpu"))
        assert (facts["precision"], facts["missing_policy"]) == ("float32", "reject")
        assert facts["training_seed"] == tiny_twin.training["seed"] == 7

    def test_digest_of_the_input(self, tiny_twin: Twin, prediction: Prediction) -> None:
        def digest(fc: Any) -> str:
            return str(tiny_twin.predict(fc, ["faces"], bold=False).provenance["input_sha256"])

        edges = _r(5)
        wanted = prediction.provenance["input_sha256"]
        assert digest(edges) == digest(matrices(edges)) == wanted
        order = np.random.default_rng(0).permutation(16)
        shuffled = Connectomes.from_arrays(
            matrices(edges)[:, order][:, :, order], regions=[tiny_twin.regions[i] for i in order]
        )
        assert digest(shuffled) == wanted
        other = edges.copy()
        other[4, 119] = np.nextafter(other[4, 119], np.float32(1))
        renamed = Connectomes.from_arrays(
            edges, regions=tiny_twin.regions, subjects=["a", "b", "c", "d", "e"]
        )
        different = [digest(other), digest(edges[::-1]), digest(edges[:4]), digest(renamed)]
        assert len({wanted, *different}) == 5


class TestPrediction:
    def test_slices(self, prediction: Prediction) -> None:
        assert prediction.trial_slice("faces") == slice(0, 108)
        assert prediction.trial_slice("stroop") == slice(108, 186)
        assert prediction.volume_slice("faces") == slice(0, 493)
        assert prediction.volume_slice("stroop") == slice(493, 1003)
        assert _code(lambda: prediction.trial_slice("nback")) == "task"
        assert _code(lambda: prediction.volume_slice("nback")) == "task"

    def test_xarray(self, tiny_twin: Twin, prediction: Prediction) -> None:
        pytest.importorskip("xarray")
        data = prediction.to_xarray()
        assert dict(data.sizes) == {
            "subject": 5, "trial": 186, "action": 3, "contrast": 2, "region": 4, "volume": 1003,
        }  # fmt: skip
        assert data["choice_prob"].dims == ("subject", "trial", "action")
        assert data["rt"].dims == ("subject", "trial")
        assert data["bold"].dims == ("subject", "volume", "region")
        assert data["contrasts"].dims == ("subject", "contrast", "region")
        stroop = data.sel(trial=data["task"] == "stroop")
        np.testing.assert_array_equal(
            stroop["rt"], prediction.rt_s[:, prediction.trial_slice("stroop")]
        )
        schedule = tiny_twin.schedules["stroop"]
        np.testing.assert_array_equal(stroop["onset"], schedule.onset_s)
        assert stroop["condition"].values.tolist() == list(schedule.condition)
        of_task = data.sel(volume=data["volume_task"] == "stroop")
        np.testing.assert_allclose(of_task["time"], 0.8 * np.arange(510))
        one = data.sel(subject="sub-0003", contrast="faces>shapes", region="LH_amygdala")
        assert float(one["contrasts"]) == prediction.contrasts[2, 0, 2]
        assert data.attrs["backend"] == "cpu"

    def test_xarray_without_bold_or_people(self, tiny_twin: Twin) -> None:
        pytest.importorskip("xarray")
        p = tiny_twin.predict(_without(_r(1), 0, 4), bad_subjects="drop", bold=False)
        assert "bold" not in p.to_xarray()
        assert p.to_xarray().sizes["subject"] == 0

    def test_xarray_is_optional(
        self, prediction: Prediction, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import sys

        monkeypatch.setitem(sys.modules, "xarray", None)
        with pytest.raises(MissingExtraError, match=r"dtwin_fast\[xarray\]"):
            prediction.to_xarray()


class TestParts:
    """A Twin can not be put together from parts that do not fit."""

    @pytest.mark.parametrize(
        ("change", "code"),
        [
            (lambda t: {"layers": t.layers[:-1]}, "model_content"),
            (lambda t: {"layers": ()}, "model_content"),
            (lambda t: {"layers": (*t.layers, t.layers[0])}, "model_content"),
            (lambda t: {"layers": t.layers[::-1]}, "model_content"),
            (lambda t: {"edge_mean": t.edge_mean[1:]}, "model_content"),
            (lambda t: {"edge_mean": t.edge_mean.astype("f8")}, "model_content"),
            (lambda t: {"edge_sd": -t.edge_sd}, "model_content"),
            (lambda t: {"edge_sd": 0 * t.edge_sd}, "model_content"),
            (lambda t: {"bold_sd": t.bold_sd * np.float32(np.nan)}, "model_content"),
            (lambda t: {"regions": t.regions[1:]}, "model_content"),
            (lambda t: {"regions": (*t.regions[1:], t.regions[1])}, "region_duplicate"),
            (lambda t: {"regions": (*t.regions[1:], 5)}, "region_name"),
            (lambda _: {"regions": ()}, "model_content"),
            (lambda _: {"schedules": {}, "projections": {}, "contrasts": {}}, "model_content"),
            (lambda _: {"contrasts": {}}, "model_content"),
            (lambda _: {"projections": {}}, "model_content"),
            (lambda t: {"schedules": {"faces": t.schedules["faces"]}}, "model_content"),
            (lambda t: {"spec": replace(t.spec, cell="gru")}, "model_content"),
            (lambda t: {"spec": replace(t.spec, n_actions=4)}, "model_content"),
            (lambda t: {"spec": replace(t.spec, dt_s=0.1)}, "model_content"),
        ],
        ids=[
            "a layer less",
            "no layers",
            "a layer more",
            "layers reversed",
            "edge_mean too short",
            "edge_mean float64",
            "edge_sd negative",
            "edge_sd zero",
            "bold_sd NaN",
            "a region less",
            "a region twice",
            "a region as a number",
            "no regions",
            "no tasks",
            "no contrasts",
            "no projections",
            "a task less",
            "other cell",
            "other actions",
            "other step",
        ],
    )
    def test_refused(
        self, tiny_twin: Twin, change: Callable[[Twin], dict[str, Any]], code: str
    ) -> None:
        assert _code(lambda: replace(tiny_twin, **change(tiny_twin))) == code
