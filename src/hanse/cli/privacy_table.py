"""Privacy as tables: what a run has spent, and what a job would spend."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from hanse.core.units import plural
from hanse.report.privacy import account_in_words, epsilon_in_words, epsilon_line, protection_in_words, spent_in_words
from hanse.rounds.privacy.settled import ExampleClaim, SettledPrivacy
from hanse.rounds.privacy.spending import PrivacyAccount


def privacy_table(account: PrivacyAccount) -> RenderableType:
    """What a run has spent after some of its rounds, the last among them."""
    if not account.by_round:
        return Text("nothing was released yet")
    table = Table(box=box.SIMPLE_HEAD, header_style="dim")
    for head in ("round", "ε"):
        table.add_column(head, justify="right", no_wrap=True)
    for number, spent in account.by_round.items():
        table.add_row(f"{number:,}" if number else "all", epsilon_in_words(spent.epsilon, ".4f"))
    note = f"{protection_in_words(account)} {account_in_words(account)}"
    return Group(Text(spent_in_words(account), style="bold"), table, Text(note, style="dim"))


def spent_lines(account: PrivacyAccount) -> list[tuple[str, str]]:
    """What a run has spent, as lines of its summary."""
    if not account.by_round:
        return [("privacy", "nothing was released yet")]
    by_rounds = epsilon_line(account)
    told = spent_in_words(account).removesuffix(".") + (f"; by rounds: {by_rounds}" if by_rounds else "")
    return [("privacy", told), ("protected", protection_in_words(account))]


def spent_cell(account: PrivacyAccount | None) -> str:
    """What a run has spent, for a column; a dash where it promises nothing."""
    if account is None or not account.by_round:
        return "–"
    return epsilon_in_words(account.by_round[max(account.by_round)].epsilon, ".4g")


def told_apart(accounts: Iterable[PrivacyAccount | None]) -> str:
    """Why the ε of several runs can't be compared, in a sentence; empty where they can."""
    spent = [account for account in accounts if account is not None and account.by_round]
    differing: dict[str, set[Any]] = {
        "who is protected": {account.unit for account in spent},
        "from whom": {(account.local, account.shares) for account in spent},
        "δ": {account.delta for account in spent},
        "what neighbours are": {account.by_round[max(account.by_round)].neighbours for account in spent},
    }
    named = [what for what, found in differing.items() if len(found) > 1]
    return f"These runs' ε can't be compared, as they differ in {', '.join(named)}." if named else ""


def planned_lines(settled: SettledPrivacy) -> list[tuple[str, str]]:
    """What a job would spend, as lines of `hanse check`."""
    lines = [("noise", _noise(settled))]
    curve = settled.curve()
    if not curve:
        return [*lines, ("privacy", "no delta to tell epsilon at: give [privacy] a budget, or delta")]
    told = ", ".join(f"{epsilon_in_words(epsilon)} after {number:,}" for number, epsilon in curve)
    budget = "" if settled.budget is None else f"; the budget is {settled.budget}"
    at = "" if settled.delta is None else f" at δ = {settled.delta:g}"
    once = ", charged once for all of them" if settled.factorisation is not None else ""
    whom = ", of one client's reports, whoever reads them" if settled.local else ""
    if settled.examples is not None:
        whom = ", of one example, towards everybody but its client"
    if settled.needs_secure_sum:
        whom = ", towards whoever sees sums alone; not towards the server, which the plain `sum` shows each reply"
    lines.append(("privacy", f"ε{at} by rounds: {told}{once}{whom}{budget}"))
    return lines if settled.examples is None else [*lines, ("costs most", _costliest(settled.examples))]


def _costliest(claim: ExampleClaim) -> str:
    """Whose examples it costs most, and how far from the least that is."""
    steps = claim.steps
    told = (
        f"client `{claim.client}`, with {plural(steps.num_examples, 'example')}: each is in a batch with probability "
        f"{steps.rate:.4g}, in {plural(steps.steps, 'step')} a round"
    )
    if claim.every > 1:
        told += f" of every {claim.every:,}"
    if claim.most is None or claim.least is None:
        return told
    if claim.least < 0.995 * claim.most:
        told += f"; ε is {claim.most:.3g} there, and {claim.least:.3g} at the client that it costs least"
    return told


def _noise(settled: SettledPrivacy) -> str:
    noise = settled.noise_multiplier
    hidden = settled.pipeline.example_privacy
    if hidden is not None:
        return (
            f"multiplier {noise:.4g}, added by each client in each of its steps: standard deviation "
            f"{noise * hidden.clip_norm:.4g} on a batch's sum of gradients, each clipped to {hidden.clip_norm:g}"
        )
    if settled.local:
        return f"multiplier {noise:.4g}, added by each client to its own report"
    clip: Any = settled.pipeline.clipping
    scale = noise * clip.sensitivity
    if settled.shares is not None:
        stage: Any = settled.pipeline.stages[-1]
        n, cohort = settled.settings.min_clients, settled.pipeline.aggregator.expected  # type: ignore[attr-defined]
        return (
            f"multiplier {noise:.4g} in shares of clients, {n} of {cohort:g} of them sure: standard deviation "
            f"{scale:.4g} on the sum, for a clip of {clip.sensitivity:g}; whole numbers of {stage.bits} bits, in units "
            f"of {stage.granularity:.3g}"
        )
    if settled.factorisation is None:
        return f"multiplier {noise:.4g}: standard deviation {scale:.4g} on the sum, for a clip of {clip.sensitivity:g}"
    limits, last = settled.factorisation.event(noise), settled.factorisation.prefix_variances()[-1]
    return (
        f"multiplier {noise:.4g} on fresh noise, for a clip of {clip.sensitivity:g}: standard deviation "
        f"{scale * math.sqrt(last):.4g} on the sum of all rounds. A client takes part at most "
        f"{plural(limits.participations, 'time')}, each {plural(limits.min_separation, 'round')} or more after the last"
    )
