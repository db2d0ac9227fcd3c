"""The report's sections on who stood out among clients, and on an attack that was simulated."""

from __future__ import annotations

import math

from hanse.core.units import MISSING, format_metric, plural
from hanse.plots.attack import draw_attack
from hanse.plots.standouts import MOST_CLIENTS, draw_scores, draw_standouts
from hanse.report.picture import picture
from hanse.report.section import Section, Table
from hanse.rounds.attack_words import attack_in_words, hostile_clients
from hanse.rounds.history import History, RunRecord
from hanse.rounds.standouts import Standing, judged, scored, standouts_in_words

MOST_ROWS = 400
"""So many clients get a row of their own."""
_MOST_OPENED = 40

_SCORES = (("norm", "Norm"), ("direction", "Direction"), ("likeness", "Likeness"), ("loss", "Loss"))
_MEANING = (
    "Each update is compared with the others of its round. Norm: its length in median lengths. Direction: its cosine "
    "to the median update. Likeness: its largest cosine to another client's. "
)
_LOSS = "Loss: of the model that it is added to, on the server's examples, minus the median client's. "
_CARE = "Standing out is no proof of bad intent: an honest client whose data are unlike all others' may do so too."


def standouts_section(run: RunRecord) -> Section | None:
    """Who stood out; None where no update was scored.

    Args:
      run: The run.
    """
    standings = judged(run.history)
    if not scored(standings):
        return None
    hostile = hostile_clients(run)
    lossy = any("loss" in one.means for one in standings)
    cut = f" The first picture has the {MOST_CLIENTS} most conspicuous ones." if len(standings) > MOST_CLIENTS else ""
    text = (f"{_MEANING}{_LOSS if lossy else ''}Figures are means over rounds.", f"{_CARE}{cut}")
    return Section(
        name="standouts",
        title="Who stood out",
        lead=f"{standouts_in_words(standings)}.",
        text=((_found(standings, hostile), *text) if hostile else text),
        plots=(
            picture(draw_standouts(run.history, hostile=hostile), "standouts"),
            picture(draw_scores(standings), "scores", titled=True),
        ),
        tables=_tables(standings, hostile),
    )


def attack_section(run: RunRecord) -> Section | None:
    """What a simulated attack came to; None where all were honest.

    Args:
      run: The run.
    """
    told = attack_in_words(run.job, run.history)
    if not told:
        return None
    success = {record.round: record.attack["success"] for record in run.history.rounds if "success" in record.attack}
    text = "The attack is part of the simulation: the job asks for it in its table [attack]."
    if not success:
        return Section(name="attack", title="Simulated attack", lead=f"{told}.", text=(text,))
    meaning = "The trigger works where the model takes an example with it for what the attacker wants."
    return Section(
        name="attack",
        title="Simulated attack",
        lead=f"{told}.",
        text=(f"{text} {meaning}",),
        plots=(picture(draw_attack(run.history), "attack", titled=True),),
        tables=(_success_table(run.history, success),),
    )


def _found(standings: tuple[Standing, ...], hostile: frozenset[str]) -> str:
    """How many of those whom the simulation has attack were found, and how many others were taken for one."""
    out = {one.client for one in standings if one.stood_out}
    others = len(out - hostile)
    told = f"Of {plural(len(hostile), 'client')} that the simulation has attack, {len(out & hostile):,} stood out"
    return f"{told}; so did {plural(others, 'honest one') if others else 'no honest one'}."


def _tables(standings: tuple[Standing, ...], hostile: frozenset[str]) -> tuple[Table, ...]:
    """Why clients stood out, and everybody's scores."""
    shown = standings[:MOST_ROWS]
    out = [one for one in shown if one.stood_out]
    reasons = Table(
        caption="Why they stood out",
        head=("Client", *_truly_head(hostile), "Stood out", "In rounds", "Not asked since", "Why, the last time"),
        rows=tuple(
            (
                one.client,
                *_truly(one, hostile),
                f"{len(one.flagged):,}" if one.flagged else "",
                _from_to(one.flagged),
                "" if one.left_out is None else f"{one.left_out + 1:,}",
                one.reason,
            )
            for one in out
        ),
        words=frozenset({0, 4 + bool(hostile)}),
        opened=len(out) <= _MOST_OPENED,
    )
    scores = [(name, head) for name, head in _SCORES if any(name in one.means for one in standings)]
    weighed = any(one.weight is not None for one in standings)
    cut = f" (the first {MOST_ROWS:,} of {len(standings):,})" if len(standings) > MOST_ROWS else ""
    everybody = Table(
        caption=f"Each client's scores, the most conspicuous first{cut}",
        head=("Client", *_truly_head(hostile), "Judged", *(title for _, title in scores), *["Weight"] * weighed),
        rows=tuple(
            (
                one.client,
                *_truly(one, hostile),
                f"{one.judged:,}",
                *(_figure(one.means.get(name)) for name, _ in scores),
                *[MISSING if one.weight is None else f"{100 * one.weight:.1f} %"] * weighed,
            )
            for one in shown
        ),
        opened=len(standings) <= _MOST_OPENED,
        strong=frozenset((row, 0) for row, one in enumerate(shown) if one.stood_out),
    )
    return (reasons, everybody) if out else (everybody,)


def _truly_head(hostile: frozenset[str]) -> tuple[str, ...]:
    return ("Truly",) if hostile else ()


def _truly(one: Standing, hostile: frozenset[str]) -> tuple[str, ...]:
    return ("hostile" if one.client in hostile else "honest",) if hostile else ()


def _from_to(rounds: tuple[int, ...]) -> str:
    if len(rounds) < 2:
        return "".join(f"{at:,}" for at in rounds)
    return f"{rounds[0]:,} to {rounds[-1]:,}"


def _figure(value: float | None) -> str:
    if value is None or math.isnan(value):
        return MISSING
    return f"{value:.3g}".replace("-", "−") if abs(value) >= 100 else f"{value:.2f}".replace("-", "−")


def _success_table(history: History, success: dict[int, float]) -> Table:
    members = {record.round: record.attack.get("members") for record in history.rounds}
    step = -(-len(success) // MOST_ROWS)
    shown = [at for i, at in enumerate(success) if i % step == 0 or at == max(success)]
    return Table(
        caption="By round" if step == 1 else f"One round in {step:,}, and the last",
        head=("Round", "Hostile clients", "Trigger works"),
        rows=tuple(
            (f"{at:,}", "" if members[at] is None else f"{members[at]:,.0f}", format_metric("accuracy", success[at]))
            for at in shown
        ),
    )
