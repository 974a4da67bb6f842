"""Sequences of any lengths in one call."""

import numpy as np
import pytest
from problems import draw

from streaming_attention import attention, attention_varlen

Q, K, V = (x[0].swapaxes(0, 1) for x in draw(1, 4, 2, 30, 30, 16))
STARTS = np.array([0, 7, 7, 30], np.int32)


@pytest.mark.parametrize("options", [{}, {"causal": True, "window": (5, 0)}, {"softcap": 2.0}])
def test_each_sequence_is_a_call_of_its_own(options):
    out, lse = attention_varlen(Q, K, V, STARTS, return_lse=True, **options)
    assert out.shape == Q.shape and lse.shape == (4, 30)
    for start, stop in ((0, 7), (7, 30)):
        parts = (x[None, start:stop] for x in (Q, K, V))
        alone, alone_lse = attention(*parts, layout="bthd", return_lse=True, **options)
        np.testing.assert_allclose(out[start:stop], alone[0], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(lse[:, start:stop], alone_lse[0], rtol=1e-5, atol=1e-6)


BAD = {
    "q: shape (1, 30, 4, 16)": {"q": Q[None]},
    "k: shape (30, 2, 8)": {"k": K[..., :8], "v": V[..., :8]},
    "v: shape (29, 2, 16)": {"v": V[:29]},
    "heads of q: 3 is not": {"q": Q[:, :3]},
    "cu_seqlens_q: dtype float32": {"cu_seqlens_q": STARTS.astype(np.float32)},
    "cu_seqlens_q: shape (1, 4)": {"cu_seqlens_q": STARTS[None]},
    "cu_seqlens_q: empty": {"cu_seqlens_q": STARTS[:0]},
    "cu_seqlens_q: starts with 7": {"cu_seqlens_q": STARTS[1:]},
    "cu_seqlens_q: 9, 7 at 1 is falling": {"cu_seqlens_q": np.array([0, 9, 7, 30])},
    "cu_seqlens_q: ends with 31, must end with the 30 tokens of q": {"cu_seqlens_q": np.array([0, 31])},
    "cu_seqlens_q: ends with 30, must end with the 29 tokens of k": {"k": K[:29], "v": V[:29]},
    "cu_seqlens_k: 3 entries, must be 4": {"cu_seqlens_k": STARTS[[0, 1, 3]]},
    "cu_seqlens_q: values from 0 to 4294967326": {"cu_seqlens_q": np.array([0, 2**32 + 30])},
    "out: shares memory with k": {"k": np.tile(K, (1, 2, 1)), "v": np.tile(V, (1, 2, 1)), "out": "k"},
}


@pytest.mark.parametrize("message", BAD)
def test_bad_arguments_are_named_with_their_value(message):
    arguments = {"q": Q, "k": K, "v": V, "cu_seqlens_q": STARTS, **BAD[message]}
    if arguments.get("out") == "k":
        arguments["out"] = arguments["k"]
    with pytest.raises(ValueError) as caught:
        attention_varlen(**arguments)
    assert str(caught.value).startswith(message), caught.value


def test_lists_are_no_starts():
    with pytest.raises(TypeError, match="cu_seqlens_q: list is not a numpy array"):
        attention_varlen(Q, K, V, [0, 30])
