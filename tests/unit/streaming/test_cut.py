"""Tasks of sequences of varying length."""

import numpy as np

from streaming_attention.streaming.cut import order_tasks


def test_every_run_of_rows_is_one_task_and_the_longest_come_first():
    rows, keys = np.array([0, 10, 205]), np.array([9, 1000, 100])
    order = order_tasks(rows, keys, right=0, group=5, kv_heads=2, per_task=50)
    tasks = [(code >> 32, code & 0xFFFFFFFF) for code in order.tolist()]
    assert sorted(tasks) == [(2, 0), (3, 0), *[(head, run) for head in (4, 5) for run in range(5)]]
    assert tasks[:4] == [(2, 0), (3, 0), (4, 3), (5, 3)]  # 10 rows of 1000 keys, then 50 of up to 99
    assert [run for head, run in tasks if head == 4] == [3, 2, 1, 0, 4]


def test_no_sequence_has_no_task():
    none = np.zeros(0, np.int64)
    assert len(order_tasks(none, none, 0, 1, 1, 48)) == 0
