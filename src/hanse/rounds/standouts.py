"""Who stood out over a run: what an aggregator's verdicts on each client come to, all rounds together."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hanse.core.judged_round import Verdict
from hanse.core.units import plural

if TYPE_CHECKING:
    from hanse.rounds.history import History

COUNTED = "flags"
"""The score that counts rounds, of which a mean says nothing."""

_ASIDE = re.compile(r" \([^()]*\)")
_NUMBER = re.compile(r"[\d.,]+")


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What verdicts said of one client over all rounds.

    Args:
      client: Who.
      judged: Verdicts on its updates.
      flagged: Rounds in which it stood out, in order.
      first_reason: Why, in the first of them; empty where there is none.
      last_reason: Why, in the last of them.
      left_out: The round whose verdict put it in quarantine: it is not asked in later ones; None where none did.
      means: Each score's mean over its verdicts, by name; empty where nothing was scored.
      weight: Mean share of its round's weight, in [0, 1]; None where weights differ from element to element.
    """

    client: str
    judged: int
    flagged: tuple[int, ...] = ()
    first_reason: str = ""
    last_reason: str = ""
    left_out: int | None = None
    means: Mapping[str, float] = field(default_factory=dict)
    weight: float | None = None

    @property
    def stood_out(self) -> bool:
        """Whether it ever did, or is in quarantine."""
        return bool(self.flagged) or self.left_out is not None

    @property
    def reason(self) -> str:
        """Why it stood out last; and at first, where that was for something else."""
        if not self.first_reason or _without_numbers(self.first_reason) == _without_numbers(self.last_reason):
            return self.last_reason
        return f"{self.last_reason}; at first: {self.first_reason}"


class Tally:
    """Adds up verdicts, round by round; what it holds grows with clients and with flags, not with rounds times clients.

    >>> tally = Tally()
    >>> tally.add(1, [Verdict(client="a", scores={"norm": 9.0}, reason="is long"), Verdict(client="b")])
    >>> tally.add(2, [Verdict(client="a", scores={"norm": 1.0})])
    >>> [(one.client, one.judged, one.flagged, dict(one.means)) for one in tally.standings()]
    [('a', 2, (1,), {'norm': 5.0}), ('b', 1, (), {})]
    """

    def __init__(self) -> None:
        self._of: dict[str, _Counts] = {}

    def add(self, round_number: int, verdicts: Iterable[Verdict]) -> None:
        """Take in a round's verdicts; of one client there may be several.

        Args:
          round_number: Later than those before.
          verdicts: Its.
        """
        found = tuple(verdicts)
        total = math.fsum(verdict.weight or 0.0 for verdict in found)
        for verdict in found:
            counts = self._of.setdefault(verdict.client, _Counts())
            counts.add(round_number, verdict, total)

    def standings(self) -> tuple[Standing, ...]:
        """Each client's, by name."""
        return tuple(self._of[client].standing(client) for client in sorted(self._of))


def judged(history: History) -> tuple[Standing, ...]:
    """What verdicts said of each client, the most conspicuous first; empty where no update was judged.

    In front are those in quarantine and those that stood out most often, of these whoever did so first.

    >>> from hanse.rounds.history import History, RoundRecord
    >>> verdicts = [Verdict(client="a"), Verdict(client="b", reason="points away from the median update")]
    >>> found = judged(History(rounds=(RoundRecord(round=4, verdicts=tuple(verdicts)),)))
    >>> [(one.client, one.flagged) for one in found]
    [('b', (4,)), ('a', ())]

    Args:
      history: The run's, from a journal or made of whole records.
    """
    found = history.standings
    if not found:
        tally = Tally()
        for record in history.rounds:
            tally.add(record.round, record.verdicts)
        found = tally.standings()
    return tuple(sorted(found, key=_order))


def scored(standings: Iterable[Standing]) -> bool:
    """Whether anybody's updates were scored; else there is nothing to tell but weights."""
    return any(one.means for one in standings)


