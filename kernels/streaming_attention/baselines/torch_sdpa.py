"""torch's scaled_dot_product_attention as a peer, on the same arrays without a copy.

torch aligns ``is_causal`` at the top left, this package at the bottom right. They agree when queries = keys; with fewer
queries a boolean mask says which keys are seen, and torch must take it as it comes, which costs it time.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch.nn.functional import scaled_dot_product_attention

from streaming_attention.dtypes import words
from streaming_attention.inputs import Inputs
from streaming_attention.parallel import LOCK
from streaming_attention.prepared import COMPUTE, Prepared
from streaming_attention.workload import Workload


def prepare(inputs: Inputs, threads: int, comm: None, options: Mapping) -> Prepared:
    """torch's attention on one rank; it has no options and gives no log-sum-exp.

    Raises
    ------
    ValueError
        Causal with more queries than keys.
    """
    workload = inputs.workload
    if workload.causal and workload.queries > workload.keys:
        raise ValueError(f"torch_sdpa: causal with {workload.queries} queries and only {workload.keys} keys")
    output = np.empty_like(inputs.q)
    q, k, v, out = map(as_tensor, (inputs.q, inputs.k, inputs.v, output))
    settings = {
        "attn_mask": seen_keys(workload),
        "is_causal": workload.causal and 1 < workload.queries == workload.keys,
        "scale": inputs.scale,
        "enable_gqa": workload.heads != workload.kv_heads,
    }

    def compute():
        with LOCK, torch.inference_mode():
            before = torch.get_num_threads()
            torch.set_num_threads(threads)
            try:
                out.copy_(scaled_dot_product_attention(q, k, v, **settings))
            finally:
                torch.set_num_threads(before)

    return Prepared([(COMPUTE, compute)], output, f"torch {torch.__version__}")


def as_tensor(array: np.ndarray) -> torch.Tensor:
    """A tensor of the same memory."""
    tensor = torch.from_numpy(words(array))
    return tensor.view(torch.bfloat16) if array.dtype.name == "bfloat16" else tensor


def seen_keys(workload: Workload) -> torch.Tensor | None:
    """(queries, keys), true where a key is seen; None where torch needs no mask for it."""
    if not workload.causal or workload.queries in (1, workload.keys):
        return None
    return torch.ones(workload.queries, workload.keys, dtype=torch.bool).tril(workload.keys - workload.queries)
