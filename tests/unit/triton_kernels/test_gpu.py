"""Kernels compile for GPUs that this machine doesn't have."""

import pytest

from streaming_attention.campaign.gpu import compile_all
from streaming_attention.triton import gpu

SOME = (gpu.KERNELS[0], gpu.KERNELS[5])


@pytest.mark.parametrize("specialization", SOME, ids=lambda each: each.name)
@pytest.mark.parametrize(
    "target, kind",
    [("sm_80", "cubin"), ("sm_90", "cubin"), ("sm_100", "cubin"), ("gfx942", "hsaco"), ("gfx1100", "hsaco")],
)
def test_kernels_compile_for_gpus(specialization, target, kind, tmp_path):
    pytest.importorskip("triton")
    from triton import knobs

    with knobs.cache.scope():
        knobs.cache.dir = str(tmp_path)
        binary = gpu.compile_for(specialization, target)
    assert binary.kind == kind
    assert len(binary.code) > 1000


def test_an_unknown_target_is_named():
    with pytest.raises(ValueError, match=r"sm_1.*sm_80"):
        gpu.compile_for(gpu.KERNELS[0], "sm_1")


def test_without_triton_every_kernel_says_so(monkeypatch):
    monkeypatch.setattr("streaming_attention.campaign.gpu.triton_version", lambda: None)
    entries = compile_all()["kernels"]
    assert len(entries) == len(gpu.KERNELS) * len(gpu.TARGETS)
    assert {(entry["status"], entry["reason"]) for entry in entries} == {("infeasible", "triton is not installed")}


def test_what_a_compiler_says_is_kept_and_the_others_go_on(monkeypatch):
    def compile_for(kernel, target):
        if target == "sm_90":
            raise RuntimeError("no such thing\nat all")
        return gpu.Binary("cubin", b"code")

    monkeypatch.setattr("streaming_attention.campaign.gpu.triton_version", lambda: "3.8.0")
    monkeypatch.setattr("streaming_attention.campaign.gpu.compile_for", compile_for)
    entries = compile_all()["kernels"]
    failed = [entry for entry in entries if entry["status"] == "error"]
    assert {(entry["target"], entry["reason"]) for entry in failed} == {("sm_90", "RuntimeError: no such thing")}
    assert len(failed) == len(gpu.KERNELS) and all(entry["bytes"] == 4 for entry in entries if entry not in failed)


def test_every_kernel_of_the_package_is_among_those_compiled():
    from streaming_attention.triton.specializations import snapshots

    assert {each.function for each in gpu.KERNELS} == {each.function for each in snapshots()}
