"""Medians with bootstrap intervals, ratios with intervals, and outliers that are flagged, never dropped.

The percentile bootstrap follows B. Efron, "Bootstrap methods: another look at the jackknife", Annals of Statistics 7
(1979). Outliers follow B. Iglewicz and D. Hoaglin, "How to detect and handle outliers" (1993).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

CONFIDENCE = 0.95
RESAMPLES = 2000
OUTLIER_SCORE = 3.5
"""Modified z-score beyond which a sample is flagged (Iglewicz and Hoaglin's recommendation)."""


class Interval(NamedTuple):
    """A median and the bounds of its confidence interval, in the unit of the samples."""

    median: float
    low: float
    high: float

    @property
    def relative_half_width(self) -> float:
        """Half the interval's width over the median; infinite for a median of 0."""
        return (self.high - self.low) / (2 * self.median) if self.median else float("inf")


def median_interval(samples: Sequence[float], confidence: float = CONFIDENCE, seed: int = 0) -> Interval:
    """Median of the samples with its percentile-bootstrap interval.

    Parameters
    ----------
    samples : sequence of float
        At least one; with a single sample the interval is unknown and comes back as (0, inf) around it.
    confidence : float
        Coverage aimed at, between 0 and 1.
    seed : int
        Seed of the resampling: the same samples give the same interval.

    Raises
    ------
    ValueError
        No samples, or a confidence outside (0, 1).
    """
    values = _checked(samples, confidence)
    if len(values) == 1:
        return Interval(float(values[0]), 0.0, float("inf"))
    medians = _bootstrap_medians(values, np.random.default_rng(seed))
    return _interval(float(np.median(values)), medians, confidence)


def pooled_interval(groups: Sequence[Sequence[float]], confidence: float = CONFIDENCE, seed: int = 0) -> Interval:
    """Median over repeats: the median of the groups' medians, resampling groups first, then samples within them.

    One repeat differs from the next by more than the samples of one repeat differ among themselves (another
    allocation, another moment), so an interval that mixed all samples would be too narrow.
    """
    groups = [_checked(group, confidence) for group in groups]
    if not groups:
        raise ValueError("groups: at least one repeat is needed, got none")
    if len(groups) == 1:
        return median_interval(groups[0], confidence, seed)
    return _interval(*_pool(groups, np.random.default_rng(seed)), confidence)


def ratio_interval(
    numerator: Sequence[float], denominator: Sequence[float], confidence: float = CONFIDENCE, seed: int = 0
) -> Interval:
    """Ratio of two medians with the bootstrap interval of the ratio, the two sides resampled independently."""
    return pooled_ratio_interval([(numerator, denominator)], confidence, seed)


def pooled_ratio_interval(
    pairs: Sequence[tuple[Sequence[float], Sequence[float]]], confidence: float = CONFIDENCE, seed: int = 0
) -> Interval:
    """Median over repeats of the ratio that is taken inside each repeat, where both sides shared one allocation.

    Parameters
    ----------
    pairs : sequence of (numerator, denominator)
        The samples of both sides, a pair for each repeat.
    """
    pairs = [(_checked(above, confidence), _checked(below, confidence)) for above, below in pairs]
    if not pairs:
        raise ValueError("pairs: at least one repeat is needed, got none")
    point = float(np.median([np.median(above) / np.median(below) for above, below in pairs]))
    if len(pairs) == 1 and min(map(len, pairs[0])) == 1:
        return Interval(point, 0.0, float("inf"))
    rng = np.random.default_rng(seed)
    ratios = np.array([_bootstrap_medians(above, rng) / _bootstrap_medians(below, rng) for above, below in pairs])
    return _interval(point, _resample_repeats(ratios, rng), confidence)


def ratio_of_pools(
    numerators: Sequence[Sequence[float]],
    denominators: Sequence[Sequence[float]],
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> Interval:
    """Ratio of two medians over repeats that have nothing in common: other runs, other machines.

    Each side is pooled as in :func:`pooled_interval`, independently of the other.
    """
    sides = [[_checked(group, confidence) for group in groups] for groups in (numerators, denominators)]
    if not all(sides):
        raise ValueError("numerators, denominators: at least one repeat of each is needed")
    rng = np.random.default_rng(seed)
    (above, many_above), (below, many_below) = (_pool(groups, rng) for groups in sides)
    if any(len(groups) == 1 and len(groups[0]) == 1 for groups in sides):
        return Interval(above / below, 0.0, float("inf"))
    return _interval(above / below, many_above / many_below, confidence)


def outliers(samples: Sequence[float]) -> np.ndarray:
    """Which samples lie far from the median, as booleans: modified z-score over :data:`OUTLIER_SCORE`."""
    values = np.asarray(samples, dtype=np.float64)
    if len(values) < 3:
        return np.zeros(len(values), dtype=bool)
    distance = np.abs(values - np.median(values))
    spread = np.median(distance)
    if spread == 0.0:
        return distance > 0.0
    return 0.6745 * distance / spread > OUTLIER_SCORE


def _checked(samples: Sequence[float], confidence: float) -> np.ndarray:
    values = np.asarray(samples, dtype=np.float64)
    if values.ndim != 1 or len(values) == 0:
        raise ValueError(f"samples: at least one number is needed, got shape {values.shape}")
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence: {confidence} is not between 0 and 1")
    return values


def _bootstrap_medians(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.median(values[rng.integers(len(values), size=(RESAMPLES, len(values)))], axis=1)


def _pool(groups: Sequence[np.ndarray], rng: np.random.Generator) -> tuple[float, np.ndarray]:
    """The median of the groups' medians, and its bootstrap distribution."""
    table = np.array([_bootstrap_medians(group, rng) for group in groups])
    return float(np.median([np.median(group) for group in groups])), _resample_repeats(table, rng)


def _resample_repeats(table: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Median over as many repeats (rows) as there are, drawn with replacement, for every resample (column)."""
    chosen = rng.integers(len(table), size=table.shape)
    return np.median(table[chosen, np.arange(table.shape[1])], axis=0)


def _interval(median: float, medians: np.ndarray, confidence: float) -> Interval:
    tail = 50.0 * (1.0 - confidence)
    low, high = np.percentile(medians, [tail, 100.0 - tail])
    return Interval(median, float(low), float(high))
