"""The vector kernels as a method of the registry: a call with everything allocated, to be repeated."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np

from streaming_attention.dtypes import words
from streaming_attention.inputs import Inputs
from streaming_attention.prepared import COMPUTE, Prepared
from streaming_attention.simd.isa import select_isa
from streaming_attention.streaming import footprint, prefill, state
from streaming_attention.streaming.attend import finish_rows
from streaming_attention.streaming.dispatch import is_few
from streaming_attention.streaming.front import prepare_decode, run_prefill


def prepare(inputs: Inputs, threads: int, comm: None, options: Mapping) -> Prepared:
    """Streaming attention on one rank; ``options`` may give ``isa`` and ``block`` (keys of a prefill step)."""
    output = np.empty_like(inputs.q)
    lse = np.empty(inputs.q.shape[:3], np.float32)
    run, kernel = choose_kernel(inputs, threads, options, output, lse)
    return Prepared([(COMPUTE, run)], output, kernel, lse=lse)


def choose_kernel(inputs: Inputs, threads: int, options: Mapping, out: np.ndarray, lse: np.ndarray):
    """The kernel for these shapes, as a call to be repeated, and its name.

    Few rows of Q share a K/V head: decode, whose lanes run along head_dim. Many: prefill, whose lanes run along rows.
    """
    workload = inputs.workload
    offset = workload.keys - workload.queries - inputs.key_start
    arrays = inputs.q, inputs.k, inputs.v, out, lse
    return kernel_call(*arrays, workload.causal, offset, inputs.scale, threads, options)


def kernel_call(q, k, v, out, lse, causal: bool, offset: int, scale: float, threads: int, options: Mapping):
    """The kernel for the rows of these arrays, as a call to be repeated, and its name.

    Parameters
    ----------
    q, k, v, out, lse : ndarray
        As of :func:`.front.run_prefill`; they must stay where they are.
    causal : bool
        Query i sees the keys j <= i + offset.
    """
    isa = _forced(options)
    q, k, v, out = map(words, (q, k, v, out))
    arguments = {"causal": causal, "scale": scale, "offset": offset, "threads": threads, "isa": isa}
    if is_few(q.shape[1] // k.shape[1], q.shape[2], q.dtype.char == k.dtype.char == "H"):
        return prepare_decode(q, k, v, out, lse, **arguments), f"streaming.decode {(isa or select_isa()).name}"
    call = partial(run_prefill, q, k, v, out, lse, block=options.get("block"), **arguments)
    return call, prefill.describe(*prefill.choose_kernel(q.dtype, k.dtype, isa))


def sequences_call(q, k, v, out, lse, starts, causal: bool, scale: float, threads: int, options: Mapping):
    """The kernel for sequences of any lengths, as a call to be repeated, and its name.

    Parameters
    ----------
    q, k, v, out, lse : ndarray
        As of :func:`kernel_call`, with a batch of 1; sequences lie side by side along the tokens.
    starts : (sequence of int, sequence of int)
        Where each starts among the queries and among the keys, and the end.
    causal : bool
        The last query of each sequence stands at its last key.
    """
    isa = _forced(options)
    q, k, v, out = (words(array)[0].swapaxes(0, 1) for array in (q, k, v, out))
    starts_q, starts_k = (np.array(edges, np.int32) for edges in starts)
    arguments = {"causal": causal, "scale": scale, "threads": threads, "isa": isa, "block": options.get("block")}
    call = partial(run_prefill, q, k, v, out, lse[0], cu_seqlens_q=starts_q, cu_seqlens_k=starts_k, **arguments)
    return call, prefill.describe(*prefill.choose_kernel(q.dtype, k.dtype, isa))


def _forced(options: Mapping):
    """The instruction set that a caller asks for; None: the best."""
    name = options.get("isa", footprint.BEST)
    return None if name == footprint.BEST else select_isa(name)


class PartialAttention:
    """Q against one slice of the keys; see :class:`streaming_attention.streaming.attend.PartialAttention`.

    A finished row is a state too: its output with peak = log-sum-exp and total = 1, or the empty state. States are fp32
    whatever the dtype; an output of 16 bits is an array of its own.

    Parameters
    ----------
    choose : callable, optional
        ``(inputs, threads, options, out, lse) -> (call, its name)``, :func:`choose_kernel` unless given.
    """

    def __init__(self, inputs: Inputs, threads: int, options: Mapping, choose: Callable = choose_kernel):
        workload = inputs.workload
        heads, rows = workload.batch * workload.kv_heads, workload.heads // workload.kv_heads * workload.queries
        self.threads = threads
        self.state = np.empty(heads * rows * (workload.head_dim + 2), np.float32)
        self.peaks, self.totals, self.outs = state.split(self.state, heads, rows)
        self._lse = np.empty((heads, rows), np.float32)
        self._sums, self.lse = self.outs.reshape(inputs.q.shape), self._lse.reshape(inputs.q.shape[:3])
        self.output = self._sums if inputs.q.dtype == np.float32 else np.empty(inputs.q.shape, inputs.q.dtype)
        peaks = self.peaks.reshape(self.lse.shape)
        self.run, self.kernel = choose(inputs, threads, options, self._sums, peaks)

    def compute(self) -> None:
        """States of every row over the keys held here."""
        self.run()
        np.not_equal(self.peaks, -np.inf, out=self.totals, casting="unsafe")

    def finish(self) -> None:
        """Divide ``outs`` by the totals and take the log-sum-exp."""
        finish_rows(self.peaks, self.totals, self.outs, self._lse, self.threads)
        if self.output is not self._sums:
            self.output[...] = self._sums
