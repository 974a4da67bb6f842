"""Streaming attention beside every peer that is installed, interleaved; medians of ratios within one run.

    python benchmarks/peers.py [--threads N] [--rounds N] [--only WORD] [--csv FILE]

Peers: torch's scaled_dot_product_attention as it comes, OpenVINO and ONNX Runtime as models of one operator, NumPy with
192 rows at a time. Each is asked for the precision of the row, given the layout it likes best, and its output is
compared with ours. A turn begins when the threads of the turn before have stopped spinning. Inputs of prefill are used
once before a call is timed; those of decode are read from memory, not from a cache: two copies take turns.
"""

from __future__ import annotations

import os

from streaming_attention.machine.variables import settle_variables

settle_variables(os.cpu_count())  # as for a job, before the libraries read them

import argparse
import time

import numpy as np
from ceilings import append_rows
from threadpoolctl import threadpool_limits

from streaming_attention.streaming.front import run_decode, run_prefill

# name, storage, heads, kv_heads, queries, keys, head_dim, causal
ROWS = [
    ("prefill 4K dense", "fp32", 8, 8, 4096, 4096, 128, False),
    ("prefill 4K causal", "fp32", 8, 8, 4096, 4096, 128, True),
    ("prefill 4K causal, d=64", "fp32", 8, 8, 4096, 4096, 64, True),
    ("prefill 512 causal, GQA 16/8", "fp32", 16, 8, 512, 512, 128, True),
    ("prefill 4K dense", "bf16", 8, 8, 4096, 4096, 128, False),
    ("prefill 4K causal", "bf16", 8, 8, 4096, 4096, 128, True),
    ("prefill 512 causal, GQA 16/8", "bf16", 16, 8, 512, 512, 128, True),
    ("decode 64K keys, 1 head", "fp32", 1, 1, 1, 65536, 128, False),
    ("decode 32K keys, GQA 16/8", "fp32", 16, 8, 1, 32768, 128, False),
    ("decode 32K keys, GQA 16/8", "bf16", 16, 8, 1, 32768, 128, False),
]
COLD_BYTES = 128 << 20
"""Bytes that are read before each call of decode, beyond the last-level cache of most machines."""
NUMPY_ROWS = 192
LOOK, IDLE, PATIENCE = 0.01, 0.05, 5.0
"""Seconds between two looks at the process's time, share of them for idle threads, seconds to wait for that."""


class Unable(Exception):
    """A peer can't compute this row."""


def to_bf16(x):
    """uint16 that holds bfloat16, cut off."""
    return (x.view(np.uint32) >> 16).astype(np.uint16)


def as_fp32(x):
    """fp32 values of what a contender returned; outside of its time."""
    if not isinstance(x, np.ndarray):
        return x.float().numpy()  # a tensor
    return (x.astype(np.uint32) << 16).view(np.float32) if x.dtype == np.uint16 else np.asarray(x, np.float32)


def ours(q, k, v, causal, threads):
    out = np.empty_like(q)
    run = run_decode if q.shape[2] == 1 else run_prefill

    def call():
        run(q, k, v, out, causal=causal, threads=threads)
        return out

    return call


def torch_sdpa(q, k, v, causal, threads):
    import torch

    torch.set_num_threads(threads)
    tensors = [torch.from_numpy(x) for x in (q, k, v)]
    if q.dtype == np.uint16:
        tensors = [x.view(torch.bfloat16) for x in tensors]
    sdpa = torch.nn.functional.scaled_dot_product_attention

    def call():
        with torch.inference_mode():
            return sdpa(*tensors, is_causal=causal and q.shape[2] > 1, enable_gqa=q.shape[1] != k.shape[1])

    return call


