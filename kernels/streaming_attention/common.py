"""What the public functions share: checked options on logits, and the launch of a kernel on checked arrays."""

from __future__ import annotations

import numpy as np

from streaming_attention import checks
from streaming_attention.registry import find_method
from streaming_attention.simd.isa import select_isa
from streaming_attention.streaming.footprint import BEST
from streaming_attention.streaming.front import Call, prepare_decode, prepare_prefill


def check_common(heads: int, causal, scale, window, softcap, sinks, alibi_slopes, threads) -> dict:
    """The arguments of a launch that every public function has, those left out that ask for nothing."""
    checked = {
        "causal": checks.check_flag("causal", causal),
        "scale": checks.check_number("scale", scale),
        "threads": checks.check_threads_argument(threads),
    }
    if window is not None:
        checked["window"] = checks.check_window(window)
    if softcap is not None:
        checked["softcap"] = checks.check_number("softcap", softcap, positive=True)
    if sinks is not None:
        checked["sinks"] = checks.check_vector("sinks", sinks, heads)
    if alibi_slopes is not None:
        checked["slopes"] = checks.check_vector("alibi_slopes", alibi_slopes, heads)
    return checked


def streaming_options(options: dict) -> dict:
    """``block`` and ``isa`` as a launch takes them."""
    if not options:
        return options
    checked = find_method("streaming").complete(options, over_ranks=False)
    options = {name: checked[name] for name in options}
    name = options.pop("isa", BEST)
    return options if name == BEST else options | {"isa": select_isa(name)}


def new_lse(wanted: bool, *shape: int) -> np.ndarray | None:
    return np.empty(shape, np.float32) if wanted else None


def prepare(few: bool, q, k, v, out, lse, arguments: dict) -> Call:
    """A call of the kernel for few rows a K/V head, or of the one for many."""
    if not few:
        return prepare_prefill(q, k, v, out, lse, **arguments)
    arguments.pop("block", None)
    return prepare_decode(q, k, v, out, lse, **arguments)


def run(*arguments) -> None:
    """:func:`prepare`, called once."""
    prepare(*arguments)()


def result(out, lse):
    return out if lse is None else (out, lse)
