"""Is it worth joining? The answer in words, computed from a comparison's figures."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from hanse.core.units import MISSING, format_gain, format_metric, is_share, plural
from hanse.rounds.history import Comparison

_Z = 1.96  # two-sided 95 %


@dataclass(frozen=True, kw_only=True)
class ClientVerdict:
    """What joining brings one client.

    Args:
      client: Its id.
      num_examples: Its held-out examples, on which every figure stands.
      gain: Federated against own model, better is positive; NaN where one of them is missing.
      by_chance: The gain is not zero, and so few examples could show it by chance alone.
        Known for accuracies; False for other metrics.
      sentence: The above in words.
    """

    client: str
    num_examples: int
    gain: float
    by_chance: bool
    sentence: str


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What joining brings all of them.

    Args:
      clients: One for each client, in the comparison's order.
      num_gain: Clients with a better model than their own.
      num_lose: Clients with a worse one.
      gain: Over all clients' held-out examples together; NaN where it is not known.
      sentence: The answer, in one sentence.
      detail: What stands behind it; may be empty.
    """

    clients: tuple[ClientVerdict, ...]
    num_gain: int
    num_lose: int
    gain: float
    sentence: str
    detail: str


def judge(comparison: Comparison) -> Verdict:
    """Says whether joining is worth it, for each client and over all.

    A gain is called chance where it lies within the 95 % interval of a difference of two
    shares of n examples each:

        |p - q| <= 1.96 * sqrt((p(1 - p) + q(1 - q)) / (n + 2))

    with p and q the two shares after adding one hit and one miss. Hits of the two models are
    taken as independent; where they agree on most examples, a paired test on the single
    predictions would call fewer gains chance.

    Args:
      comparison: Own and federated models on each client's held-out examples; without one
        of the two columns there is no verdict, and the sentence says so.

    References:
      Agresti, Caffo 2000, The American Statistician 54(4), section 3 (the interval).
    """
    missing = [name for name in ("own", "federated") if name not in comparison.columns]
    if missing:
        names = {"own": "the clients' own models", "federated": "the federated model"}
        sentence = f"No verdict: {' and '.join(names[name] for name in missing)} were not evaluated."
        return Verdict(clients=(), num_gain=0, num_lose=0, gain=math.nan, sentence=sentence, detail="")
    clients = tuple(_judge_client(comparison, index) for index in range(len(comparison.clients)))
    gain = _gain(comparison, comparison.overall.get("own", math.nan), comparison.overall.get("federated", math.nan))
    return Verdict(
        clients=clients,
        num_gain=sum(_direction(comparison, c.gain) > 0 for c in clients),
        num_lose=sum(_direction(comparison, c.gain) < 0 for c in clients),
        gain=gain,
        sentence=_answer(comparison, clients),
        detail=_detail(comparison, clients, gain),
    )


def _judge_client(comparison: Comparison, index: int) -> ClientVerdict:
    client, num_examples = comparison.clients[index], comparison.num_examples[index]
    own, federated = (comparison.columns[name][index] for name in ("own", "federated"))
    gain = _gain(comparison, own, federated)
    by_chance = _by_chance(comparison.metric, own, federated, num_examples)
    direction = _direction(comparison, gain)
    amount = format_gain(comparison.metric, abs(gain)).lstrip("+±")
    if not math.isfinite(gain):
        sentence = "no verdict: a value is missing"
    elif direction == 0:
        sentence = "no difference"
    else:
        sentence = f"{'gains' if direction > 0 else 'loses'} {amount}"
        if by_chance:
            sentence += ", maybe by chance"
    return ClientVerdict(client=client, num_examples=num_examples, gain=gain, by_chance=by_chance, sentence=sentence)


def _gain(comparison: Comparison, own: float, federated: float) -> float:
    return (federated - own) * (1 if comparison.better == "max" else -1)


def _direction(comparison: Comparison, gain: float) -> Literal[-1, 0, 1]:
    """Which way a gain goes, as far as its printed figures show one."""
    text = format_gain(comparison.metric, gain)
    return 0 if text == MISSING or text.startswith("±") else 1 if gain > 0 else -1


def _by_chance(metric: str, own: float, federated: float, num_examples: int) -> bool:
    countable = is_share(metric) and metric.endswith(("accuracy", "error_rate")) and not metric.startswith("balanced")
    if not countable or num_examples < 1 or not math.isfinite(own - federated) or own == federated:
        return False
    p, q = ((share * num_examples + 1) / (num_examples + 2) for share in (own, federated))
    return abs(p - q) <= _Z * math.sqrt((p * (1 - p) + q * (1 - q)) / (num_examples + 2))


def _answer(comparison: Comparison, clients: tuple[ClientVerdict, ...]) -> str:
    known = [c for c in clients if math.isfinite(c.gain)]
    if not known:
        return "No verdict: no client has a value for both its own and the federated model."
    gain = [c for c in known if _direction(comparison, c.gain) > 0]
    lose = [c for c in known if _direction(comparison, c.gain) < 0]
    total = plural(len(known), "client")
    if not gain and not lose:
        return f"Joining makes no difference to any of {total}."
    if not gain:
        who = f"all {total}" if 1 < len(lose) == len(known) else f"{len(lose):,} of {total}"
        better = "does better with its own model" if len(lose) == 1 else "do better with their own models"
        return f"Joining is not worth it here: {who} {better}."
    if len(gain) == len(known):
        return f"Joining is worth it for {'the only client' if len(known) == 1 else f'all {total}'}."
    if len(gain) <= len(lose):
        return (
            f"Joining is worth it for only {len(gain):,} of {total}; "
            f"{len(lose):,} {'does' if len(lose) == 1 else 'do'} better alone."
        )
    rest = _names_of_losers(comparison, lose)
    return f"Joining is worth it for {len(gain):,} of {total}{rest}."


def _names_of_losers(comparison: Comparison, lose: list[ClientVerdict]) -> str:
    if not lose:
        return ", and costs the others nothing"
    if len(lose) > 3:
        return f"; {len(lose):,} do better alone"
    names = ", ".join(f"{c.client} (by {format_gain(comparison.metric, -c.gain).lstrip('+')})" for c in lose)
    return f"; better alone: {names}"


def _detail(comparison: Comparison, clients: tuple[ClientVerdict, ...], gain: float) -> str:
    metric, overall = comparison.metric, comparison.overall
    parts: list[str] = []
    if math.isfinite(gain):
        names = {"own": "on their own", "federated": "federated", "pooled": "pooled"}
        known = [name for name in names if math.isfinite(overall.get(name, math.nan))]
        values = ", ".join(f"{format_metric(metric, overall[name])} {names[name]}" for name in known)
        change = format_gain(metric, gain)
        parts.append(f"Over all held-out examples, {metric.replace('_', ' ')} is {values}; joining brings {change}.")
        if _by_chance(metric, overall["own"], overall["federated"], sum(comparison.num_examples)):
            parts.append("Even over all of them that may be chance.")
    if chance := sum(c.by_chance for c in clients):
        who = "this difference is" if len(clients) == 1 else f"{chance:,} of {len(clients):,} differences are"
        parts.append(f"With so few held-out examples a client, {who} within what chance alone could show.")
    return " ".join(parts)
