import platform

import pytest

from streaming_attention.machine import isa

X86 = """\
processor\t: 0
vendor_id\t: GenuineIntel
model name\t: Intel(R) Xeon(R) Gold 6230R CPU @ 2.10GHz
flags\t\t: fpu vme sse sse2 ssse3 fma smep avx avx2 avx512f avx512_vnni f16c

processor\t: 1
model name\t: another
flags\t\t: sse
"""
ARM = """\
processor\t: 0
Features\t: fp asimd evtstrm aes fphp asimdhp asimddp sve i8mm bf16
CPU implementer\t: 0x41
CPU part\t: 0xd40
"""


def root_with(tmp_path, text):
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text(text)
    return tmp_path


def test_x86(tmp_path):
    root = root_with(tmp_path, X86)
    assert isa.cpu_name(root) == "Intel(R) Xeon(R) Gold 6230R CPU @ 2.10GHz"
    assert isa.flags(root) == {"sse", "sse2", "ssse3", "fma", "avx", "avx2", "avx512f", "avx512_vnni", "f16c"}


def test_arm(tmp_path):
    root = root_with(tmp_path, ARM)
    assert isa.cpu_name(root) == "implementer 0x41 part 0xd40"
    assert isa.flags(root) == {"asimd", "fphp", "asimdhp", "asimddp", "sve", "i8mm", "bf16"}


@pytest.mark.parametrize("text", [None, "", "nonsense"])
def test_nothing_to_read(tmp_path, text):
    root = tmp_path if text is None else root_with(tmp_path, text)
    assert isa.flags(root) == frozenset()
    assert isa.cpu_name(root) in (platform.processor(), platform.machine(), "unknown")


def test_this_machine_has_a_name():
    assert isa.cpu_name()
