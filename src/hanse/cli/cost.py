"""What a job would cost, as a table."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from hanse.aggregators.hidden_round import SumSizes
from hanse.cli.privacy_table import planned_lines
from hanse.core.units import format_bytes, format_count, format_seconds, plural
from hanse.jobs.cost import Cost
from hanse.rounds.number_sums import SumOfNumbers
from hanse.rounds.privacy.settled import SettledPrivacy


def cost_table(cost: Cost, privacy: SettledPrivacy | None = None) -> Table:
    """A job's cost, a line each; with what it spends of clients' privacy, where it promises any."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    lines = _lines(cost)
    if privacy is not None:
        lines += [*planned_lines(privacy), *_large_delta(cost, privacy)]
    for label, value in lines:
        table.add_row(label, Text(value))
    return table


def _large_delta(cost: Cost, privacy: SettledPrivacy) -> list[tuple[str, str]]:
    """A word on a delta that promises next to nothing: telling all of one unit in n keeps (0, 1/n)-privacy."""
    units, noun = (cost.num_clients, "client") if privacy.unit == "client" else (cost.num_examples, "example")
    if privacy.delta is None or privacy.delta * units < 1:
        return []
    told = f"δ = {privacy.delta:g} is no less than 1 / {units:,}: it would allow telling all about one {noun}"
    return [("take care", f"{told}; take one well below")]


def _lines(cost: Cost) -> list[tuple[str, str]]:
    smallest, median, largest = cost.sizes
    each = f"smallest {smallest:,}, median {median:,.0f}, largest {largest:,}"
    empty = f"; {plural(cost.num_empty, 'client')} without any" if cost.num_empty else ""
    total = (cost.bytes_down + cost.bytes_up) * cost.rounds
    lines = [
        ("rounds", format_count(cost.rounds)),
        ("clients", f"{cost.num_clients:,}, of which {cost.cohort:,.6g} train in a round"),
        ("examples", f"{cost.num_examples:,} to train on; a client: {each}{empty}"),
        ("measured on", _measured_on(cost)),
        ("parameters", _parameters(cost)),
        ("a round sends", f"{format_bytes(cost.bytes_down)} down, {format_bytes(cost.bytes_up)} up"),
        ("the run sends", format_bytes(total)),
        *([("clients keep", _kept(cost))] if cost.bytes_kept else []),
        *([("stages take", f"{_duration(cost.encoding)} of CPU at a client")] if cost.encoding else []),
        ("local steps", f"about {cost.steps:,.0f} in a round"),
        ("memory", f"about {format_bytes(cost.memory)}, beside Python and its packages"),
    ]
    if cost.rule:
        lines.insert(2, ("rule", cost.rule))
    if cost.attack:
        lines.insert(2, ("attack", cost.attack))
    if cost.secure is not None:
        lines.append(("secure sum", _secure(cost.secure, cost.cohort)))
    if cost.secure_times:
        lines.append(("computing it", cost.secure_times))
    lines += [("" if i else "other sums", _numbers(*each)) for i, each in enumerate(cost.numbers)]
    if cost.training:
        lines.append(("training", cost.training))
    if cost.baselines:
        lines.append(("baselines", f"{', '.join(cost.baselines)}: as many rounds again for each"))
    return lines


def _secure(sizes: SumSizes, cohort: float) -> str:
    return (
        f"a client sends {format_bytes(sizes.up)} and is sent {format_bytes(sizes.down)} beside the model, its "
        f"update included; {sizes.told}, and {sizes.survivors:,} of {cohort:,.6g} updates must be in"
    )


def _numbers(given: SumOfNumbers, sizes: SumSizes) -> str:
    what = "what clients measure" if given.purpose == "evaluation" else "statistics of clients' inputs"
    when = "once" if given.purpose == "statistics" else plural(given.times, "time")
    return (
        f"{what}, {when}: each of {plural(given.clients, 'client')} sends {format_bytes(sizes.up)} and is sent "
        f"{format_bytes(sizes.down)}, and {sizes.survivors:,} of them must be in"
    )


def _kept(cost: Cost) -> str:
    each, most = format_bytes(cost.bytes_kept), format_bytes(cost.bytes_kept * cost.num_clients)
    return f"{each} each between rounds; {most} once all have taken part"


def _duration(seconds: float) -> str:
    return format_seconds(seconds) if seconds >= 0.0005 else "under 1 ms"


def _parameters(cost: Cost) -> str:
    if not cost.num_frozen:
        return format_count(cost.num_parameters)
    return f"{format_count(cost.num_parameters)}, and {format_count(cost.num_frozen)} frozen ones that do not travel"


def _measured_on(cost: Cost) -> str:
    parts = ["what clients keep back"] if cost.held_out else []
    parts += [f"{cost.central_test:,} central test examples"] if cost.central_test else []
    return " and ".join(parts) or "nothing: neither examples that clients keep back nor a central test set"
