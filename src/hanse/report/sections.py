"""What a report says: a run's figures as sections of text, plots and tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from hanse.core.units import (
    format_bytes,
    format_gain,
    format_metric,
    format_seconds,
    plural,
)
from hanse.plots.clients import draw_clients
from hanse.plots.communication import draw_communication
from hanse.plots.comparison import draw_comparison
from hanse.plots.curves import draw_curves
from hanse.plots.partition import Holdings, draw_partition
from hanse.plots.phases import draw_phases
from hanse.plots.spread import spread_of
from hanse.report.clusters import clusters_section
from hanse.report.devices import simulated_time
from hanse.report.personal import personal_section
from hanse.report.picture import picture
from hanse.report.privacy import privacy_section
from hanse.report.section import Section, Table
from hanse.report.standouts import attack_section, standouts_section
from hanse.report.verdict import judge
from hanse.rounds.history import Comparison, History, RoundRecord, RunRecord
from hanse.rounds.privacy.spending import PrivacyAccount
from hanse.rounds.secure_sum import secure_sum_in_words

MOST_ROWS = 400
"""A table with more rows is thinned or cut, and says so."""

_Place = Literal["train", "central", "federated", "personal"]
_PLACES: tuple[_Place, ...] = ("train", "central", "federated", "personal")


def build_sections(run: RunRecord, holdings: Holdings | None, privacy: PrivacyAccount | None = None) -> list[Section]:
    """The sections of a run's report, without those that have nothing to say."""
    history = run.history
    sections = [
        _worth_joining(run.comparison) if run.comparison else None,
        _by_round(history),
        attack_section(run),
        standouts_section(run),
        simulated_time(history),
        privacy_section(privacy) if privacy is not None else None,
        clusters_section(history),
        _over_clients(history),
        personal_section(history),
        _who_holds_what(holdings) if holdings is not None else None,
        _communication(run),
        _phases(history),
        _failures(history),
    ]
    return [section for section in sections if section is not None]


def _worth_joining(comparison: Comparison) -> Section:
    verdict = judge(comparison)
    names = tuple(comparison.columns)
    head = ("Client", "Held out", *(name.capitalize() for name in names), "Gain", "Verdict")
    rows: list[tuple[str, ...]] = []
    strong: set[tuple[int, int]] = set()
    for index, client in enumerate(comparison.clients[:MOST_ROWS]):
        values = [comparison.columns[name][index] for name in names]
        strong |= {(index, 2 + i) for i in best_of(values, comparison.better)}
        ruling = verdict.clients[index] if verdict.clients else None
        gain = format_gain(comparison.metric, ruling.gain if ruling else None)
        cells = [format_metric(comparison.metric, value) for value in values]
        rows.append((client, f"{comparison.num_examples[index]:,}", *cells, gain, ruling.sentence if ruling else ""))
    if comparison.overall:
        overall = [comparison.overall.get(name) for name in names]
        strong |= {(len(rows), 2 + i) for i in best_of(overall, comparison.better)}
        cells = [format_metric(comparison.metric, value) for value in overall]
        gain = format_gain(comparison.metric, verdict.gain)
        rows.append(("All", f"{sum(comparison.num_examples):,}", *cells, gain, ""))
    table = Table(
        caption=_cut(f"{comparison.metric} of each model on each client's held-out examples", len(comparison.clients)),
        head=head,
        rows=tuple(rows),
        words=frozenset({0, len(head) - 1}),
        opened=len(comparison.clients) <= 40,
        strong=frozenset(strong),
    )
    return Section(
        name="worth-joining",
        title="Is it worth joining?",
        lead=verdict.sentence,
        text=(verdict.detail,) if verdict.detail else (),
        plots=(picture(draw_comparison(comparison), "worth-joining"),) if comparison.clients else (),
        tables=(table,),
    )


def _by_round(history: History) -> Section:
    objective = history.objective[0]
    metrics = list(dict.fromkeys([objective, "loss"]))
    title = " and ".join(metrics).replace("_", " ")
    metrics.append(f"robust_{objective}")  # on inputs moved against the model, where that was asked for
    measured = [metric for metric in metrics if any(history.series(metric, where) for where in _PLACES)]
    return Section(
        name="rounds",
        title=f"{title[:1].upper()}{title[1:]} by round",
        text=() if measured else ("Nothing was measured in any round.",),
        plots=tuple(
            picture(draw_curves(history, metric=metric), f"curve-{i}", titled=True) for i, metric in enumerate(measured)
        ),
        tables=(_rounds_table(history, measured),) if history.rounds else (),
    )


