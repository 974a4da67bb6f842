"""A panel of keys in decode: scores of every row (:mod:`.products`), their weights (:mod:`.logits`), the output.

A panel is read by units, runs of 16 keys of a head, whose places are listed before the first (:mod:`.keys`); units that
follow each other in memory are read as one, so that pages cost a look-up each.

A panel that some row doesn't see whole goes query by query over what each sees, because a weight of 0 would not keep
NaN out of O.
"""

from __future__ import annotations

from typing import NamedTuple

from streaming_attention.simd import inline, jit
from streaming_attention.simd.convert import FP32, size_of
from streaming_attention.simd.known import Known
from streaming_attention.simd.memory import load_f32, load_i64
from streaming_attention.streaming.formats import widen
from streaming_attention.streaming.keys import (
    OF_HEAD,
    OF_K,
    OF_RUN,
    OF_SCALE,
    OF_V,
    RUN,
    UNIT,
    evenly_spaced,
    is_direct,
    seen_by,
)
from streaming_attention.streaming.logits import add_slope, cap, hide, multiply, weigh
from streaming_attention.streaming.products import add_rows, score_rows

PANEL = 1024
"""Keys between two softmax steps, and of a burst of reads of K, then of V: half as many cost fp32 2% (Zen 5)."""
AHEAD = 4
"""How many units ahead memory is prefetched for int8, half as many for two bytes, one for fp32: 8 KiB at head_dim 128.
Twice as far cost fp32 3% and bf16 4%, because K and V leave the L1 cache before they are used (Zen 5, one core)."""
D64, D128 = Known(64), Known(128)
"""Head dimensions that scores are compiled for, the usual ones; any other takes loops of unknown length."""


class Desk(NamedTuple):
    """Where a task keeps its rows: query rows of a head, floats of a padded row, and addresses in its scratch."""

    rows: int
    width: int
    q: int
    o: int
    state: int
    scores: int
    stage: int
    units: int


class Panel(NamedTuple):
    """Keys between two softmax steps: `first` to `last` of those from `start` on, and how many units they are."""

    start: int
    first: int
    last: int
    units: int


@inline
def take_panel(isa, storage, job, head, keys, desk, panel):
    """A panel: its scores, their weights, the output."""
    if not is_direct(isa, job, storage, job.k_dim):
        _score_widened(isa, storage, job, desk, panel)
    elif desk.width == 128:
        _score(isa, storage, D128, job, desk, panel)
    elif desk.width == 64:
        _score(isa, storage, D64, job, desk, panel)
    else:
        _score(isa, storage, desk.width, job, desk, panel)
    _weigh(isa, job, head, keys, desk, panel)
    whole = seen_by(job, keys, 0)[1] >= panel.last and seen_by(job, keys, job.queries - 1)[0] <= panel.first
    if whole and is_direct(isa, job, storage, job.v_dim):
        _add(isa, storage, job, desk, panel)
    else:
        _add_seen(isa, storage, job, keys, desk, panel)


@jit
def _reach(storage, desk, panel, unit, field, step):
    """How many units from `unit` on are read as one, evenly spaced, and what to prefetch meanwhile.

    Their last ones are left to be read one by one, because what lies ahead of those is elsewhere: on the next page, or
    at the beginning of V after K and of the next panel's K after V.
    """
    ahead = AHEAD // size_of(storage)
    some = evenly_spaced(desk.units, unit, panel.units, field, step)
    if some > ahead:
        return some - ahead, load_i64(desk.units + UNIT * (unit + ahead) + field)
    soon = unit + ahead
    if soon < panel.units:
        return 1, load_i64(desk.units + UNIT * soon + field)
    return 1, load_i64(desk.units + UNIT * (soon - panel.units if field == OF_K else soon) + (OF_K + OF_V - field))


@jit
def _score(isa, storage, dims, job, desk, panel):
    """scores[row, key - panel.start], rows of K read where they lie; `dims` is the width, known if possible."""
    unit = 0
    while unit < panel.units:
        some, fetch = _reach(storage, desk, panel, unit, OF_K, RUN * job.k_token)
        place = desk.units + UNIT * unit
        k, run, row = load_i64(place + OF_K), load_i64(place + OF_RUN), load_i64(place + OF_HEAD) * desk.rows
        count, at = min(RUN * some, panel.last - RUN * run), desk.scores + 4 * (PANEL * row + RUN * run - panel.start)
        q = desk.q + 4 * desk.width * row
        score_rows(isa, storage, dims, desk.rows, q, k, job.k_token, count, at, 4 * PANEL, fetch)
        _multiply_scales(isa, job.k_scale, desk, place, at, count)
        unit += some


