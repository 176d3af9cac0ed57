"""All that is timed on a GPU, by name. A new one is a line here."""

from __future__ import annotations

from . import jax_form, torch_forms
from .problem import Prepare

IMPLEMENTATIONS: dict[str, Prepare] = {
    "dtwin-cuda": torch_forms.engine("cuda", None),
    "dtwin-cuda-bf16": torch_forms.engine("cuda", "bfloat16"),
    "dtwin-triton": torch_forms.engine("triton", None),
    "dtwin-triton-bf16": torch_forms.engine("triton", "bfloat16"),
    "torch-graph": torch_forms.graphed,
    "torch-unbind": torch_forms.eager,
    "torch-compile": torch_forms.Compiled(),
    "jax-vmap": jax_form.prepare,
}
