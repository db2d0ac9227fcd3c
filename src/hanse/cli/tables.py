"""Tables on the terminal: what a run found, runs side by side, and whether joining is worth it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from hanse.cli.privacy_table import spent_cell, spent_lines, told_apart
from hanse.cli.profile_table import profile_table
from hanse.core.units import format_bytes, format_count, format_gain, format_metric, format_seconds, plural
from hanse.plots.spread import Spread, spread_of
from hanse.report.personal import newest_of_both
from hanse.report.sections import best_of, headline
from hanse.report.verdict import judge
from hanse.rounds.attack_words import attack_in_words
from hanse.rounds.history import Comparison, History, RunRecord
from hanse.rounds.landing import landing_of
from hanse.rounds.privacy.spending import PrivacyAccount, account_of
from hanse.rounds.profile import profile_of
from hanse.rounds.robust_words import robust_in_words
from hanse.rounds.secure_sum import secure_sum_in_words
from hanse.rounds.standouts import judged, named_in_short

MOST_CLIENTS = 30
"""So many clients get a row; of more, those with the largest losses and gains."""

_WORST, _DEVIATION = "worst 10 %", "± over clients"
_OWN, _OWN_WORST = "own models", "own worst 10 %"

_STATUS_STYLES = {
    "finished": "green",
    "stopped early": "green",
    "running": "cyan",
    "interrupted": "yellow",
    "failed": "red",
}


def comparison_table(comparison: Comparison) -> RenderableType:
    """Is it worth joining? Each client's models beside each other, the best in bold, and the answer in words.

    Args:
      comparison: One metric under several models.
    """
    verdict = judge(comparison)
    names = tuple(comparison.columns)
    metric = comparison.metric.replace("_", " ")
    table = _table(f"Is it worth joining? ({metric} on held-out examples)")
    _columns(table, "client", "held out", *names, "gain")
    shown = _shown(comparison)
    hidden = len(comparison.clients) - len(shown)
    for position, index in enumerate(shown):
        if hidden and position == len(shown) // 2:
            table.add_row(Text(f"… {plural(hidden, 'client')} between", style="dim"))
        values = [comparison.columns[name][index] for name in names]
        gain = verdict.clients[index].gain if verdict.clients else None
        mark = " *" if verdict.clients and verdict.clients[index].by_chance else ""
        table.add_row(
            Text(comparison.clients[index]),
            format_count(comparison.num_examples[index]),
            *_values(comparison, values),
            _gain_text(comparison.metric, gain, mark),
        )
    if comparison.overall:
        table.add_section()
        overall = [comparison.overall.get(name) for name in names]
        table.add_row(
            Text("all", style="bold"),
            format_count(sum(comparison.num_examples)),
            *_values(comparison, overall),
            _gain_text(comparison.metric, verdict.gain, ""),
        )
    parts: list[RenderableType] = [table, Padding(Text(verdict.sentence, style="bold"), (0, 1))]
    if verdict.detail:
        parts.append(Padding(Text(verdict.detail), (0, 1)))
    if any(verdict.clients[index].by_chance for index in shown if verdict.clients):
        parts.append(Padding(Text("* so few held-out examples could show this by chance", style="dim"), (0, 1)))
    return Group(*parts)


def runs_table(runs: Sequence[RunRecord]) -> RenderableType:
    """The runs of a folder, one row each (`hanse runs`).

    Args:
      runs: In the order to show them.
    """
    if not runs:
        return Text("no runs yet; `hanse run job.toml` makes one", style="dim")
    rows = [
        (
            Text(run.name),
            _status(run),
            _rounds(run),
            Text(run.history.objective[0].replace("_", " ")),
            _last(run),
            _best(run),
            format_seconds(run.seconds),
            Text(run.started[:16].replace("T", " ")),
        )
        for run in runs
    ]
    heads = ("name", "status", "rounds", "objective", "last", "best (round)", "time", "started")
    return _Fitted(heads, rows, words=("name", "status", "objective", "started"), drop=("started", "time", "objective"))


def run_summary(run: RunRecord, *, privacy: PrivacyAccount | None = None) -> RenderableType:
    """What a run found (`hanse show`): headline, figures, worst clients, and whether joining is worth it.

    Args:
      run: The run.
      privacy: What it has spent, where it promises any.
    """
    failures = sum(len(record.failures) for record in run.history.rounds)
    abandoned = sum(record.status == "abandoned" for record in run.history.rounds)
    facts: list[tuple[str, str | Text]] = [
        ("rounds", _rounds(run) + (f", {plural(abandoned, 'round')} abandoned" if abandoned else "")),
        ("clients", format_count(run.num_clients)),
        ("updates lost", format_count(failures)),
        ("parameters", format_count(run.num_parameters)),
        ("sent", f"{format_bytes(run.history.bytes_up)} up, {format_bytes(run.history.bytes_down)} down"),
        ("time", format_seconds(run.seconds) + _phases(run)),
        *_simulated(run),
        ("model SHA-256", run.model_sha256 or "none yet"),
        ("kept in", run.path or "memory"),
    ]
    spread = _spread(run.history)
    if len(spread.clients) > 1:
        name = run.history.objective[0]
        worst = f"{format_metric(name, spread.worst_mean)} ({', '.join(spread.worst_clients[:3])}"
        worst += ", …)" if spread.num_worst > 3 else ")"
        mean, deviation = (format_metric(name, value) for value in (spread.mean, spread.deviation))
        told = f"{name.replace('_', ' ')} {worst}; mean over clients {mean}, deviation {deviation}"
        facts.insert(3, ("worst 10 %", told))
    both = newest_of_both(run.history)
    if both:
        facts.insert([label for label, _ in facts].index("updates lost"), ("personal", both))
    landing = landing_of(run.history)
    if landing is not None:
        facts.insert(2, ("landed", landing.sentence))
    secure = secure_sum_in_words(run.job, between_sites=run.between_sites)
    if secure:
        facts.insert([label for label, _ in facts].index("time"), ("secure sum", secure))
    attack = attack_in_words(run.job, run.history)
    if attack:
        facts.insert([label for label, _ in facts].index("updates lost"), ("attack", attack))
    out = named_in_short(judged(run.history))
    if out:
        facts.insert([label for label, _ in facts].index("updates lost"), ("stood out", out))
    robust = robust_in_words(run.history)
    if robust:
        facts.insert([label for label, _ in facts].index("updates lost"), ("inputs moved", robust))
    if privacy is not None:
        at = [label for label, _ in facts].index("time")
        facts[at:at] = spent_lines(privacy)
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for label, value in facts:
        grid.add_row(label, value if isinstance(value, Text) else Text(value))
    title = Text.assemble((run.name, "bold"), "  ", _status(run))
    parts: list[RenderableType] = [title, Text(headline(run)), Text(""), grid]
    if run.comparison is not None:
        parts += [Text(""), comparison_table(run.comparison)]
    profile = profile_of(run.history)
    if profile is not None:
        parts += [Text(""), profile_table(profile)]
    return Group(*parts)


def compare_table(runs: Sequence[RunRecord]) -> RenderableType:
    """Several runs side by side (`hanse compare`), the best of each column in bold.

    Runs with different objectives are each shown with their own, and none of them is best. Where clients of any run
    have models of their own, columns say how these did: over all examples, and at the worst tenth of the clients.

    Args:
      runs: Two or more.
    """
    objectives = {run.history.objective for run in runs}
    same = len(objectives) == 1
    name = next(iter(objectives))[0].replace("_", " ") if same else "objective"
    lasts = best_of([_last_value(run) for run in runs], next(iter(objectives))[1]) if same else set()
    bests = best_of([_best_value(run) for run in runs], next(iter(objectives))[1]) if same else set()
    accounts = [account_of(run, points=2) for run in runs]
    private = any(account is not None and account.by_round for account in accounts)
    spreads = [_spread(run.history) for run in runs]
    spread_out = any(len(spread.clients) > 1 for spread in spreads)
    worsts = best_of([spread.worst_mean for spread in spreads], next(iter(objectives))[1]) if same else set()
    owns = [_own_cells([run.history for run in runs], i) for i in range(len(runs))] if any(map(_has_own, runs)) else []
    clocked = any(_simulated(run) for run in runs)
    rows: list[tuple[RenderableType, ...]] = []
    for index, run in enumerate(runs):
        own = "" if same else f" {run.history.objective[0].replace('_', ' ')}"
        rows.append(
            (
                Text(run.name),
                _status(run),
                _rounds(run),
                Text(_last(run) + own, style="bold" if index in lasts else ""),
                Text(_best(run), style="bold" if index in bests else ""),
                *(_spread_cells(spreads[index], best=index in worsts) if spread_out else []),
                *(owns[index] if owns else []),
                format_bytes(run.history.bytes_up),
                format_bytes(run.history.bytes_down),
                format_seconds(run.seconds),
                *([cell for _, cell in _simulated(run)] or [""] if clocked else []),
                *([spent_cell(accounts[index])] if private else []),
            )
        )
    heads = ["name", "status", "rounds", f"last {name}", "best (round)"]
    heads += [_WORST, _DEVIATION] if spread_out else []
    heads += [_OWN, _OWN_WORST] if owns else []
    heads += ["up", "down", "time"] + (["simulated"] if clocked else []) + (["ε"] if private else [])
    table = _Fitted(
        heads, rows, words=("name", "status"), drop=("time", "down", _DEVIATION, "status", _WORST, _OWN_WORST)
    )
    notes = [] if same else ["These runs have different objectives, so none is called the best."]
    notes += [note for note in [told_apart(accounts)] if note]
    return Group(table, *(Text(note, style="dim") for note in notes)) if notes else table


def _has_own(run: RunRecord) -> bool:
    return run.history.objective[0] in (run.history.last_personal() or {})


def _own_cells(histories: Sequence[History], index: int) -> list[RenderableType]:
    """How clients' own models did, after the newest round that measured them."""
    same = len({history.objective for history in histories}) == 1
    name, better = histories[index].objective
    means = [(history.last_personal() or {}).get(name) for history in histories]
    worsts = [spread_of(h.last_personal_scores(), h.objective[0], better=h.objective[1]).worst_mean for h in histories]
    cells: list[RenderableType] = []
    for values in (means, worsts):
        value, best = values[index], best_of(values, better) if same else set()
        known = value is not None and not math.isnan(value)
        cells.append(Text(format_metric(name, value) if known else "", style="bold" if index in best else ""))
    return cells


