"""What the kernels of the backward pass are told: one record, filled per call, as :mod:`.job` is for the forward.

Every matrix is fp32 here, its rows whole vectors: either the caller's own memory or a staged copy (:mod:`.stage`). So
the kernels exist once, whatever the arrays hold, and once more where tiles multiply words: there Q, K, V, O and dO are
bfloat16, their rows whole vectors of words.
"""

from __future__ import annotations

import numpy as np
from numba import types
from numba.extending import intrinsic
from numba.np.numpy_support import from_dtype

MATRICES = ("q", "k", "v", "o", "do", "dq", "dk", "dv")
_ADDRESSES = ["lse", "panels", "q_pairs", "do_pairs", "state", "progress"]
_SIZES = ["batch", "heads", "kv_heads", "queries", "keys", "head_dim", "columns"]
_VIEW = ["offset", "left", "right"]
_INTEGERS = [
    *(f"{matrix}{part}" for matrix in MATRICES for part in ("", "_batch", "_head", "_token")),
    *_ADDRESSES,
    *_SIZES,
    *_VIEW,
    "chunk",
    "lane",
]

BACKWARD_JOB = np.dtype([(name, np.int64) for name in _INTEGERS] + [("scale", "f8")])
"""Fields of the record.

* Of each matrix its address and its strides in bytes from a batch, head and row (token) to the next; the ``columns`` of
  a row lie side by side: head_dim, and zeros up to a whole number of vectors.
* ``lse``: (batch, heads, queries), natural logarithm, contiguous.
* ``panels``: per strip of queries, Q and then dO transposed, a row per dim or word.
* ``q_pairs``, ``do_pairs``: per strip, of words alone, (width / 2, columns): see :mod:`.backward_rows`.
* ``state``: per strip a few rows of ``width``, see :mod:`.backward_rows`.
* ``progress``: per task how many runs of queries it and every task before it, of the same head, have added to dQ.
* ``offset``, ``left``, ``right``: as in the forward's record.
* ``chunk``: keys of a task. ``lane``: bytes from a lane to the next.
* ``scale``: factor on the logits.
"""

_RECORD = from_dtype(BACKWARD_JOB)


@intrinsic
def backward_job_at(typingctx, address):
    """The record at an address."""

    def codegen(context, builder, _signature, args):
        return builder.inttoptr(args[0], context.get_value_type(_RECORD))

    return _RECORD(types.int64), codegen
