"""`Watch`: who stands out among a round's updates, and who has done so again and again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hanse.aggregators.robust.columns import Median
from hanse.aggregators.robust.rows import Rows
from hanse.aggregators.robust.rule import RuleRound
from hanse.core.errors import SettingError
from hanse.core.judged_round import Memory, Verdict

SCORES = ("norm", "direction", "likeness", "loss")
"""Of each update: see `Watch`."""

_KEPT = "watch."
_MANY = 100.0  # times the rise of the loss that flags: what a rise counts for at most
_RESOLVED = 2e-6  # what two cosines differ by at least, if they differ


@dataclass(frozen=True, kw_only=True)
class Watch:
    """Scores each update against the others of its round, and flags clients that stand out.

    With x_k the updates and m their coordinate-wise median:

        norm        ‖x_k‖ / median_j ‖x_j‖
        direction   cos(x_k, m)
        likeness    max_{j ≠ k} cos(x_k, x_j)
        loss        of the model that x_k is added to on the server's own examples, minus the median client's; where
                    the server has examples. NaN is a rise; none counts for more than a hundred times `loss`

    An update is flagged for its norm as it comes. The other scores differ much from round to round where clients hold
    unlike data, so what counts is each client's mean over the rounds that it took part in, old ones fading, and no
    client is flagged for it before `settled` of them.

    Honest clients' updates share some of their direction even where they hold few classes each; updates turned around,
    or made of noise, do not. Two that are all but equal were not trained on two clients' data. What attackers send that
    looks like an honest update in every score is not found; rules bound what it can do.

    Args:
      largest: Norm above which a client is flagged, in median norms, > 1.
      smallest: Norm below which one is, in [0, 1).
      direction: Mean cosine to the median below which one is, in [-1, 1).
      alone: Share of the median client's mean likeness below which one is, in [0, 1): nobody sends anything like it.
      twin: Share of what the median client lacks to a likeness of 1, below which one is that lacks less, in [0, 1):
        somebody sends the same.
      loss: Mean rise of the loss over the median client's above which one is, > 0, in the loss's unit. Honest clients
        that hold few classes raise it too: by up to 2.8 nats among digits dealt out by Dir(0.3).
      settled: Rounds before means count, ≥ 1.
      fading: Weight of what was before against the newest round's, in [0, 1]; 1 is the plain mean.
      quarantine_after: Flagged rounds after which a client is not asked any more, ≥ 1; None never does that.
    """

    largest: float = 4.0
    smallest: float = 0.1
    direction: float = 0.0
    alone: float = 0.2
    twin: float = 0.01
    loss: float = 4.0
    settled: int = 5
    fading: float = 0.95
    quarantine_after: int | None = None

    def __post_init__(self) -> None:
        ranges: tuple[tuple[str, bool, str], ...] = (
            ("largest", self.largest > 1, "above 1"),
            ("smallest", 0 <= self.smallest < 1, "at least 0 and below 1"),
            ("direction", -1 <= self.direction < 1, "at least -1 and below 1"),
            ("alone", 0 <= self.alone < 1, "at least 0 and below 1"),
            ("twin", 0 <= self.twin < 1, "at least 0 and below 1"),
            ("loss", self.loss > 0, "above 0"),
            ("settled", self.settled >= 1, "at least 1"),
            ("fading", 0 <= self.fading <= 1, "from 0 to 1"),
            ("quarantine_after", self.quarantine_after is None or self.quarantine_after >= 1, "at least 1"),
        )
        for name, holds, wanted in ranges:
            if not holds:
                raise SettingError(name, f"must be {wanted}, got {getattr(self, name)}")

    def judge(
        self,
        rows: Rows,
        clients: Sequence[str],
        memory: Memory,
        *,
        losses: Callable[[], np.ndarray] | None = None,
    ) -> tuple[list[Verdict], dict[str, np.ndarray]]:
        """A verdict on each row, and what is to be known in the next round.

        Args:
          rows: The updates.
          clients: Whose each is.
          memory: What this returned in the last round that counted, among other things.
          losses: `[n]`: the loss of the model that each row is added to; None where the server has no examples.
        """
        found = scores_of(rows, None if losses is None else losses())
        if "loss" in found:  # means go on over all later rounds: no single one is to decide them, least of all NaN
            most = _MANY * self.loss
            found["loss"] = np.clip(np.nan_to_num(found["loss"], nan=most), -most, most)
        kept = {name: array for name, array in memory.items() if name.startswith(_KEPT)}
        scores = [{name: float(values[i]) for name, values in found.items()} for i in range(len(rows))]
        histories = [
            _History.read(kept.get(f"{_KEPT}{client}")).after(own, fading=self.fading)
            for client, own in zip(clients, scores, strict=True)
        ]
        usual = float(np.median([history.means()["likeness"] for history in histories]))
        verdicts = []
        for client, own, history in zip(clients, scores, histories, strict=True):
            reason = self._reason(own, history, usual)
            history.flags += bool(reason)
            verdicts.append(
                Verdict(
                    client=client,
                    scores={**own, "flags": history.flags},
                    reason=reason,
                    quarantined=self.quarantine_after is not None and history.flags >= self.quarantine_after,
                )
            )
            kept[f"{_KEPT}{client}"] = history.written()
        return verdicts, kept

    def quarantined(self, memory: Memory) -> Mapping[str, str]:
        """Clients that are not to be asked, and why.

        Args:
          memory: What `judge` returned, among other things.
        """
        found: dict[str, str] = {}
        for name, array in memory.items():
            if self.quarantine_after is None or not name.startswith(_KEPT):
                continue
            flags = _History.read(array).flags
            if flags >= self.quarantine_after:
                found[name.removeprefix(_KEPT)] = f"stood out in {flags:g} rounds"
        return found

    def _reason(self, own: Mapping[str, float], history: _History, usual: float) -> str:
        """Why an update stands out; empty where it does not. `usual`: the median client's mean likeness."""
        mean, settled = history.means(), history.rounds >= self.settled
        tests: tuple[tuple[bool, str], ...] = (
            (own["norm"] > self.largest, f"its norm is {own['norm']:.3g} times the median client's"),
            (own["norm"] < self.smallest, f"its norm is {own['norm']:.2g} of the median client's"),
            (
                settled and mean["direction"] < self.direction,
                f"points away from the median update (mean cosine {mean['direction']:.2f})",
            ),
            (
                settled and usual > 0 and mean["likeness"] < self.alone * usual,
                f"is like nobody else's (mean of its largest cosines {mean['likeness']:.2f}; {usual:.2f} is usual)",
            ),
            (
                settled and 1 - mean["likeness"] < self.twin * (1 - usual),
                f"is the same as somebody else's (mean of its largest cosines {mean['likeness']:.4f})",
            ),
            (
                settled and mean.get("loss", 0.0) > self.loss,
                f"raises the loss on the server's examples (by {mean.get('loss', 0.0):.2g} over the median client's)",
            ),
        )
        return "; ".join(told for holds, told in tests if holds)