def standouts_in_words(standings: Sequence[Standing]) -> str:
    """How many stood out, and who is not asked any more.

    >>> away = Standing(client="a", judged=7, flagged=(5, 6), left_out=6)
    >>> standouts_in_words([away, Standing(client="b", judged=9)])
    '1 of 2 clients stood out; it is not asked any more since round 7'

    Args:
      standings: All clients'.
    """
    out = [one for one in standings if one.stood_out]
    if not out:
        return f"None of {plural(len(standings), 'client')} stood out"
    told = f"{len(out):,} of {plural(len(standings), 'client')} stood out"
    number = sum(one.left_out is not None for one in out)
    if not number:
        return told
    who = f"{number:,} {'is' if number == 1 else 'are'} not"
    if number == len(out):
        who = "it is not" if number == 1 else "none of them is"
    return f"{told}; {who} asked any more{_since(out)}"


def named_in_short(standings: Sequence[Standing]) -> str:
    """Up to three that stood out with why, and how many are in quarantine; empty where no update was scored.

    >>> means = {"norm": 9.0}
    >>> long = [Standing(client=c, judged=2, flagged=(2,), last_reason="is long (9)", means=means) for c in "ab"]
    >>> named_in_short(long)
    'a (is long) and b (is long)'

    Args:
      standings: All clients', the most conspicuous first.
    """
    if not scored(standings):
        return ""
    out = [one for one in standings if one.stood_out]
    if not out:
        return f"none of {plural(len(standings), 'client')}"
    named = [f"{one.client} ({in_short(one.last_reason)})" if one.last_reason else one.client for one in out[:3]]
    named += [plural(len(out) - 3, "other")] if len(out) > 3 else []
    told = named[0] if len(named) == 1 else f"{', '.join(named[:-1])} and {named[-1]}"
    number = sum(one.left_out is not None for one in out)
    return f"{told}; {number:,} not asked any more{_since(out)}" if number else told


def in_short(reason: str) -> str:
    """A reason without what is said in brackets, and without any further one.

    >>> in_short("points away from the median update (mean cosine -0.41); its norm is 5 times the median client's")
    'points away from the median update'
    """
    return _ASIDE.sub("", reason.partition("; ")[0])


@dataclass(slots=True)
class _Counts:
    """One client's verdicts, added up."""

    judged: int = 0
    flagged: list[int] = field(default_factory=list)
    first: str = ""
    last: str = ""
    left_out: int | None = None
    sums: dict[str, float] = field(default_factory=dict)
    scored: dict[str, int] = field(default_factory=dict)
    shares: float = 0.0
    weighed: int = 0

    def add(self, round_number: int, verdict: Verdict, total: float) -> None:
        self.judged += 1
        for name, value in verdict.scores.items():
            if name != COUNTED:
                self.sums[name] = self.sums.get(name, 0.0) + value
                self.scored[name] = self.scored.get(name, 0) + 1
        if verdict.weight is not None:
            self.shares += verdict.weight / total if total > 0 else 0.0
            self.weighed += 1
        if verdict.reason:
            self.first, self.last = self.first or verdict.reason, verdict.reason
            if not self.flagged or self.flagged[-1] != round_number:
                self.flagged.append(round_number)
        if verdict.quarantined and self.left_out is None:
            self.left_out = round_number

    def standing(self, client: str) -> Standing:
        return Standing(
            client=client,
            judged=self.judged,
            flagged=tuple(self.flagged),
            first_reason=self.first,
            last_reason=self.last,
            left_out=self.left_out,
            means={name: total / self.scored[name] for name, total in self.sums.items()},
            weight=self.shares / self.weighed if self.weighed else None,
        )


def _since(standings: Iterable[Standing]) -> str:
    rounds = [one.left_out + 1 for one in standings if one.left_out is not None]
    first, last = min(rounds), max(rounds)
    return f" since round {first:,}" + ("" if first == last else f", the last of them since round {last:,}")


def _order(one: Standing) -> tuple[bool, int, int, str]:
    return one.left_out is None, -len(one.flagged), one.flagged[0] if one.flagged else 0, one.client


def _without_numbers(reason: str) -> str:
    return _NUMBER.sub("", reason)
