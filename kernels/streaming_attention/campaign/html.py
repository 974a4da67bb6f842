"""Tables as pages of HTML that stand alone: one style, and every value escaped."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping

import pandas as pd

STYLE = """
body { font: 14px/1.45 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; color: #222; margin: 1.5rem; }
h1 { font-size: 1.35rem; margin: 0 0 .3rem; } h2 { font-size: 1.05rem; margin: 1.6rem 0 .4rem; }
p { max-width: 60rem; color: #555; margin: .3rem 0 1rem; }
div { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .28rem .7rem; text-align: left; vertical-align: top; border-bottom: 1px solid #e3e3e3; }
th { position: sticky; top: 0; background: #f6f6f6; font-weight: 600; white-space: nowrap; }
td.number { text-align: right; white-space: nowrap; }
td.short { white-space: nowrap; }
td.long { min-width: 18rem; }
tr:hover td { background: #fafafa; }
td.path { font: 11px/1.6 ui-monospace, "DejaVu Sans Mono", monospace; color: #666; white-space: pre; }
.passed, .faster, .compiled { color: #00684a; } .incorrect, .error, .slower { color: #b00020; font-weight: 600; }
.infeasible, .missing, .timeout, .ambiguous { color: #8a5a00; }
"""

SHORT = 64
"""Columns whose texts are all shorter than this are not wrapped."""

Format = Callable[[object], str]


def page(title: str, *parts: str) -> str:
    """A whole page; ``parts`` are HTML already, as the other functions here return it."""
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{STYLE}</style>'
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head>\n<body>\n<h1>{escape(title)}</h1>\n' + "\n".join(
        (*parts, "</body></html>\n")
    )


def heading(text: str) -> str:
    """A heading within the page."""
    return f"<h2>{escape(text)}</h2>"


def paragraph(text: str) -> str:
    """A paragraph of plain text."""
    return f"<p>{escape(text)}</p>"


def table(
    frame: pd.DataFrame, columns: Mapping[str, str], formats: Mapping[str, Format] | None = None, mark: str = ""
) -> str:
    """A table of the chosen columns.

    Parameters
    ----------
    frame : DataFrame
    columns : mapping of str to str
        Column -> its heading, in order.
    formats : mapping of str to callable, optional
        Column -> value to text; numbers are aligned right and missing ones left empty anyway.
    mark : str
        A column whose value is the class of its cell, so that it is coloured.
    """
    formats = formats or {}
    head = "".join(f"<th>{escape(text)}</th>" for text in columns.values())
    head = f"<thead><tr>{head}</tr></thead>\n" if any(columns.values()) else ""
    kinds = {name: _kind(frame[name], name, name == mark) for name in columns}
    rows = [
        "<tr>" + "".join(_cell(row[name], kinds[name], formats.get(name, str)) for name in columns) + "</tr>"
        for row in frame[list(columns)].to_dict("records")
    ]
    return f"<div><table>\n{head}<tbody>\n" + "\n".join(rows) + "\n</tbody></table></div>"


def escape(value) -> str:
    """Text that is safe anywhere in a page, in attributes too."""
    return html.escape(str(value), quote=True)


def number(digits: int = 3) -> Format:
    """A format with so many significant digits, never an exponent between 1e-3 and 1e7."""

    def write(value) -> str:
        if value == 0 or 1e-3 <= abs(value) < 1e7:
            return f"{value:.{digits}g}" if abs(value) < 10**digits else f"{value:.0f}"
        return f"{value:.{digits - 1}e}"

    return write


def _kind(column: pd.Series, name: str, marked: bool) -> str:
    if marked:
        return "mark"
    if name in ("record", "log"):
        return "path"
    if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
        return "number"
    return "short" if column.astype(str).str.len().max() < SHORT else "long"


def _cell(value, kind: str, write: Format) -> str:
    text = "" if pd.isna(value) else escape(write(value))
    chosen = text if kind == "mark" else kind
    return f'<td class="{chosen}">{text}</td>' if chosen else f"<td>{text}</td>"
