"""From arrays to a launch: fills the job record, cuts it into tasks, picks the compiled kernel."""

from __future__ import annotations

import math
import struct

import numpy as np

from streaming_attention.simd.compiled import address_of
from streaming_attention.simd.convert import format_of
from streaming_attention.simd.isa import select_isa
from streaming_attention.streaming import decode, pool, prefill
from streaming_attention.streaming.cut import cut_prefill
from streaming_attention.streaming.job import FACTORS, JOB, address

UNBOUNDED = 2**40
"""A window side that never ends."""

LOG2_E = math.log2(math.e)

AXES = {"bhtd": (0, 1, 2, 3), "bthd": (0, 2, 1, 3)}
"""Axes of (batch, head, token, dim) by layout."""


def run_prefill(q, k, v, out, lse=None, **options) -> str:
    """:func:`prepare_prefill`, called once; returns what ran, the instruction set and the operands of its products."""
    call = prepare_prefill(q, k, v, out, lse, **options)
    call()
    return prefill.describe(call.isa, call.kernel)


def prepare_prefill(
    q,
    k,
    v,
    out,
    lse=None,
    *,
    causal=False,
    scale=None,
    window=(None, None),
    offset=None,
    softcap=None,
    sinks=None,
    slopes=None,
    threads=1,
    layout="bhtd",
    isa=None,
    block=None,
    block_table=None,
    seqlens=None,
    kv_layout=None,
    cu_seqlens_q=None,
    cu_seqlens_k=None,
) -> Call:
    """Attention of every query over all its keys, into `out`, as a call to be repeated.

    Logits are ``scale * q . k``, then softcap, then ALiBi, then masks. A row's bits depend on its query, on the keys it
    sees and on `block` alone: they are the same in one call and in chunks of the queries, for contiguous keys and for
    pages, on any number of threads.

    Parameters
    ----------
    q, out : ndarray, float32, float16 or bfloat16, (batch, heads, queries, head_dim)
        Any strides; with ``layout="bthd"``, (batch, queries, heads, head_dim). Their dtypes may differ; bfloat16 is
        ml_dtypes' or uint16 that holds it. Arithmetic is fp32, but where q, k and v are all bfloat16 and the CPU has a
        dot product for it, products are of bfloat16 with fp32 sums, and weights are rounded to bfloat16.
    k, v : ndarray, as `q`, (batch, kv_heads, keys, head_dim)
        Likewise, of one dtype; ``heads`` is a multiple of ``kv_heads``. With `block_table`: (pages, page_size,
        kv_heads, head_dim), or with ``kv_layout="bhtd"`` (pages, kv_heads, page_size, head_dim).
    lse : ndarray, float32, (batch, heads, queries), C-contiguous, optional
        Receives the natural log-sum-exp of each row, its sink included.
    causal : bool
        Query i sees the keys j <= i + offset.
    scale : float, optional
        ``head_dim ** -0.5`` unless given.
    window : (int or None, int or None)
        Keys seen before and after a query's own place; None: all.
    offset : int, optional
        ``keys - queries`` unless given, so that the last query stands at the last key; otherwise where `k` and `v`
        are a slice of the keys.
    softcap : float, optional
        Logits become ``softcap * tanh(logit / softcap)``.
    sinks : ndarray, float32, (heads,), contiguous, optional
        A logit per head that every row sees and that has no value: a row that sees no key gives 0 and its sink as lse.
    slopes : ndarray, float32, (heads,), contiguous, optional
        ALiBi: ``slope * |i + offset - j|`` is taken from a logit.
    threads : int
    isa : Isa, optional
        The best of this CPU for the dtypes unless given.
    block : int, optional
        Keys of a step of the online softmax; :data:`.prefill.BLOCK`, or ``BLOCK_WORDS``, unless given.
    block_table : ndarray, int32, (batch, pages of a sequence), optional
        Any page size.
    seqlens : ndarray, int32, (batch,), contiguous, optional
        Keys of each sequence; all of them unless given.
    cu_seqlens_q, cu_seqlens_k : ndarray, int32, (sequences + 1,), contiguous, optional
        Sequences of any lengths, 0 included, side by side along the tokens: `q` and `out` are (tokens, heads,
        head_dim), `lse` (heads, tokens), and `k`, `v` (tokens, kv_heads, head_dim) unless paged.

    """
    axes, kv_axes = AXES[layout], AXES[kv_layout or (layout if block_table is None else "bthd")]
    if cu_seqlens_q is not None:
        q, out, axes = q[None], out[None], AXES["bthd"]
        if block_table is None:
            k, v, kv_axes = k[None], v[None], AXES["bthd"]
            cu_seqlens_k = cu_seqlens_q if cu_seqlens_k is None else cu_seqlens_k
    job = _describe(q, k, v, out, lse, causal, scale, window, offset, axes, kv_axes, block_table)
    isa, kernel = prefill.choose_kernel(q.dtype, k.dtype, isa)
    job["block"] = block = block or prefill.block_of(kernel)
    job["softcap"] = softcap or 0.0
    job["q_format"], job["kv_format"], job["o_format"] = map(format_of, (q.dtype, k.dtype, out.dtype))
    job["staged"] = prefill.is_staged(kernel, job)
    tables = {"sinks": sinks, "slopes": slopes, "lengths": seqlens, "q_starts": cu_seqlens_q, "k_starts": cu_seqlens_k}
    job.update((name, address(array)) for name, array in tables.items() if array is not None)
    tasks, order = cut_prefill(job, isa.width, threads, seqlens, cu_seqlens_q, cu_seqlens_k)
    scratch = prefill.scratch_bytes(
        isa, job["head_dim"], job["strips"], block, kernel is prefill.prefill_words or job["staged"]
    )
    kept = q, k, v, out, lse, sinks, slopes, block_table, seqlens, cu_seqlens_q, cu_seqlens_k, order
    return Call(isa, kernel, job, tasks, threads, scratch, kept)


