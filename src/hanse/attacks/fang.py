"""`FangAdaptive`: against the rule in force, by trying what it does."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from hanse.aggregators.robust.rows import Rows
from hanse.attacks.attack import Knowledge, Seen
from hanse.attacks.known import as_sent, extremes_of, known_rows, mean_of
from hanse.core.errors import SettingError, TooFewClientsError

Direction = Literal["sign", "mean"]

_REFINEMENTS = 4


@dataclass(frozen=True, kw_only=True)
class FangAdaptive:
    """Members send what makes the server's rule deviate most from where honest clients would go, knowing both.

    With μ the mean of the honest updates, s its direction (its signs, or itself as a unit vector) and A the rule over
    the honest rows and the members', the attack maximises the directed deviation `sᵀ(μ − A)` over

    1. `−γ s`: the paper's attack on Krum, from the model as it was before the round;
    2. `μ − γ s`, which rules that average or cut elements off let through further;
    3. the paper's attack on trimmed means and medians: in each element numbers beyond the least honest one where s is
       positive, and beyond the largest one where it is negative, up to `reach` times as far (else divided by it).

    Of 1 and 2 the first member sends the vector itself, and the others vectors near it, which support it. γ is
    searched geometrically: `steps` values, each half of the one before, and then between the best one's neighbours.
    That is `2 · steps + 17` calls of the rule in each round. The smallest of the tried γ wins where several do the
    same. Without a rule, or where the rule refuses so few rows, 3 is sent, for it asks for none.

    Deviations from the paper: the search goes over what the rule at hand does, whichever it is, and not over one
    rule's bound for γ; it takes the best γ rather than the first that Krum lets through; how near the supporters are
    counts in γ, for updates come in any size.

    Args:
      direction: s: ``"sign"`` as in the paper, or ``"mean"``.
      steps: Values of γ, ≥ 1.
      largest: The largest γ, > 0, in units of the longest honest update plus the largest distance of two of them.
      apart: ≥ 0: how far the supporters are from the vector that they support, in units of γ.
      reach: b > 1 of the third candidate; 2 in the paper.

    References:
      Fang, Cao, Jia, Gong 2020, "Local model poisoning attacks to Byzantine-robust federated learning", USENIX
      Security: the attacks with full knowledge on Krum, and on trimmed means and medians.
    """

    direction: Direction = "sign"
    steps: int = 12
    largest: float = 10.0
    apart: float = 0.01
    reach: float = 2.0

    def __post_init__(self) -> None:
        if self.direction not in get_args(Direction):
            raise SettingError("direction", f"must be sign or mean, got {self.direction!r}")
        if self.steps < 1:
            raise SettingError("steps", f"must be at least 1, got {self.steps}")
        if not 0 < self.largest < math.inf:
            raise SettingError("largest", f"must be more than 0 and finite, got {self.largest}")
        if not 0 <= self.apart < math.inf:
            raise SettingError("apart", f"must be at least 0 and finite, got {self.apart}")
        if not 1 < self.reach < math.inf:
            raise SettingError("reach", f"must be more than 1 and finite, got {self.reach}")

    @property
    def knows(self) -> Knowledge:
        """All clients' updates."""
        return "all"

    def craft(self, seen: Seen) -> Sequence[np.ndarray]:
        """As `Crafts.craft`; where no honest update is known, the third candidate around the members' own."""
        rows = known_rows(seen)
        mean = mean_of(rows)
        beyond = self._beyond(rows, mean, seen)
        honest = [row for row in seen.honest if np.isfinite(row).all()]
        if seen.rule is None or not honest or not mean.any():
            return beyond
        search = _Search(
            honest=honest,
            rule=seen.rule,
            mean=mean,
            towards=np.sign(mean) if self.direction == "sign" else mean / np.linalg.norm(mean),
        )
        try:
            search.consider(beyond)
            self._search(search, rows, seen)
        except TooFewClientsError:
            return beyond
        return beyond if search.best is None else search.best

    def _search(self, search: _Search, rows: Rows, seen: Seen) -> None:
        """Lets `search` see all candidates of the first two kinds."""
        unit = search.towards / np.linalg.norm(search.towards)
        most = self.largest * float(rows.norms.max() + math.sqrt(rows.squared_distances.max()))
        around = [np.zeros(len(unit)), *(self._near(len(unit), seen.rng) for _ in seen.own[1:])]
        for start in (np.zeros_like(unit), search.mean):

            def sent(step: float, start: np.ndarray = start) -> list[np.ndarray]:
                return [as_sent(start + step * (near - unit), own) for near, own in zip(around, seen.own, strict=True)]

            best, deviation = 0.0, -math.inf
            for step in _steps(most, self.steps):
                found = search.consider(sent(step))
                if found > deviation:
                    best, deviation = step, found
            factor = math.sqrt(2)
            for _ in range(_REFINEMENTS):
                for step in (best / factor, min(most, best * factor)):
                    found = search.consider(sent(step))
                    if found > deviation:
                        best, deviation = step, found
                factor = math.sqrt(factor)

    def _near(self, size: int, rng: np.random.Generator) -> np.ndarray:
        vector = rng.normal(size=size)
        return vector * (self.apart / float(np.linalg.norm(vector)))

    def _beyond(self, rows: Rows, mean: np.ndarray, seen: Seen) -> list[np.ndarray]:
        """The third candidate; zero in elements whose honest mean is zero, for these have no direction."""
        low, high = extremes_of(rows)
        edge = np.where(mean > 0, low, np.where(mean < 0, high, 0.0))
        far = np.where(mean * edge > 0, edge / self.reach, edge * self.reach)
        return [as_sent(edge + seen.rng.random(len(edge)) * (far - edge), own) for own in seen.own]


@dataclass(kw_only=True)
class _Search:
    """The candidate by which the rule deviated most, of those seen so far."""

    honest: Sequence[np.ndarray]
    rule: Callable[[Sequence[np.ndarray]], np.ndarray]
    mean: np.ndarray
    towards: np.ndarray
    best: list[np.ndarray] | None = None
    most: float = -math.inf

    def consider(self, sent: list[np.ndarray]) -> float:
        """`sᵀ(μ − A)` if members send that; −∞ where it is not a number."""
        found = float(self.towards @ (self.mean - self.rule([*self.honest, *sent])))
        if not math.isfinite(found):
            return -math.inf
        if found > self.most:
            self.best, self.most = sent, found
        return found


def _steps(most: float, count: int) -> Iterator[float]:
    """Ascending."""
    for power in range(count - 1, -1, -1):
        yield most / 2**power
