"""`Members`: who attacks, and in which rounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hanse.attacks.counts import check_share, count_of
from hanse.core.errors import SettingError, did_you_mean
from hanse.core.randomness import stream


@dataclass(frozen=True, kw_only=True)
class Members:
    """Attackers: a share or a number of all clients drawn at random, or clients by name; exactly one of the three.

    Of one seed and the same clients, those of a smaller share are among those of a larger one.

    Args:
      share: In [0, 1], of all clients; rounded half up, at least one where it is > 0.
      count: ≥ 0, and no more than there are clients.
      clients: Names.
      each_round: Draw anew in each round, of all clients; not with names.
      from_round: The first round of the attack, ≥ 1.
      until_round: The last one; None for the run's last.
    """

    share: float | None = None
    count: int | None = None
    clients: tuple[str, ...] = ()
    each_round: bool = False
    from_round: int = 1
    until_round: int | None = None

    def __post_init__(self) -> None:
        if isinstance(self.clients, str):
            raise SettingError("clients", f"must be a list of names, got {self.clients!r}")
        given = (self.share is not None) + (self.count is not None) + bool(self.clients)
        if given != 1:
            raise SettingError("", f"exactly one of share, count and clients must say who attacks, and {given} do")
        if self.share is not None:
            check_share("share", self.share)
        if self.count is not None and self.count < 0:
            raise SettingError("count", f"must be at least 0, got {self.count}")
        if self.each_round and self.clients:
            raise SettingError("each_round", "draws attackers at random, and clients names them")
        if self.from_round < 1:
            raise SettingError("from_round", f"must be at least 1, got {self.from_round}")
        if self.until_round is not None and self.until_round < self.from_round:
            raise SettingError("until_round", f"must be at least from_round, {self.from_round}, got {self.until_round}")

    def fixed(self, clients: Sequence[str], seed: int) -> tuple[str, ...]:
        """All who ever attack, sorted: drawn once; everybody where each round draws its own.

        Args:
          clients: Names of all clients, in any order.
          seed: The job's.

        Raises:
          SettingError: There is no such client, or there are fewer of them.

        >>> Members(share=0.5).fixed(["a", "b", "c", "d"], seed=1)
        ('a', 'c')
        """
        if not self.each_round:
            return self._drawn(clients, seed)
        return tuple(sorted(clients)) if self._number(len(clients)) else ()

    def in_round(self, clients: Sequence[str], seed: int, round_number: int) -> frozenset[str]:
        """Who attacks in a round, whether or not they are in its cohort; raises as `fixed`."""
        if round_number < self.from_round or (self.until_round is not None and round_number > self.until_round):
            return frozenset()
        return frozenset(self._drawn(clients, seed, *((round_number,) if self.each_round else ())))

    def _drawn(self, clients: Sequence[str], seed: int, *key: int) -> tuple[str, ...]:
        if self.clients:
            there = set(clients)
            for name in self.clients:
                if name not in there:
                    raise SettingError("clients", f"there is no client `{name}`", hint=did_you_mean(name, clients))
            return tuple(sorted(set(self.clients)))
        names = sorted(clients)
        order = stream(seed, "attack members", *key).permutation(len(names))
        return tuple(sorted(names[i] for i in order[: self._number(len(names))]))

    def _number(self, total: int) -> int:
        if self.count is None:
            return count_of(self.share or 0.0, total)
        if self.count > total:
            raise SettingError("count", f"is {self.count}, and there are {total} clients")
        return self.count