def _rounds_table(history: History, metrics: Sequence[str]) -> Table:
    columns: list[tuple[str, Callable[[RoundRecord], str]]] = [("Round", lambda r: f"{r.round:,}")]
    for metric in metrics:
        places = [where for where in _PLACES if where != "personal" or history.has_personal]
        measured = [where for where in places if history.series(metric, where)]
        columns += [(f"{where} {metric}", _metric_cell(metric, where)) for where in measured]
    columns += [
        ("Clients", lambda r: f"{len(r.cohort):,}"),
        ("Failures", lambda r: f"{len(r.failures):,}" if r.failures else ""),
        ("Up", lambda r: format_bytes(r.bytes_up)),
        ("Down", lambda r: format_bytes(r.bytes_down)),
        ("Time", lambda r: format_seconds(sum(r.seconds.values()))),
        ("Note", lambda r: "; ".join(filter(None, ["abandoned" if r.status == "abandoned" else "", r.note]))),
    ]
    step = -(-len(history.rounds) // MOST_ROWS)
    shown = [r for i, r in enumerate(history.rounds) if i % step == 0 or i == len(history.rounds) - 1]
    caption = "Every round" if step == 1 else f"One round in {step:,} of {len(history.rounds):,}, and the last"
    return Table(
        caption=caption,
        head=tuple(name for name, _ in columns),
        rows=tuple(tuple(cell(record) for _, cell in columns) for record in shown),
        words=frozenset({0, len(columns) - 1}),
    )


def _metric_cell(metric: str, where: str) -> Callable[[RoundRecord], str]:
    def cell(record: RoundRecord) -> str:
        values = getattr(record, where)
        return format_metric(metric, values[metric]) if values and metric in values else ""

    return cell


def _over_clients(history: History) -> Section | None:
    scores = history.last_scores()
    if not scores:
        return None
    at = next(record.round for record in reversed(history.rounds) if record.clients)
    objective, better = history.objective
    spread = spread_of(scores, objective, better=better)
    worst_first = {client: i for i, client in enumerate(reversed(spread.clients))}
    order = sorted(scores, key=lambda score: (worst_first.get(score.client, -1), score.client))
    metrics = list(dict.fromkeys([objective, *(name for score in scores for name in score.metrics)]))
    rows = [
        (s.client, f"{s.num_examples:,}", *(format_metric(m, s.metrics.get(m)) for m in metrics))
        for s in order[:MOST_ROWS]
    ]
    lead = ""
    if len(spread.clients) > 1:
        figures = (spread.worst_mean, spread.best_mean, spread.mean, spread.deviation)
        worst, best, mean, deviation = (format_metric(objective, value) for value in figures)
        who = plural(spread.num_worst, "client")
        lead = (
            f"The worst 10 % ({who}) have a mean {objective.replace('_', ' ')} of {worst}, the best 10 % of {best}; "
            f"over all it is {mean}, with a standard deviation of {deviation} over clients."
        )
    return Section(
        name="clients",
        title="Spread over clients",
        lead=lead,
        text=(f"The model after round {at:,}, on each client's own examples; each client counts once.",),
        plots=(picture(draw_clients(scores, objective, better=better), "clients"),) if spread.clients else (),
        tables=(
            Table(
                caption=_cut("Each client, worst first", len(order)),
                head=("Client", "Examples", *(metric.replace("_", " ").capitalize() for metric in metrics)),
                rows=tuple(rows),
            ),
        ),
    )


def _who_holds_what(holdings: Holdings) -> Section:
    sizes = holdings.sizes
    rows = []
    for index, client in list(enumerate(holdings.clients))[:MOST_ROWS]:
        counts = [f"{int(count):,}" for count in holdings.counts[index]] if len(holdings.classes) else []
        rows.append((client, f"{int(sizes[index]):,}", *counts))
    return Section(
        name="holdings",
        title="Who holds what",
        plots=(picture(draw_partition(holdings), "holdings"),) if len(sizes) else (),
        tables=(
            Table(
                caption=_cut("Examples of each client", len(sizes)),
                head=("Client", "All", *(str(name) for name in holdings.classes)),
                rows=tuple(rows),
            ),
        ),
    )


def _communication(run: RunRecord) -> Section | None:
    history = run.history
    if not history.bytes_up and not history.bytes_down:
        return None
    told = secure_sum_in_words(run.job, between_sites=run.between_sites)
    counted = "all that" if told else "the vectors of training: what"
    text: tuple[str, ...] = (
        f"A model of {run.num_parameters:,} parameters. Counted is {counted} the server sent to clients "
        f"({format_bytes(history.bytes_down)}) and what they sent back ({format_bytes(history.bytes_up)}).",
    )
    if told:
        text += (
            f"Updates, and what clients told and measured, were added up by secure sums: {told}. Their messages are "
            "counted where it was. So nothing that was measured is told of a single client.",
        )
    plot = picture(draw_communication(history), "communication")
    return Section(name="communication", title="Bytes up and down", text=text, plots=(plot,))


def _phases(history: History) -> Section | None:
    seconds = history.total_seconds()
    if not seconds:
        return None
    rounds = max(1, sum(record.round > 0 for record in history.rounds))
    ranked = sorted(seconds.items(), key=lambda pair: (-pair[1], pair[0]))
    rows = tuple((phase, format_seconds(value), format_seconds(value / rounds)) for phase, value in ranked)
    table = Table(caption="Wall-clock time by phase", head=("Phase", "In all", "A round"), rows=rows)
    plot = picture(draw_phases(seconds), "phases")
    return Section(name="phases", title="Time by phase", plots=(plot,), tables=(table,))


def _failures(history: History) -> Section | None:
    found: dict[tuple[str, str], list[tuple[int, str]]] = {}
    for record in history.rounds:
        for failure in record.failures:
            found.setdefault((failure.client, failure.kind), []).append((record.round, failure.message))
    notes = [(f"{record.round:,}", _note(record)) for record in history.rounds if _note(record)]
    if not found and not notes:
        return None
    tables: list[Table] = []
    if found:
        ranked = sorted(found.items(), key=lambda item: (-len(item[1]), item[0]))
        rows = [
            (client, kind, f"{len(cases):,}", _some_rounds([at for at, _ in cases]), cases[-1][1])
            for (client, kind), cases in ranked[:MOST_ROWS]
        ]
        head = ("Client", "Kind", "Times", "Rounds", "Last message")
        words = frozenset({0, 1, 3, 4})
        tables.append(
            Table(
                caption=_cut("Failures", len(found)), head=head, rows=tuple(rows), words=words, opened=len(rows) <= 20
            )
        )
    if notes:
        rows_of_notes = tuple(notes[:MOST_ROWS])
        caption = _cut("Notes", len(notes))
        words = frozenset({0, 1})
        tables.append(
            Table(caption=caption, head=("Round", "Note"), rows=rows_of_notes, words=words, opened=len(notes) <= 20)
        )
    count = sum(len(cases) for cases in found.values())
    abandoned = sum(record.status == "abandoned" for record in history.rounds)
    lead = f"{plural(count, 'update')} lost; {plural(abandoned, 'round')} abandoned." if count or abandoned else ""
    text = ("A client that fails costs its own update. A round with too few updates leaves the model as it was.",)
    return Section(
        name="failures", title="Failures and notes", lead=lead, text=text if lead else (), tables=tuple(tables)
    )


def _note(record: RoundRecord) -> str:
    parts = ["abandoned" if record.status == "abandoned" else "", record.note]
    return ": ".join(part for part in parts if part)


def _some_rounds(rounds: Sequence[int]) -> str:
    shown = ", ".join(f"{at:,}" for at in rounds[:8])
    return shown if len(rounds) <= 8 else f"{shown}, … {rounds[-1]:,}"


def best_of(values: Sequence[float | None], better: Literal["max", "min"]) -> set[int]:
    """Positions of the best finite values; empty where fewer than two can be compared.

    >>> sorted(best_of([0.9, None, 0.95, 0.95], "max"))
    [2, 3]
    """
    known = {i: v for i, v in enumerate(values) if v is not None and abs(v) < float("inf")}
    if len(known) < 2:
        return set()
    best = max(known.values()) if better == "max" else min(known.values())
    return {i for i, v in known.items() if v == best}


def headline(run: RunRecord) -> str:
    """The run's result in one sentence."""
    series = run.history.objective_series()
    best = run.history.best_round()
    name, better = run.history.objective
    if best is None:
        return "The model was never evaluated." if not series else f"No round has a finite {name}."
    last = max(series)
    label = name.replace("_", " ").capitalize()
    sentence = f"{label} {format_metric(name, series[last])} after round {last:,}"
    if best != last:
        sentence += f"; the best was {format_metric(name, series[best])}, after round {best:,}"
    first = min(series)
    improved = (series[best] - series[first]) * (1 if better == "max" else -1)
    if first < last and not improved > 0:
        sentence += "; training has not improved on the model it began with"
    return sentence + "."


def _cut(caption: str, total: int) -> str:
    return caption if total <= MOST_ROWS else f"{caption} (the first {MOST_ROWS:,} of {total:,})"
