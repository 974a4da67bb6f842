"""How far an output is from the oracle, judged on rows that are affordable in float64.

A full oracle of a long prefill costs more than the measurement. Some query rows of every head are enough to see a
wrong method: the first, the last (which sees every key), and others spread between them at random.
"""

from __future__ import annotations

import numpy as np

from streaming_attention.inputs import make_inputs
from streaming_attention.oracle import judge, oracle, plain
from streaming_attention.workload import Workload

ROW_BUDGET = 2**27
"""Multiply-adds that the float64 rows may cost for each product, about a second on one core."""
FEWEST_ROWS, MOST_ROWS = 4, 64


class Examiner:
    """Judges outputs of one workload against the oracle, on the same rows for every method.

    Parameters
    ----------
    workload : Workload
    seed : int
        Seed of the inputs that the methods were given; :meth:`renew` takes the next.
    """

    def __init__(self, workload: Workload, seed: int):
        self.workload = workload
        self.rows = check_rows(workload, seed)
        self.renew(seed)

    def renew(self, seed: int) -> None:
        """Compute the reference for the inputs of another seed."""
        inputs = make_inputs(self.workload, seed)
        arguments = {"causal": self.workload.causal, "scale": self.workload.scale, "rows": self.rows}
        self.reference, _ = oracle(inputs.q, inputs.k, inputs.v, **arguments)
        self.textbook, _ = plain(inputs.q, inputs.k, inputs.v, **arguments)

    def judge(self, found: np.ndarray) -> dict:
        """Errors of the output of :attr:`rows`, (batch, heads, rows, head_dim), as they stand in a record."""
        verdict = judge(found, self.reference, self.textbook)
        finite = {name: value for name, value in verdict._asdict().items() if not isinstance(value, bool)}
        numbers = {name: float(value) if np.isfinite(value) else None for name, value in finite.items()}
        return {**numbers, "rows": len(self.rows), "passed": bool(verdict.passed)}


def check_rows(workload: Workload, seed: int) -> np.ndarray:
    """Query rows to check, ascending: the first, the last, and random ones between."""
    cost = workload.batch * workload.heads * workload.keys * workload.head_dim
    count = int(np.clip(ROW_BUDGET // cost, FEWEST_ROWS, MOST_ROWS))
    if count >= workload.queries:
        return np.arange(workload.queries)
    inner = np.random.default_rng(seed).choice(np.arange(1, workload.queries - 1), size=count - 2, replace=False)
    return np.sort(np.concatenate(([0, workload.queries - 1], inner)))
