"""How figures look: one palette, one marker and one line per method; and how a figure becomes a file.

Colours are Okabe and Ito's ("Color universal design", 2008), which colour-blind readers can tell apart; marker and line
differ as well, so that a greyscale print reads the same. Published numbers are open markers on dotted lines.
"""

from __future__ import annotations

import functools
import io
import os
from collections.abc import Iterable
from typing import NamedTuple

import matplotlib as mpl
from matplotlib.figure import Figure

from streaming_attention.campaign.aggregate import write_csv
from streaming_attention.campaign.figures.data import Drawn
from streaming_attention.campaign.files import sha256_of, write_atomically

INK, MUTED, FAINT = "#222222", "#666666", "#d9d9d9"

RC = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": INK,
    "text.parse_math": False,
    "axes.edgecolor": "#888888",
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlepad": 8,
    "axes.axisbelow": True,
    "xtick.color": "#888888",
    "ytick.color": "#888888",
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.markersize": 5.5,
    "svg.fonttype": "path",
    "svg.hashsalt": "streaming-attention",
    "figure.constrained_layout.h_pad": 0.08,
    "figure.constrained_layout.w_pad": 0.08,
}
"""``svg.fonttype: path`` draws the same letters in every browser; a fixed salt gives equal bytes for equal rows."""


class Mark(NamedTuple):
    """Colour, marker and line of one series."""

    color: str
    marker: str
    line: str | tuple


_SPARE = (
    Mark("#CC79A7", "v", (0, (1, 1))),
    Mark("#56B4E9", "P", (0, (5, 1, 1, 1, 1, 1))),
    Mark("#8a6d00", "X", (0, (7, 2))),
    Mark("#7a3e9d", "<", (0, (3, 1))),
    Mark("#E69F00", ">", (0, (4, 1, 1, 1))),
    Mark("#117733", "h", (0, (2, 2))),
    Mark("#882255", "d", (0, (8, 1, 1, 1))),
    Mark("#222222", "p", (0, (1, 2))),
)

MARKS = {
    "naive": Mark("#555555", "s", (0, (4, 2))),
    "gemm": Mark("#D55E00", "^", "-."),
    "streaming": Mark("#0072B2", "o", "-"),
    "torch_sdpa": Mark("#009E73", "D", (0, (2, 1.2))),
    "threads": Mark("#0072B2", "o", "-"),
    "ranks": Mark("#D55E00", "s", (0, (4, 2))),
    "hybrid": Mark("#009E73", "D", "-."),
    "copy": Mark("#555555", "s", (0, (4, 2))),
    "scale": Mark("#CC79A7", "v", (0, (1, 1))),
    "add": Mark("#D55E00", "^", "-."),
    "triad": Mark("#0072B2", "o", "-"),
    "read": Mark("#009E73", "D", (0, (2, 1.2))),
}
"""Marks of the known series; others get a spare one by their order."""


def marks_of(names: Iterable[str]) -> dict[str, Mark]:
    """A mark for every name, known names first in the order of :data:`MARKS`."""
    names = set(names)
    ordered = [name for name in MARKS if name in names]
    strangers = sorted(names - set(MARKS))
    spare = {name: _SPARE[index % len(_SPARE)] for index, name in enumerate(strangers)}
    return {name: MARKS[name] for name in ordered} | spare


def styled(draw):
    """Give a drawing function the house's settings, whatever the caller's are."""

    @functools.wraps(draw)
    def inside(*arguments, **named):
        with mpl.rc_context():
            mpl.rcdefaults()
            mpl.rcParams.update(RC)
            return draw(*arguments, **named)

    return inside


@styled
def render(figure: Figure, **metadata) -> bytes:
    """The figure as SVG; the same figure gives the same bytes, since neither date nor version is in it."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, **metadata})
    figure.set_layout_engine("none")  # laid out once: a second pass would move things by a hair
    return buffer.getvalue()


def save(drawn: Drawn, svg: str | os.PathLike, csv: str | os.PathLike) -> None:
    """Write the figure and its sidecar, each whole or not at all; the figure carries the sidecar's digest."""
    write_csv(drawn.rows, csv)
    write_atomically(svg, render(drawn.figure, Identifier=sha256_of(csv)))
