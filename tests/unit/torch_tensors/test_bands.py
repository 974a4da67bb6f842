"""Every band is found again from its mask, whatever its parameters; what isn't one is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="needs the extra torch")

from streaming_attention.torch.bands import bands_of  # noqa: E402

bounds = st.none() | st.integers(0, 12)


@given(
    st.integers(1, 12), st.integers(1, 12), st.integers(-12, 12), bounds, bounds, st.integers(0, 5), st.integers(0, 5)
)
def test_causal_windows_and_padding(queries, keys, offset, left, right, before, after):
    """All masks with an end on the right that moves or doesn't, a start likewise, and padding on both sides."""
    distance = torch.arange(keys) - torch.arange(queries)[:, None] - offset
    mask = torch.ones(queries, keys, dtype=torch.bool)
    mask &= distance >= -left if left is not None else True
    mask &= distance <= right if right is not None else True
    mask[:, :before] = False
    mask[:, keys - after if after else keys :] = False
    try:
        (band,) = bands_of(mask, 1, queries, keys)
    except ValueError:
        # Rows that see nothing on account of padding alone can make a band that starts or ends in the middle.
        assert not mask.any(1).all()
        return
    place = torch.arange(keys) - band.first
    distance = place - (torch.arange(queries)[:, None] + band.offset)
    seen = ((place >= 0) & (place < band.stop - band.first)).expand(queries, keys).clone()
    seen &= distance >= -band.left if band.left is not None else True
    seen &= distance <= band.right if band.right is not None else True
    assert torch.equal(seen, mask)


@given(st.lists(st.booleans(), min_size=12, max_size=12))
def test_any_mask_is_a_band_or_refused(bits):
    mask = torch.tensor(bits).reshape(3, 4)
    try:
        (band,) = bands_of(mask, 1, 3, 4)
    except ValueError as error:
        assert "not a band" in str(error)
        return
    for i in range(3):
        for j in range(4):
            at = j - band.first - i - band.offset
            seen = band.first <= j < band.stop
            seen &= (band.left is None or at >= -band.left) and (band.right is None or at <= band.right)
            assert seen == mask[i, j]
