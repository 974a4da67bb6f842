import numpy as np
import pytest

from streaming_attention.bandwidth import stream


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("elements", [3, 1000, 2**20 + 7])
@pytest.mark.parametrize("kernel", stream.KERNELS)
def test_result_is_exact_after_any_number_of_calls(kernel, elements, threads):
    ceiling = stream.prepare_stream(kernel, elements, threads)
    for _ in range(3):
        ceiling()
        assert ceiling.error() <= ceiling.tolerance
    ceiling.close()


@pytest.mark.parametrize("kernel", [kernel for kernel in stream.KERNELS if kernel != "copy"])
def test_nothing_computed_is_an_error(kernel):
    ceiling = stream.prepare_stream(kernel, 1000, 1)
    assert ceiling.error() > ceiling.tolerance


@pytest.mark.parametrize("kernel", stream.KERNELS)
def test_one_wrong_element_is_an_error(kernel, monkeypatch):
    arrays = []
    empty = np.empty
    monkeypatch.setattr(np, "empty", lambda *given, **named: arrays.append(empty(*given, **named)) or arrays[-1])
    ceiling = stream.prepare_stream(kernel, 100_000, 2)
    if kernel == "read":
        arrays[0][77_777] += 1
        ceiling()
    else:
        ceiling()
        arrays[0][77_777] += 1
    assert ceiling.error() > ceiling.tolerance
    assert [array.size for array in arrays[:3]].count(100_000) == stream.KERNELS[kernel]


def test_bytes_are_counted_as_stream_does():
    counted = {kernel: stream.bytes_per_call(kernel, 1000) for kernel in stream.KERNELS}
    assert counted == {"copy": 16_000, "scale": 16_000, "add": 24_000, "triad": 24_000, "read": 8_000}


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("dot", 100, 1), "'dot'; allowed: copy, scale, add, triad, read"),
        (("copy", 1, 2), "elements: 1"),
        (("copy", 100, 0), "threads: 0"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        stream.prepare_stream(*arguments)
