"""The same job in torch, as a good engineer writes it without a library for it.

Batches of a mapped array, the hypernetwork, a loop of batched products over time for both tasks
at once, BOLD of every step, and contrasts of that. ``torch-projected`` is the stronger form:
``dtwin_fast.reference`` with the contrasts' rows applied to the states, so that BOLD of every step
is never made.
"""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ...connectome import FISHER_CLIP
from ...weights import split_flat
from ..cases import Case
from ..timing import time_once
from .job import Job, forget

if TYPE_CHECKING:
    from torch import Tensor

TORCH, TORCH_PROJECTED = "torch", "torch-projected"
FORMS = (TORCH, TORCH_PROJECTED)
BATCHES = (2, 4, 8, 16, 32, 64)
"""People in a batch, of which torch gets what is best for it."""
PROBES = 2
"""Of each batch, by which that is found."""


class TorchJob:
    """A job's twin once more, in torch alone.

    Args:
        job: the model and the people.
        form: of ``FORMS``.
    """

    def __init__(self, job: Job, form: str) -> None:
        import torch

        self.job, self.form, self.spec = job, form, job.twin.spec
        self.layers = [
            (torch.as_tensor(layer.weight), torch.as_tensor(layer.bias))
            for layer in job.twin.layers
        ]
        self.inputs = torch.as_tensor(job.inputs)
        self.projection = torch.as_tensor(job.projection)

    def screen(self, batch: int) -> Path:
        """The whole job, from the array of people to a file of contrasts."""
        forget(self.job.edges)
        edges = np.load(self.job.edges, mmap_mode="r", allow_pickle=False)
        parts = [
            self.contrasts(np.array(edges[start : start + batch]))
            for start in range(0, len(edges), batch)
        ]
        path = self.job.new_path().with_suffix(".npy")
        np.save(path, np.concatenate(parts))
        return path

    def contrasts(self, edges: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """(S,contrasts,regions) of (S,E) Pearson r."""
        import torch
        from torch.nn.functional import mish

        with torch.inference_mode():
            r = torch.from_numpy(edges)
            h = torch.atanh(r.clamp(-FISHER_CLIP, FISHER_CLIP))
            for weight, bias in self.layers[:-1]:
                h = mish(torch.addmm(bias, h, weight.T))
            weight, bias = self.layers[-1]
            weights = split_flat(torch.addmm(bias, h, weight.T), self.spec)
            n = self.spec.n_actions
            if self.form == TORCH:
                projected = self.projection @ self._outputs(weights)[..., n:]
            else:
                projected = self._projected(weights)[..., n:]
            return self.job.contrasts(projected.numpy()).astype(np.float32)

    def best_batch(self) -> int:
        """People in a batch with which torch spends the least time on each."""
        edges = np.load(self.job.edges, mmap_mode="r", allow_pickle=False)
        times = {min(batch, len(edges)): math.inf for batch in BATCHES}
        for _ in range(PROBES):
            for batch in times:
                few = np.array(edges[:batch])
                seconds, _ = time_once(partial(self.contrasts, few))
                times[batch] = min(times[batch], seconds / batch)
        return min(times, key=lambda batch: times[batch])

    def _outputs(self, weights: dict[str, Tensor]) -> Any:
        """(S,B,T,O) by the loop as it is usually written."""
        from ..peers.torch_eager import plain_loop

        spec, n_people = self.spec, len(weights["w_hh"])
        n_sequences, n_steps, n_inputs = self.inputs.shape
        sizes = n_people, n_sequences, n_steps, n_inputs, spec.n_hidden, spec.n_outputs
        h0 = self.inputs.new_zeros(n_people, n_sequences, spec.n_hidden)
        shared = self.inputs.expand(n_people, *self.inputs.shape)
        return plain_loop(Case(spec.cell, *sizes), weights, shared, (h0,), None)

    def _projected(self, weights: dict[str, Tensor]) -> Any:
        from ...reference import rollout

        return rollout(
            self.spec.cell, weights, self.inputs, time_projection=self.projection
        ).outputs