def _for_every_head(q, k):
    """K or V with a copy for each query head, for peers that know no groups."""
    return np.repeat(k, q.shape[1] // k.shape[1], axis=1)


def openvino_sdpa(q, k, v, causal, threads):
    import openvino as ov
    from openvino import opset13

    kind = ov.Type.bf16 if q.dtype == np.uint16 else ov.Type.f32
    arrays = [q, _for_every_head(q, k), _for_every_head(q, v)]
    parameters = [opset13.parameter(list(x.shape), kind) for x in arrays]
    node = opset13.scaled_dot_product_attention(*parameters, causal=causal and q.shape[2] > 1)
    precision = "bf16" if kind == ov.Type.bf16 else "f32"
    settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": precision}
    request = ov.Core().compile_model(ov.Model([node], parameters), "CPU", settings).create_infer_request()
    for place, x in enumerate(arrays):
        tensor = ov.Tensor(kind, list(x.shape))
        tensor.data.view(x.dtype).reshape(x.shape)[...] = x
        request.set_input_tensor(place, tensor)
    result = np.uint16 if precision == "bf16" else np.float32

    def call():
        request.infer()
        return request.get_output_tensor(0).data.view(result)

    return call


def onnxruntime_mha(q, k, v, causal, threads):
    """MultiHeadAttention with (batch, tokens, heads x head_dim), which takes ONNX Runtime's flash path."""
    if q.dtype == np.uint16:
        raise Unable("no bf16 on CPUs")
    import onnxruntime
    from onnx import TensorProto, helper

    names = "q", "k", "v"
    wide = (q, _for_every_head(q, k), _for_every_head(q, v))
    feeds = {
        n: np.ascontiguousarray(x.swapaxes(1, 2)).reshape(1, x.shape[2], -1) for n, x in zip(names, wide, strict=True)
    }
    node = helper.make_node("MultiHeadAttention", names, ["o"], domain="com.microsoft", num_heads=q.shape[1],
                            unidirectional=int(causal and q.shape[2] > 1))  # fmt: skip
    session = _session(onnxruntime, helper, TensorProto, node, feeds, threads)
    return lambda: session.run(None, feeds)[0].reshape(1, q.shape[2], q.shape[1], -1).swapaxes(1, 2)


def onnxruntime_gqa(q, k, v, causal, threads):
    """GroupQueryAttention, always causal; its K and V are the tokens of a prompt."""
    if q.dtype == np.uint16:
        raise Unable("no bf16 on CPUs")
    if not causal or q.shape[2] != k.shape[2]:
        raise Unable("prompts alone")
    import onnxruntime
    from onnx import TensorProto, helper

    feeds = {n: np.ascontiguousarray(x.swapaxes(1, 2)).reshape(1, x.shape[2], -1)
             for n, x in zip("qkv", (q, k, v), strict=True)}  # fmt: skip
    none = np.zeros((1, k.shape[1], 0, k.shape[3]), np.float32)
    feeds |= {
        "pk": none,
        "pv": none,
        "last": np.array([[k.shape[2] - 1]], np.int32),
        "total": np.array([k.shape[2]], np.int32),
    }
    node = helper.make_node("GroupQueryAttention", list(feeds), ["o", "ok", "ov"], domain="com.microsoft",
                            num_heads=q.shape[1], kv_num_heads=k.shape[1])  # fmt: skip
    session = _session(onnxruntime, helper, TensorProto, node, feeds, threads)
    return lambda: session.run(["o"], feeds)[0].reshape(1, q.shape[2], q.shape[1], -1).swapaxes(1, 2)


def _session(onnxruntime, helper, kinds, node, feeds, threads):
    kind = {np.dtype(np.float32): kinds.FLOAT, np.dtype(np.int32): kinds.INT32}
    inputs = [helper.make_tensor_value_info(name, kind[x.dtype], x.shape) for name, x in feeds.items()]
    outputs = [helper.make_tensor_value_info(name, kinds.FLOAT, None) for name in node.output]
    graph = helper.make_graph([node], "attention", inputs, outputs)
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def numpy_rows(q, k, v, causal, threads):
    """Two BLAS products around a softmax, a few rows at a time."""
    if q.dtype == np.uint16:
        raise Unable("no bf16")
    k, v = _for_every_head(q, k), _for_every_head(q, v)
    out, scale = np.empty_like(q), np.float32(q.shape[3] ** -0.5)
    offset = k.shape[2] - q.shape[2]

    def call():
        with threadpool_limits(threads, "blas"):
            for head in range(q.shape[1]):
                for row in range(0, q.shape[2], NUMPY_ROWS):
                    stop = min(q.shape[2], row + NUMPY_ROWS)
                    seen = stop + offset if causal else k.shape[2]
                    scores = (q[0, head, row:stop] * scale) @ k[0, head, :seen].T
                    if causal:
                        first = row + offset
                        scores[:, first:] += np.triu(np.full((stop - row, seen - first), -np.inf, np.float32), 1)
                    scores -= scores.max(axis=1, keepdims=True)
                    np.exp(scores, out=scores)
                    total = scores.sum(axis=1, keepdims=True)
                    out[0, head, row:stop] = (scores @ v[0, head, :seen]) / total
        return out

    return call


PEERS = {
    "torch": torch_sdpa,
    "OpenVINO": openvino_sdpa,
    "ONNX Runtime MHA": onnxruntime_mha,
    "ONNX Runtime GQA": onnxruntime_gqa,
    "NumPy": numpy_rows,
}


def draw(row, seed):
    _, storage, heads, kv_heads, queries, keys, head_dim, _ = row
    rng = np.random.default_rng(seed)
    shapes = [(1, heads, queries, head_dim), (1, kv_heads, keys, head_dim), (1, kv_heads, keys, head_dim)]
    arrays = [rng.standard_normal(shape, dtype=np.float32) for shape in shapes]
    return [to_bf16(x) for x in arrays] if storage == "bf16" else arrays


def prepare(row, threads: int):
    """Name -> calls, one for each copy of the inputs; says which peers can't, and why."""
    copies = [draw(row, seed) for seed in range(2 if row[4] == 1 else 1)]
    calls = {"streaming": [ours(*arrays, row[-1], threads) for arrays in copies]}
    expected = as_fp32(calls["streaming"][0]()).copy()
    for name, make in PEERS.items():
        try:
            calls[name] = [make(*arrays, row[-1], threads) for arrays in copies]
            found = as_fp32(calls[name][0]())
        except ImportError as error:
            print(f"{name}: {error}")
        except Unable as error:
            print(f"{row[1]} {row[0]}: {name} has {error}")
        else:
            error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
            if not error < (2e-2 if row[1] == "bf16" else 1e-5):
                raise SystemExit(f"{row[1]} {row[0]}: {name} differs from ours by {error:.1e}")
            continue
        calls.pop(name, None)
    return calls


def wait_for_idle_threads() -> None:
    """A library's threads spin on after a call, OpenBLAS's for some 50 ms, and would take a core from the next call."""
    give_up = time.perf_counter() + PATIENCE
    while time.perf_counter() < give_up:
        spent = time.process_time()
        time.sleep(LOOK)
        if time.process_time() - spent < IDLE * LOOK:
            return
    raise SystemExit(f"threads of a peer are busy {PATIENCE:g} s after its call")


def seconds(call, cold) -> float:
    wait_for_idle_threads()
    if cold is None:
        call()
    else:
        cold += 1
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def measure(row, threads: int, rounds: int):
    """Median seconds of ours, and of each peer the median ratio to ours in the same round."""
    calls = prepare(row, threads)
    cold = np.zeros(COLD_BYTES // 8) if row[4] == 1 else None
    times = {name: [] for name in calls}
    for turn in range(rounds + 1):
        for name, copies in calls.items():
            taken = seconds(copies[turn % len(copies)], cold)
            if turn:
                times[name].append(taken)
    mine = np.array(times.pop("streaming"))
    return float(np.median(mine)), {name: float(np.median(np.array(taken) / mine)) for name, taken in times.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", default="", help="rows whose storage or name contains this")
    parser.add_argument("--csv", help="add the ratios to this file")
    arguments = parser.parse_args()
    table = []
    for row in ROWS:
        if arguments.only not in f"{row[1]} {row[0]}":
            continue
        mine, ratios = measure(row, arguments.threads, arguments.rounds)
        listed = ", ".join(f"{name} {ratio:.2f}x" for name, ratio in sorted(ratios.items(), key=lambda item: item[1]))
        print(
            f"{row[1]} {row[0]:30} {arguments.threads} thread(s) {1e3 * mine:9.2f} ms; time over ours: {listed}",
            flush=True,
        )
        table += [(row[1], row[0], arguments.threads, name, f"{ratio:.3f}") for name, ratio in ratios.items()]
    append_rows(arguments.csv, table)


if __name__ == "__main__":
    main()