@dataclass(slots=True)
class _History:
    """One client's rounds: its scores added up, older ones faded, their weight, how many, and how many were flagged."""

    sums: np.ndarray
    weight: float = 0.0
    rounds: float = 0.0
    flags: float = 0.0

    @staticmethod
    def read(array: np.ndarray | None) -> _History:
        if array is None:
            return _History(np.zeros(len(SCORES)))
        return _History(array[: len(SCORES)].astype(np.float64), *(float(value) for value in array[len(SCORES) :]))

    def written(self) -> np.ndarray:
        return np.array([*self.sums, self.weight, self.rounds, self.flags])

    def after(self, own: Mapping[str, float], *, fading: float) -> _History:
        newest = np.array([own.get(name, 0.0) for name in SCORES])
        return _History(fading * self.sums + newest, fading * self.weight + 1, self.rounds + 1, self.flags)

    def means(self) -> dict[str, float]:
        return dict(zip(SCORES, (self.sums / self.weight).tolist(), strict=True))


def scores_of(rows: Rows, losses: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Scores of each row by name, `[n]` each; see `Watch`.

    Args:
      rows: The updates.
      losses: `[n]`, or None.
    """
    norms = rows.norms
    median = Median().combine(rows, RuleRound(attackers=0, rng=np.random.default_rng(0))).vector
    length = float(np.linalg.norm(median))
    middle = float(np.median(norms))
    cosines = _cosines(rows.gram, norms)
    np.fill_diagonal(cosines, -np.inf)
    found = {
        "norm": norms / middle if middle > 0 else np.ones(len(rows)),
        "direction": rows.products_with(median) / _above_zero(norms) / (length or 1.0),
        "likeness": cosines.max(axis=1) if len(rows) > 1 else np.zeros(len(rows)),
    }
    if losses is not None:
        finite = np.isfinite(losses)
        found["loss"] = losses - np.median(losses[finite]) if finite.any() else np.zeros(len(rows))
    return found


def _cosines(gram: np.ndarray, norms: np.ndarray) -> np.ndarray:
    """`[n, n]`: of all pairs; what has no direction is like nothing, and what is all but 1 is 1."""
    safe = _above_zero(norms)
    found = gram / safe[:, None] / safe[None, :]
    found[found > 1 - _RESOLVED] = 1.0
    found[norms == 0, :] = found[:, norms == 0] = 0.0
    return np.asarray(found)


def _above_zero(norms: np.ndarray) -> np.ndarray:
    return np.where(norms > 0, norms, 1.0)
