"""What the tables share: a table and its page, and few words for many columns."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from streaming_attention.campaign.words import say_layout, say_length, say_shape


@dataclass(frozen=True, eq=False)
class Table:
    """A table of the report: its rows as data, and the page that shows them."""

    frame: pd.DataFrame
    page: str


def described(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows with what a page shows in place of a dozen columns: ``length``, ``shape`` and ``layout``."""
    rows = frame.to_dict("records")
    return frame.assign(
        length=pd.Series([say_length(row["keys"]) for row in rows], dtype="str"),
        shape=pd.Series([say_shape(row) for row in rows], dtype="str"),
        layout=pd.Series([say_layout(row) for row in rows], dtype="str"),
    )
