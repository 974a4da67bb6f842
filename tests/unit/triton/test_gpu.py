"""Kernels compile for GPUs that this machine doesn't have."""

import pytest

from streaming_attention.triton import specializations as known

pytest.importorskip("triton")

KERNELS = (
    known.prefill("bf16", 64, True), known.decode("fp16", 64, 16, True), known.merge("fp32", 64),
    known.backward("row_sums", "fp16", 64),
)  # fmt: skip


@pytest.mark.parametrize("specialization", KERNELS, ids=lambda each: each.name)
@pytest.mark.parametrize(
    "target, kind",
    [("sm_80", "cubin"), ("sm_90", "cubin"), ("sm_100", "cubin"), ("gfx942", "hsaco"), ("gfx1100", "hsaco")],
)
def test_kernels_compile_for_gpus(specialization, target, kind, tmp_path):
    from triton import knobs

    from streaming_attention.triton.gpu import compile_for

    with knobs.cache.scope():
        knobs.cache.dir = str(tmp_path)
        artefact = compile_for(specialization, target)
    assert artefact.kind == kind
    assert artefact.size > 1000
    assert len(artefact.digest) == 64


def test_an_unknown_target_is_named():
    from streaming_attention.triton.gpu import compile_for

    with pytest.raises(ValueError, match=r"sm_1.*sm_80"):
        compile_for(KERNELS[0], "sm_1")
