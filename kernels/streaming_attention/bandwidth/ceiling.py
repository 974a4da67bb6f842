"""A ceiling that is ready to be measured: callable, and able to say how wrong its result is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Ceiling:
    """One call of a bandwidth or compute kernel, and the check of what it left behind.

    Parameters
    ----------
    run : callable
        Computes once; any number of calls leave the same result.
    error : callable
        Relative error of the result after at least one call; NaN or infinite where the result is worthless.
    tolerance : float
        The largest error that rounding explains.
    close : callable
        Gives back what the kernel holds beyond memory.
    """

    run: Callable[[], None]
    error: Callable[[], float]
    tolerance: float
    close: Callable[[], None] = lambda: None

    def __call__(self) -> None:
        self.run()