@jit
def _score_widened(isa, storage, job, desk, panel):
    """The same for rows that must be widened first, a run at a time."""
    for unit in range(panel.units):
        place = desk.units + UNIT * unit
        k, run, row = load_i64(place + OF_K), load_i64(place + OF_RUN), load_i64(place + OF_HEAD) * desk.rows
        count, at = min(RUN, panel.last - RUN * run), desk.scores + 4 * (PANEL * row + RUN * run - panel.start)
        _widen_rows(isa, job, storage, k, job.k_token, job.k_dim, count, desk)
        width, q = desk.width, desk.q + 4 * desk.width * row
        score_rows(isa, FP32, width, desk.rows, q, desk.stage, 4 * width, count, at, 4 * PANEL, desk.stage)
        _multiply_scales(isa, job.k_scale, desk, place, at, count)


@jit
def _widen_rows(isa, job, storage, source, token, dim, count, desk):
    """`count` rows of K or V as fp32 on the stage, padded with zeros."""
    size = 4 * desk.width
    for row in range(count):
        widen(isa, storage, source + row * token, dim, job.head_dim, desk.stage + row * size, size)


@jit
def _multiply_scales(isa, scales, desk, place, at, count):
    """Scores or weights of some keys times what their rows of K or V were divided by, if by anything."""
    if scales != 0:
        for row in range(desk.rows):
            multiply(isa, at + 4 * PANEL * row, scales + load_i64(place + OF_SCALE), count)


@jit
def _weigh(isa, job, head, keys, desk, panel):
    """Scores to weights, row by row."""
    group = job.heads // job.kv_heads
    begin = (panel.first - panel.start) // RUN * RUN
    size = -(-(panel.last - panel.start) // RUN) * RUN
    for row in range(desk.rows * job.together):
        at, query = desk.scores + 4 * PANEL * row, row % desk.rows // group
        if job.softcap != 0:
            cap(isa, job, at + 4 * begin, size - begin)
        if job.slopes != 0:
            query_head = (head % job.kv_heads + row // desk.rows) * group + row % desk.rows % group
            distance = query + job.offset + keys - job.keys - panel.start - begin
            add_slope(isa, load_f32(job.slopes + 4 * query_head), distance, at + 4 * begin, size - begin)
        low, high = seen_by(job, keys, query)
        hide(at, low - panel.start, high - panel.start, size)
        o = desk.o + 4 * desk.width * row
        weigh(isa, at + 4 * begin, size - begin, desk.state + 8 * row, o, desk.width)


@jit
def _add(isa, storage, job, desk, panel):
    """O += weights V, where all rows see the whole panel, and V is read where it lies."""
    unit = 0
    while unit < panel.units:
        some, fetch = _reach(storage, desk, panel, unit, OF_V, RUN * job.v_token)
        place = desk.units + UNIT * unit
        v, run, row = load_i64(place + OF_V), load_i64(place + OF_RUN), load_i64(place + OF_HEAD) * desk.rows
        start, stop = max(panel.first, RUN * run), min(panel.last, RUN * (run + some))
        at, o = desk.scores + 4 * (PANEL * row + start - panel.start), desk.o + 4 * desk.width * row
        _multiply_scales(isa, job.v_scale, desk, place, at - 4 * (start - RUN * run), stop - RUN * run)
        v += (start - RUN * run) * job.v_token
        add_rows(isa, storage, desk.width, desk.rows, at, 4 * PANEL, v, job.v_token, stop - start, o, fetch)
        unit += some


@jit
def _add_seen(isa, storage, job, keys, desk, panel):
    """The same for any panel, widened run by run: each query with what it sees of it."""
    group = job.heads // job.kv_heads
    for unit in range(panel.units):
        place = desk.units + UNIT * unit
        v, run, row = load_i64(place + OF_V), load_i64(place + OF_RUN), load_i64(place + OF_HEAD) * desk.rows
        stop = min(panel.last, RUN * run + RUN)
        at, o = desk.scores + 4 * (PANEL * row + RUN * run - panel.start), desk.o + 4 * desk.width * row
        _multiply_scales(isa, job.v_scale, desk, place, at, stop - RUN * run)
        _widen_rows(isa, job, storage, v, job.v_token, job.v_dim, stop - RUN * run, desk)
        for query in range(job.queries):
            low, high = seen_by(job, keys, query)
            low, high = max(low, panel.first, RUN * run) - RUN * run, min(high, stop) - RUN * run
            if low < high:
                a, x = at + 4 * (PANEL * group * query + low), desk.stage + 4 * desk.width * low
                target = o + 4 * desk.width * group * query
                add_rows(isa, FP32, desk.width, group, a, 4 * PANEL, x, 4 * desk.width, high - low, target, x)