def _spread(history: History) -> Spread:
    name, better = history.objective
    return spread_of(history.last_scores(), name, better=better)


def _spread_cells(spread: Spread, *, best: bool) -> list[RenderableType]:
    """The worst tenth of the clients, and the deviation over all, after the newest round that measured them."""
    if len(spread.clients) < 2:
        return [Text(""), Text("")]
    worst, deviation = (format_metric(spread.metric, value) for value in (spread.worst_mean, spread.deviation))
    return [Text(worst, style="bold" if best else ""), Text(deviation)]


def fitted_table(
    heads: Sequence[str], rows: Sequence[Sequence[RenderableType]], *, words: Sequence[str], drop: Sequence[str]
) -> RenderableType:
    """A table that leaves columns out where the terminal is too narrow, rather than squeeze the names.

    Args:
      heads: Of the columns.
      rows: A cell for each column.
      words: Heads of the columns of words, which stand at the left.
      drop: Heads of the columns that may go, the first one first.
    """
    return _Fitted(heads, rows, words=words, drop=drop)


class _Fitted:
    """See `fitted_table`."""

    def __init__(
        self,
        heads: Sequence[str],
        rows: Sequence[Sequence[RenderableType]],
        *,
        words: Sequence[str],
        drop: Sequence[str],
    ) -> None:
        self._heads = heads
        self._rows = rows
        self._words = words
        self._drop = drop

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        wide = options.update(max_width=10_000)
        for gone in range(len(self._drop) + 1):
            table = self._without(self._drop[:gone])
            if Measurement.get(console, wide, table).maximum <= options.max_width:
                break
        yield table

    def _without(self, gone: Sequence[str]) -> Table:
        kept = [index for index, head in enumerate(self._heads) if head not in gone]
        table = _table("")
        heads = [self._heads[index] for index in kept]
        _columns(table, *heads, words=[at for at, head in enumerate(heads) if head in self._words])
        for row in self._rows:
            table.add_row(*(row[index] for index in kept))
        return table