def run_decode(q, k, v, out, lse=None, **options) -> None:
    """Attention of few queries over many keys, into `out`: :func:`prepare_decode`, called once."""
    prepare_decode(q, k, v, out, lse, **options)()


def prepare_decode(
    q,
    k,
    v,
    out,
    lse=None,
    causal=True,
    scale=None,
    window=(None, None),
    offset=None,
    softcap=None,
    sinks=None,
    slopes=None,
    threads=1,
    layout="bhtd",
    isa=None,
    k_scale=None,
    v_scale=None,
    block_table=None,
    seqlens=None,
    kv_layout=None,
) -> Call:
    """Attention of few queries over many keys, into `out`, as a call to be repeated.

    Parameters are those of :func:`prepare_prefill`, and

    Parameters
    ----------
    q, out : ndarray, float32, float16, or uint16 holding bfloat16
    k, v : ndarray, float32, float16, int8, or uint16 holding bfloat16
        With `block_table`: (pages, page_size, kv_heads, head_dim), ``page_size`` a multiple of 16; with
        ``kv_layout="bhtd"``, (pages, kv_heads, page_size, head_dim).
    k_scale, v_scale : ndarray, float32, C-contiguous, optional
        Factors of the rows of K and V, for int8: (batch, kv_heads, keys); of pages (pages, kv_heads, page_size).
    block_table : ndarray, int32, (batch, pages of a sequence), optional
        Each row contiguous.
    seqlens : ndarray, int32, (batch,), contiguous, optional
        Keys of each batch; all of them unless given.
    """
    isa = isa or select_isa()
    kv_axes = AXES[kv_layout or (layout if block_table is None else "bthd")]
    job = _describe(q, k, v, out, lse, causal, scale, window, offset, AXES[layout], kv_axes, block_table)
    heads, rows = job["batch"] * job["kv_heads"], job["queries"] * (job["heads"] // job["kv_heads"])
    if job["page"] % decode.RUN:
        raise ValueError(f"block_table: pages hold {job['page']} keys; allowed: multiples of {decode.RUN}")
    job["q_format"], job["o_format"], job["softcap"] = format_of(q.dtype), format_of(out.dtype), softcap or 0.0
    for name, array in (
        ("lengths", seqlens),
        ("k_scale", k_scale),
        ("v_scale", v_scale),
        ("sinks", sinks),
        ("slopes", slopes),
    ):
        if array is not None:
            job[name] = address(array)
    job["splits"] = splits = max(1, -(-job["keys"] // decode.SPLIT))
    partial = None
    if splits > 1:
        width = -(-job["head_dim"] // isa.lanes) * isa.lanes
        # Counters first: an int64 each, 0 before every launch.
        partial = np.empty(2 * heads + heads * splits * rows * (width + 2), np.float32)
        partial[: 2 * heads] = 0
        job["counters"] = address(partial)
        job["partial"] = job["counters"] + 8 * heads
    job["together"] = together = decode.heads_together(job, threads)
    scratch = decode.scratch_bytes(isa, job["head_dim"], rows, together)
    kept = q, k, v, out, lse, sinks, slopes, k_scale, v_scale, block_table, seqlens
    return Call(isa, DECODE[k.dtype.char], job, heads // together * splits, threads, scratch, kept, partial)


DECODE = {"f": decode.decode_fp32, "H": decode.decode_bf16, "e": decode.decode_fp16, "b": decode.decode_int8}
"""Kernels by the character of K's dtype; uint16 holds bfloat16."""


class Call:
    """A launch to be repeated, with a record that is filled once; calls of one object may not overlap.

    The arrays' memory must stay where it is; `kept` is what the record points to, `partial` where decode's splits meet.
    """

    __slots__ = ("arguments", "isa", "kept", "kernel", "partial")

    def __init__(self, isa, kernel, job: dict, tasks: int, threads: int, scratch: int, kept=(), partial=None):
        self.isa, self.kernel, self.kept, self.partial = isa, kernel, kept, partial
        self.arguments = isa, address_of(kernel, isa, 3), _PACK.pack(*job.values()), tasks, threads, scratch

    def __call__(self) -> None:
        pool.launch(*self.arguments)


_PACK = struct.Struct(f"{len(JOB.names) - FACTORS}q{FACTORS}d")
_EMPTY = dict.fromkeys(JOB.names, 0)


def _describe(q, k, v, out, lse, causal, scale, window, offset, axes, kv_axes, block_table=None) -> dict:
    """The fields of a job that every kernel needs, the others 0."""
    b, h, t, d = axes
    job = _EMPTY.copy()
    job["q"], job["k"], job["v"], job["o"] = address(q), address(k), address(v), address(out)
    strides = q.strides
    job["q_batch"], job["q_head"], job["q_token"], job["q_dim"] = strides[b], strides[h], strides[t], strides[d]
    strides = out.strides
    job["o_batch"], job["o_head"], job["o_token"], job["o_dim"] = strides[b], strides[h], strides[t], strides[d]
    job["batch"], job["heads"], job["queries"], job["head_dim"] = q.shape[b], q.shape[h], q.shape[t], q.shape[d]
    b, h, t, d = kv_axes
    strides = k.strides
    job["k_batch"], job["k_head"], job["k_token"], job["k_dim"] = strides[b], strides[h], strides[t], strides[d]
    strides = v.strides
    job["v_batch"], job["v_head"], job["v_token"], job["v_dim"] = strides[b], strides[h], strides[t], strides[d]
    job["kv_heads"], job["keys"] = k.shape[h], k.shape[t]
    if lse is not None:
        job["lse"] = address(lse)
    if block_table is not None:
        job["table"], job["table_stride"], job["page"] = address(block_table), block_table.strides[0], job["keys"]
        job["keys"] *= block_table.shape[1]
    left, right = window
    job["offset"] = job["keys"] - job["queries"] if offset is None else offset
    job["left"] = UNBOUNDED if left is None else left
    job["right"] = 0 if causal else UNBOUNDED if right is None else right
    job["scale"] = (job["head_dim"] ** -0.5 if scale is None else scale) * LOG2_E
    return job
