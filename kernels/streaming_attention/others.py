"""The registry's other methods behind the public call: none of the options on logits."""

from __future__ import annotations

import numpy as np

from streaming_attention.checks import check_out
from streaming_attention.dtypes import name_of
from streaming_attention.inputs import Inputs
from streaming_attention.machine.layout import Layout
from streaming_attention.workload import Workload

_GIVEN_AS = {"window": "window", "softcap": "softcap", "sinks": "sinks", "slopes": "alibi_slopes"}


def run_method(method, q, k, v, layout: str, arguments: dict, out, return_lse: bool, options: dict):
    """Attention by a method of the registry, on arrays that were checked; ``arguments`` as of a launch.

    Raises
    ------
    ValueError
        What the method doesn't do, by the argument's name.
    """
    for name, given_as in _GIVEN_AS.items():
        if name in arguments:
            raise ValueError(f"{given_as}: given, but the method {method.name} has no such option; allowed: streaming")
    for name, array in (("q", q), ("k", k), ("v", v)):
        if name_of(array.dtype) not in method.dtypes:
            raise ValueError(f"{name}: dtype {array.dtype}, but {method.name} takes {', '.join(method.dtypes)}")
        if array.dtype != q.dtype:
            raise ValueError(f"{name}: dtype {array.dtype} differs from q's {q.dtype}, which {method.name} can't mix")
    shape, given, target = q.shape, (q, k, v), out
    if layout == "bthd":
        q, k, v = (array.swapaxes(1, 2) for array in (q, k, v))
    batch, heads, queries, head_dim = q.shape
    sizes = batch, heads, k.shape[1], queries, k.shape[2], head_dim
    workload = Workload("call", *sizes, arguments["causal"], name_of(q.dtype))
    options, threads = method.complete(options, over_ranks=False), arguments["threads"]
    if reason := method.infeasible(workload, Layout(threads=threads)):
        raise ValueError(f"method: {reason}")
    if target is not None:
        check_out(target, given[0], dict(zip("qkv", given, strict=True)))
    arrays = (np.require(array, requirements=("C_CONTIGUOUS", "ALIGNED")) for array in (q, k, v))
    prepared = method.load()(Inputs(workload, *arrays, scale=arguments["scale"]), threads, None, options)
    try:
        if return_lse and prepared.lse is None:
            raise ValueError(f"return_lse: {method.name} gives no log-sum-exp")
        found = prepared.run()
    finally:
        prepared.close()
    found = (found.swapaxes(1, 2) if layout == "bthd" else found).reshape(shape)
    if target is not None:
        target[...] = found
        found = target
    return (found, prepared.lse) if return_lse else found
