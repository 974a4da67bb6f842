"""The plan: every point before anything runs, with what it will cost and what can't be measured, and why."""

from __future__ import annotations

import csv
import io
from dataclasses import astuple, dataclass, fields

from streaming_attention import models
from streaming_attention.campaign.config import Campaign, ConfigError
from streaming_attention.campaign.point import Point, predict_seconds
from streaming_attention.campaign.scaling.nominal import call_cost, call_seconds
from streaming_attention.registry import Choice

_SHOWN = ("workload", "queries", "keys", "heads", "layout", "repeat", "methods", "seconds")


@dataclass(frozen=True)
class Row:
    """A point of the plan; the fields are the columns of ``plan.csv``.

    Labels of methods are joined by ``; ``; ``reasons`` are ``label: reason``, joined alike, and ``calls`` are
    ``label: milliseconds of a call`` with the strategy over several ranks. Sizes are in GiB, times in seconds, and both
    are predictions. A point that is not run costs nothing.
    """

    id: str
    status: str
    sweeps: str
    workload: str
    batch: int
    heads: int
    kv_heads: int
    queries: int
    keys: int
    head_dim: int
    causal: bool
    dtype: str
    nodes: int
    sockets: int
    ranks_per_socket: int
    ranks: int
    threads: int
    binding: str
    repeat: int
    methods: str
    feasible: str
    infeasible: str
    reasons: str
    gflop: float
    tensors_gib: float
    calls: str
    predicted_seconds: float
    core_hours: float


@dataclass(frozen=True)
class Totals:
    """Sums over a plan.

    ``core_hours`` count whole nodes, since a neighbour on the same node would spoil the timing.
    """

    points: int
    measurements: int
    infeasible_points: int
    infeasible_measurements: int
    seconds: float
    longest_seconds: float
    node_hours: float
    core_hours: float

    def __str__(self) -> str:
        return (
            f"{self.points} points with {self.measurements} measurements; "
            f"{self.infeasible_points} points and {self.infeasible_measurements} measurements are infeasible\n"
            f"predicted: {clock(self.seconds)} one after the other, the longest job {clock(self.longest_seconds)}; "
            f"{self.node_hours:.2f} node-hours, {self.core_hours:.2f} core-hours"
        )


@dataclass(frozen=True)
class Plan:
    """The table of a campaign's points.

    Parameters
    ----------
    campaign : Campaign
    rows : tuple of Row
        Points that will run, in order, then those that can't.
    """

    campaign: Campaign
    rows: tuple[Row, ...]

    def totals(self) -> Totals:
        """What the campaign costs in all, one job after the other."""
        planned = [row for row in self.rows if row.status == "planned"]
        asked = sum(len(point.methods) for point in (*self.campaign.points, *self.campaign.infeasible))
        possible = sum(len(self.campaign.feasible(point)) for point in self.campaign.points)
        return Totals(
            points=len(planned),
            measurements=possible,
            infeasible_points=len(self.rows) - len(planned),
            infeasible_measurements=asked - possible,
            seconds=sum(row.predicted_seconds for row in planned),
            longest_seconds=max((row.predicted_seconds for row in planned), default=0.0),
            node_hours=sum(row.predicted_seconds * row.nodes for row in planned) / 3600,
            core_hours=sum(row.core_hours for row in planned),
        )

    def check_budget(self) -> None:
        """Raise where the plan costs more than the config allows.

        Raises
        ------
        ConfigError
            Naming the limit and what the plan needs.
        """
        totals = self.totals()
        needs = {
            "node_hours": totals.node_hours,
            "core_hours": totals.core_hours,
            "job_minutes": totals.longest_seconds / 60,
        }
        for name, limit in self.campaign.budget.items():
            if needs[name] > limit:
                needed, unit = f"{needs[name]:.3g}", name.replace("_", "-")
                where = f"{self.campaign.path}: budget.{name}"
                raise ConfigError(f"{where}: is {limit:g}, but the plan needs {needed} {unit}; nothing was started")

    def to_csv(self) -> str:
        """A header and a line per point."""
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(column.name for column in fields(Row))
        writer.writerows(astuple(row) for row in self.rows)
        return stream.getvalue()

    def to_text(self) -> str:
        """For a terminal: the machine, an aligned table, what can't be measured and why, and the totals."""
        head = [f"Campaign {self.campaign.name} ({self.campaign.path})", f"Machine: {self.campaign.machine}", ""]
        table = _aligned([_SHOWN, *(_shown(row) for row in self.rows)])
        return "\n".join([*head, *table, "", *self._refusals(), str(self.totals())])

    def _refusals(self) -> list[str]:
        """Each reason once, with how many measurements it concerns."""
        counts: dict[str, int] = {}
        for by_label in self.campaign.reasons.values():
            for label, reason in by_label.items():
                line = reason if reason.startswith(label.split()[0]) else f"{label.split()[0]}: {reason}"
                counts[line] = counts.get(line, 0) + 1
        lines = [f"  {count:4d} x {reason}" for reason, count in counts.items()]
        return ["Not measured:", *lines, ""] if lines else []


def make_plan(campaign: Campaign) -> Plan:
    """The plan of a campaign."""
    return Plan(
        campaign,
        tuple(
            [_row(point, campaign, "planned") for point in campaign.points]
            + [_row(point, campaign, "infeasible") for point in campaign.infeasible]
        ),
    )


def clock(seconds: float) -> str:
    """``1:02:03`` for hours, ``2:03 min`` below."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d} h" if hours else f"{minutes}:{rest:02d} min"


def _row(point: Point, campaign: Campaign, status: str) -> Row:
    workload, layout = point.workload, point.layout
    refused = campaign.reasons.get(point.id, {})
    feasible = campaign.feasible(point)
    seconds = round(predict_seconds(point, campaign.protocol, feasible), 1) if feasible else 0.0
    described = workload.as_dict() | layout.as_dict()
    return Row(
        id=point.id,
        status=status,
        sweeps="; ".join(campaign.origins[point.id]),
        workload=described.pop("name"),
        **described,
        ranks=layout.ranks,
        repeat=point.repeat,
        methods="; ".join(point.labels),
        feasible="; ".join(feasible),
        infeasible="; ".join(refused),
        reasons="; ".join(f"{label}: {reason}" for label, reason in refused.items()),
        gflop=models.flops(workload) / 1e9,
        tensors_gib=round(models.tensor_bytes(workload) / 2**30, 6),
        calls="; ".join(_call(point, choice) for choice in point.methods if choice.label in feasible),
        predicted_seconds=seconds,
        core_hours=round(seconds * layout.nodes * campaign.machine.cores_per_node / 3600, 6),
    )


def _call(point: Point, choice: Choice) -> str:
    """What one call of a method should take."""
    milliseconds = f"{choice.label}: {1e3 * call_seconds(point.workload, choice, point.layout):.3g} ms"
    if point.layout.ranks == 1:
        return milliseconds
    return f"{milliseconds} ({call_cost(point.workload, choice, point.layout)[0]})"


def _shown(row: Row) -> tuple[str, ...]:
    heads = f"{row.heads}" if row.heads == row.kv_heads else f"{row.heads}/{row.kv_heads}"
    layout = f"{row.nodes}x{row.sockets}x{row.ranks_per_socket}x{row.threads}"
    methods = row.feasible or "none can run"
    mask = " causal" if row.causal else ""
    return (
        f"{row.workload}{mask}",
        str(row.queries),
        str(row.keys),
        heads,
        layout,
        str(row.repeat),
        methods,
        f"{row.predicted_seconds:.0f}",
    )


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    """Columns padded to their widest entry."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