def _table(title: str) -> Table:
    return Table(
        title=Text(title, style="bold") if title else None,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        header_style="dim",
        pad_edge=True,
    )


def _columns(table: Table, *heads: str, words: Sequence[int] = (0,)) -> None:
    for index, head in enumerate(heads):
        table.add_column(
            Text(head),
            justify="left" if index in words else "right",
            overflow="fold",
            no_wrap=index > 0,
            min_width=12 if index == 0 else None,
        )


def _shown(comparison: Comparison) -> list[int]:
    """All clients of a few; of many, the two ends when sorted by gain."""
    count = len(comparison.clients)
    if count <= MOST_CLIENTS:
        return list(range(count))
    verdict = judge(comparison)
    if not verdict.clients:
        return list(range(MOST_CLIENTS))
    order = sorted(range(count), key=lambda index: (_finite(verdict.clients[index].gain), index))
    half = MOST_CLIENTS // 2
    return order[:half] + order[-half:]


def _finite(gain: float) -> float:
    """The gain to sort by; clients without one go to the middle, which is not shown."""
    return gain if math.isfinite(gain) else 0.0


def _values(comparison: Comparison, values: Sequence[float | None]) -> list[Text]:
    best = best_of(values, comparison.better)
    return [
        Text(format_metric(comparison.metric, value), style="bold" if index in best else "")
        for index, value in enumerate(values)
    ]


