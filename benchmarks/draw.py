"""Draw docs/images from the CSV files in docs/measured, which the other benchmarks wrote with --csv.

    python benchmarks/draw.py

Each file has the columns that its benchmark prints; a run adds rows, the last of equal ones counts.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd

matplotlib.use("Agg")
import matplotlib.pyplot as plt

DOCS = Path(__file__).parent.parent / "docs"
COLUMNS = {
    "peers": ["storage", "row", "threads", "peer", "ratio"],
    "prefill": ["storage", "case", "threads", "contender", "gflops", "share", "bar"],
}
COLOURS = {"torch": "#D55E00", "OpenVINO": "#0072B2", "ONNX Runtime": "#009E73", "NumPy": "#777777"}
HATCHES = {"torch": "", "OpenVINO": "//", "ONNX Runtime": "..", "NumPy": "xx"}


def load(name: str) -> pd.DataFrame:
    keys = COLUMNS[name][:4]
    return pd.read_csv(DOCS / "measured" / f"{name}.csv", names=COLUMNS[name]).drop_duplicates(keys, keep="last")


def save(figure, name: str) -> None:
    matplotlib.rcParams["svg.hashsalt"] = name
    figure.savefig(DOCS / "images" / f"{name}.svg", metadata={"Date": None}, bbox_inches="tight")


def draw_peers() -> None:
    """Time of every peer over ours: a bar each, by row of the benchmark, a panel for each number of threads."""
    table = load("peers")
    table["peer"] = table["peer"].str.replace(r" (MHA|GQA)$", "", regex=True)
    best = table.groupby(["storage", "row", "threads", "peer"], sort=False)["ratio"].min().reset_index()
    counts = sorted(map(int, best["threads"].unique()))
    figure, axes = plt.subplots(1, len(counts), figsize=(5.6 * len(counts), 6.4), sharey=True, squeeze=False)
    for axis, threads in zip(axes[0], counts, strict=True):
        _draw_ratios(axis, best[best["threads"] == threads])
        axis.set_title(f"{threads} thread{'s'[: threads > 1]}", loc="left", size=10)
    axes[0][0].invert_yaxis()
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="upper center", ncols=len(labels), frameon=False)
    save(figure, "peers")


def _draw_ratios(axis, table: pd.DataFrame) -> None:
    rows = list(dict.fromkeys(zip(table["storage"], table["row"], strict=True)))
    height = 0.8 / len(COLOURS)
    for place, (peer, colour) in enumerate(COLOURS.items()):
        some = table[table["peer"] == peer]
        at = [rows.index(key) for key in zip(some["storage"], some["row"], strict=True)]
        bars = axis.barh(np.array(at) + (place - 1.5) * height, some["ratio"], height, color=colour, label=peer,
                         hatch=HATCHES[peer], edgecolor="white", linewidth=0.4)  # fmt: skip
        axis.bar_label(bars, [f"{ratio:.1f}" for ratio in some["ratio"]], size=6, padding=2)
    axis.axvline(1, color="black", linewidth=0.8)
    axis.set_xscale("log")
    axis.set_yticks(range(len(rows)), [f"{row} ({storage})" for storage, row in rows], size=8)
    axis.set_xlabel("time of the peer / time of streaming (log)")
    axis.spines[["top", "right"]].set_visible(False)


def draw_prefill() -> None:
    """Share of the peak of the arithmetic by case, ours and torch's, with the bar that was set."""
    table = load("prefill")
    table = table[table["threads"] == 1]
    ours, torch = (table[table["contender"] == name].reset_index(drop=True) for name in ("streaming", "torch"))
    figure, axis = plt.subplots(figsize=(8.5, 3.6))
    at = np.arange(len(ours))
    axis.bar(at - 0.2, 100 * ours["share"], 0.4, color="#0072B2", label="streaming")
    axis.bar(at + 0.2, 100 * torch["share"], 0.4, color="#D55E00", hatch="//", edgecolor="white", label="torch, stock")
    bars = ours["bar"].where(ours["bar"] < 2)
    axis.plot(at - 0.2, 100 * bars, linestyle="", marker="_", markersize=16, color="black", label="aim")
    labels = [f"{row.case} ({row.storage})" for row in ours.itertuples()]
    axis.set_xticks(at, labels, size=8, rotation=30, ha="right", rotation_mode="anchor")
    axis.set_ylabel("% of the peak of the arithmetic")
    axis.set_ylim(0, 100)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, ncols=3, loc="lower right", bbox_to_anchor=(1, 1))
    save(figure, "prefill")


if __name__ == "__main__":
    draw_peers()
    draw_prefill()
