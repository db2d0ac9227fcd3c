"""What an aggregator offers whose sum is learnt without its parts: the two sides of a sum, for who carries bytes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from hanse.core.hidden_sums import Sign, Suits, SumAtClient, SumAtServer, Verify
from hanse.core.random_bytes import RandomBytes
from hanse.core.sum_layout import Layout


@dataclass(frozen=True, kw_only=True)
class GivenSum:
    """One sum, as everybody in it knows it from the job and the round; never from the other side's messages.

    Args:
      run: Which run.
      round: Which round, ≥ 0.
      purpose: What is summed: ``update``, ``evaluation``; each sum of a round has its own.
      attempt: 0, and one more each time the same sum is begun anew.
      asked: How many clients this attempt is begun with.
      least: How many must be in it at the least, as the run demands; the aggregator may demand more.
      layout: What is summed.
      simulated: Whether keys may come from a seed: in simulations alone.
      threads: To compute with.
    """

    run: str
    round: int
    purpose: str
    attempt: int
    asked: int
    least: int
    layout: Layout
    simulated: bool = False
    threads: int = 1


@runtime_checkable
class HiddenSum(Protocol):
    """An aggregator that adds updates up by a protocol in which nobody sees a single one."""

    @property
    def hides_replies(self) -> bool:
        """True."""
        ...

    def survivors(self, cohort: int) -> int:
        """How many of a cohort's updates must be in the sum."""
        ...

    def sum_at_server(
        self, given: GivenSum, clients: Iterable[str], *, verify: Verify, source: RandomBytes | None = None
    ) -> SumAtServer:
        """The server's side of a sum.

        Args:
          given: Which sum.
          clients: Who is asked, `given.asked` of them.
          verify: Clients' identities, as the server knows them.
          source: Of random bytes; None for the operating system. A seeded one is for simulations alone.

        Raises:
          HanseError: There can be no such sum: too few clients, too many, numbers too large.
          MissingExtraError: The protocol's package is not installed.
        """
        ...

    def sum_at_client(
        self,
        given: GivenSum,
        client: str,
        *,
        sign: Sign,
        verify: Verify,
        min_cohort: int = 2,
        suits: Suits | None = None,
        source: RandomBytes | None = None,
    ) -> SumAtClient:
        """One client's side of a sum.

        Args:
          given: Which sum, by the site's own reading of the job.
          client: Whose side it is.
          sign: By its identity key.
          verify: Other clients' identities, as this site knows them.
          min_cohort: This site's own least number of clients in a sum, whatever the job says.
          suits: And whom else it asks for.
          source: As for `sum_at_server`.

        Raises:
          HanseError: As `sum_at_server` does.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class OneSum:
    """One of a round's sums.

    Args:
      clients: Who may be in it, of those who hold an answer.
      least: How many must be.
    """

    clients: tuple[str, ...]
    least: int


@runtime_checkable
class HidesInGroups(Protocol):
    """An aggregator that adds a round's updates up in several hidden sums, one of each group of clients."""

    @property
    def sum(self) -> Any:
        """What adds up each group's, a `HiddenSum`."""
        ...

    def smallest(self, cohort: int) -> int:
        """Clients in the smallest group of a cohort."""
        ...

    def sums_of(self, holding: Sequence[str]) -> tuple[OneSum, ...]:
        """A round's sums, of those of its clients who hold an update."""
        ...

    def together(self, totals: Sequence[Any]) -> Any:
        """The accumulator of sums whose parts came, in the order of `sums_of`."""
        ...


def hidden_sum_of(aggregator: object) -> HiddenSum:
    """What adds up: the aggregator itself, or what it adds up each group's updates by."""
    found = aggregator.sum if isinstance(aggregator, HidesInGroups) else aggregator
    assert isinstance(found, HiddenSum)  # as it hides replies
    return found