def _gain_text(metric: str, gain: float | None, mark: str) -> Text:
    text = format_gain(metric, gain)
    style = "green" if text.startswith("+") else "red" if text.startswith("−") else "dim"
    return Text(text + (mark or "  "), style=style)


def _status(run: RunRecord) -> Text:
    return Text(run.status, style=_STATUS_STYLES.get(run.status, ""))


def _rounds(run: RunRecord) -> str:
    done = run.history.last.round if run.history.last else 0
    return f"{done:,}" if done == run.rounds_planned else f"{done:,}/{run.rounds_planned:,}"


def _last_value(run: RunRecord) -> float | None:
    series = run.history.objective_series()
    return series[max(series)] if series else None


def _best_value(run: RunRecord) -> float | None:
    at = run.history.best_round()
    return None if at is None else run.history.objective_series()[at]


def _last(run: RunRecord) -> str:
    return format_metric(run.history.objective[0], _last_value(run))


def _best(run: RunRecord) -> str:
    at = run.history.best_round()
    text = format_metric(run.history.objective[0], _best_value(run))
    return text if at is None else f"{text} ({at:,})"


def _phases(run: RunRecord) -> str:
    seconds = run.history.total_seconds()
    top = sorted(seconds.items(), key=lambda pair: (-pair[1], pair[0]))[:3]
    return f" ({', '.join(f'{phase} {format_seconds(value)}' for phase, value in top)})" if top else ""


def _simulated(run: RunRecord) -> list[tuple[str, str | Text]]:
    """How long the run took its devices, where they are simulated."""
    last = run.history.last
    seconds = None if last is None else last.simulated_seconds
    return [] if seconds is None else [("simulated time", format_seconds(seconds))]
