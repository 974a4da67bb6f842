"""A call of prefill cut into tasks: how many strips a task has, and the order of tasks whose costs differ."""

from __future__ import annotations

import numpy as np

from streaming_attention.streaming.job import address

STRIPS = 8
"""Strips per task at most: they read each block of K and V from the cache of the one before, and share its copy. Their
Q and O are 400 KiB at head_dim 128 (AVX-512). Against 4, within 1% on a quiet machine, 1 to 3% faster where neighbours
use the last-level cache (Zen 5)."""


def cut_prefill(job: dict, width: int, threads: int, seqlens=None, q_starts=None, k_starts=None):
    """Fill in a job's ``batch``, ``strips`` and ``order``.

    Parameters
    ----------
    job : dict
        Fields of a :data:`.job.JOB`, those of its arrays filled.
    width, threads : int
        Lanes of a strip, threads of the launch.
    seqlens, q_starts, k_starts : ndarray of int32, optional
        Keys of each sequence; where sequences of varying length start.

    Returns
    -------
    tasks : int
    order : ndarray or None
        To be kept until the launch is over.
    """
    group = job["heads"] // job["kv_heads"]
    if q_starts is not None:
        job["batch"] = len(q_starts) - 1
    total = job["queries"] * group * job["kv_heads"] * (job["batch"] if q_starts is None else 1)
    # Few enough strips that every thread has several tasks; one thread alone waits for nobody.
    job["strips"] = min(STRIPS, max(1, total // (width * (4 * threads if threads > 1 else 1))))
    per_task = job["strips"] * width
    if q_starts is None and seqlens is None:
        return job["batch"] * job["kv_heads"] * -(-job["queries"] * group // per_task), None
    queries = np.full(job["batch"], job["queries"]) if q_starts is None else np.diff(q_starts)
    keys = np.full(job["batch"], job["keys"]) if k_starts is None else np.diff(k_starts)
    order = order_tasks(
        queries * group, keys if seqlens is None else seqlens, job["right"], group, job["kv_heads"], per_task
    )
    job["order"] = address(order)
    return len(order), order


def order_tasks(rows, keys, right: int, group: int, kv_heads: int, per_task: int) -> np.ndarray:
    """Tasks over all sequences, the most work first.

    Parameters
    ----------
    rows, keys : ndarray of int, (sequences,)
        Rows of a K/V head, and its keys; the last query stands at the last key.
    right : int
        Keys that a query sees beyond its own place.
    group, kv_heads, per_task : int
        Query heads of a K/V head, K/V heads of a sequence, rows of a task.

    Returns
    -------
    order : ndarray, int64, (tasks,)
        ``head << 32 | run of rows``; heads are counted through all sequences.
    """
    runs = np.repeat(-(-rows // per_task), kv_heads)
    heads = np.repeat(np.arange(len(runs)), runs)
    run = np.arange(len(heads)) - np.repeat(np.cumsum(runs) - runs, runs)
    sequence = heads // kv_heads
    stop = np.minimum((run + 1) * per_task, rows[sequence])
    seen = np.clip(keys[sequence] - (rows[sequence] - stop) // group + right, 0, keys[sequence])
    cost = (stop - run * per_task) * seen
    return (heads << 32 | run)[np.argsort(-cost, kind="stable")]
