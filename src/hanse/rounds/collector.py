"""`Collector`: one round's updates, checked and summed as they come; memory is one sum, whatever the cohort."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from hanse.core.aggregate import Aggregate
from hanse.core.errors import TooFewClientsError
from hanse.core.events import ClientFailed, ClientFinished, Sink
from hanse.core.local_work import LocalWork
from hanse.core.messages import ClientFailure, Group, Held, Receipt, Reply, ReplyFailure, Summed, Sums, Update
from hanse.core.params import ParamSpec
from hanse.core.protocols import Judges
from hanse.pipeline.pipeline import Pipeline
from hanse.rounds.brought_vectors import BroughtVectors
from hanse.rounds.client_failure import failure
from hanse.rounds.evaluation import add_sums, means
from hanse.rounds.history import ClientTraining, FailureRecord, LateRecord
from hanse.rounds.staleness import PolynomialStaleness, Staleness

During = Literal["training", "late"]
_NAMED = 3  # groups in a note
_NOT_AWAITED = frozenset({ReplyFailure.SPARE, ReplyFailure.LATE})


@dataclass
class Collected:
    """What one round's training brought.

    Args:
      aggregate: All updates as one; None where there are too few, and where there are groups.
      groups: The updates of each group as one, for those that brought any.
      landed: Whose broadcast each client started from, by what records call the groups.
      sums: Training metrics, added up.
      failures: Clients that could not, and updates that did not count.
      not_awaited: Clients whose updates the round did not wait for.
      unasked: Clients in reserve that the round had no place for.
      late: Updates of earlier rounds that were taken in, or refused.
      num_updates: Updates that count.
      num_examples: Training examples behind them.
      bytes_up: Bytes of their vectors; with a secure sum, of its messages.
      bytes_down: Bytes that clients were sent beside the broadcast: a secure sum's messages.
      trained: What clients told of their training, where that is wanted.
      client_seconds: Seconds that they measured, where these are wanted.
      too_few: Why the aggregator made nothing of them, in words; empty where it did.
      note: Which groups a rule made nothing of and why, in words, where it made something of others.
      seconds: Wall-clock seconds that it took to take them in and add them up.
    """

    aggregate: Aggregate | None = None
    groups: dict[str, Aggregate] = field(default_factory=dict)
    landed: dict[str, str] = field(default_factory=dict)
    sums: Sums = field(default_factory=dict)
    failures: list[FailureRecord] = field(default_factory=list)
    not_awaited: list[str] = field(default_factory=list)
    unasked: set[str] = field(default_factory=set)
    late: list[LateRecord] = field(default_factory=list)
    num_updates: int = 0
    num_examples: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    trained: list[ClientTraining] = field(default_factory=list)
    client_seconds: dict[str, float] = field(default_factory=dict)
    too_few: str = ""
    note: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Tells:
    """What of each client's training is kept, for a selector that learns.

    Args:
      losses: Its loss and its number of examples.
      seconds: The seconds that it measured.
    """

    losses: bool = False
    seconds: bool = False


NOTHING = Tells()


@dataclass
class _Sum:
    """Updates added up, all or a group's; their weights, before staleness and with it; a group's metrics."""

    accumulator: Any
    weight: float = 0.0
    stale_weight: float = 0.0
    sums: list[Sums] = field(default_factory=list)


class Collector:
    """Takes in a round's replies one by one.

    Args:
      pipeline: Opens, checks and sums updates; as it is in this round.
      spec: Layout of the model that was broadcast.
      number: The round.
      emit: Told of every update and failure.
      rngs: For the server's half of each stage, and the mechanism; by default from the operating system.
      bare: Whether the strategy has no vectors uploaded beside deltas.
      works: What clients do, where they are held to what it uploads.
      private: Whether events tell nothing of a client's data.
      extras: Layouts of the vectors that the strategy has uploaded beside deltas, as far as they are known.
      staleness: What late updates' weights are multiplied with.
      tells: What is kept of each client's training, for a selector that learns.
      group_of: Which group an update is of, where there are groups; raises `UpdateError` for one that is of none.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        spec: ParamSpec,
        number: int,
        emit: Sink,
        rngs: Sequence[np.random.Generator] = (),
        *,
        bare: bool = False,
        works: Sequence[LocalWork] = (),
        private: bool = False,
        extras: Mapping[str, ParamSpec] | None = None,
        staleness: Staleness | None = None,
        tells: Tells = NOTHING,
        group_of: Callable[[Update], Group] | None = None,
    ) -> None:
        self._tells = tells
        self._extras = extras
        self._group_of = group_of
        self._by_group: dict[str, _Sum] = {}
        self._staleness = staleness or PolynomialStaleness()
        self._pipeline = pipeline
        self._bare = bare
        self._brought = BroughtVectors(works, spec, pipeline)
        self._private = private
        self._rngs = rngs
        self._spec = spec
        self._number = number
        self._emit = emit
        self._sum = _Sum(pipeline.zero(spec))
        self._sums: list[Sums] = []
        self._collected = Collected()
        self.seconds = 0.0

    def take(self, reply: Reply) -> None:
        """A reply to this round's order."""
        began = time.perf_counter()
        if isinstance(reply, Update):
            self._add(reply, 1.0)
        elif isinstance(reply, ClientFailure) and reply.kind == ReplyFailure.UNASKED:
            self._collected.unasked.add(reply.client)
        elif isinstance(reply, ClientFailure) and reply.kind in _NOT_AWAITED:
            self._collected.not_awaited.append(reply.client)
        elif isinstance(reply, ClientFailure):
            self._lose(reply)
        self.seconds += time.perf_counter() - began

    def take_summed(self, reply: Receipt | ClientFailure | Summed) -> None:
        """The same from a transport that adds up by itself: receipts in cohort order, and then the sum.

        What is of an earlier round came late, and counts like all else; what was lost of one is not looked at again.
        """
        began = time.perf_counter()
        if isinstance(reply, Summed):
            self._sum.accumulator = reply.accumulator
            return
        late = reply.round < self._number
        if isinstance(reply, Receipt):
            self._count(reply)
        elif reply.kind in _NOT_AWAITED:
            if not late:  # else it is still held, for the next round
                self._collected.not_awaited.append(reply.client)
            return
        else:
            self._lose(reply, during="late" if late else "training")
        if late:
            factor = float(isinstance(reply, Receipt))
            self._collected.late.append(LateRecord(client=reply.client, round=reply.round, factor=factor))
        self.seconds += time.perf_counter() - began

    def take_late(self, reply: Reply, *, max_staleness: int) -> None:
        """A reply to an earlier round's order; an update counts with its weight times its staleness's factor.

        Of one that is held, this is told where it is too stale for a sum.
        """
        if not isinstance(reply, Update | Held | ClientFailure):
            return
        began = time.perf_counter()
        staleness, factor = self._number - reply.round, 0.0
        if isinstance(reply, ClientFailure):
            self._lose(reply, during="late")
        elif staleness > max_staleness:
            told = f"its update of round {reply.round} came {staleness} rounds late; max_staleness is {max_staleness}"
            self._lose(
                ClientFailure(client=reply.client, round=self._number, kind="TooStale", message=told), during="late"
            )
        elif isinstance(reply, Update) and self._add(reply, self._staleness.factor(staleness), during="late"):
            factor = self._staleness.factor(staleness)
        self._collected.late.append(LateRecord(client=reply.client, round=reply.round, factor=factor))
        self.seconds += time.perf_counter() - began

    def finish(self, *, min_clients: int, before: Callable[[], None] = lambda: None) -> Collected:
        """What came of it; a sum of fewer than `min_clients` updates is opened by nobody.

        Args:
          min_clients: ≥ 0.
          before: Called before the sum is opened, and not where it is not.
        """
        began = time.perf_counter()
        collected = self._collected
        collected.sums = add_sums(self._sums)
        if collected.num_updates >= min_clients and self._group_of is not None:
            self._finish_groups()
        elif collected.num_updates >= min_clients:
            before()
            try:
                collected.aggregate = self._opened(self._sum)
            except TooFewClientsError as error:
                collected.too_few = error.message
        if self._pipeline.hides_replies and collected.aggregate is not None:
            collected.num_examples, collected.sums = collected.aggregate.num_examples, collected.aggregate.sums
        traffic = getattr(self._sum.accumulator, "traffic", None)
        if traffic is not None:
            collected.bytes_up, collected.bytes_down = traffic
        self.seconds += time.perf_counter() - began
        collected.seconds = self.seconds
        return collected

    def _finish_groups(self) -> None:
        """Each group's aggregate; one without weight, or too small for a rule, has none, and its model stays."""
        collected, refused = self._collected, []
        for name, total in self._by_group.items():
            try:
                collected.groups[name] = replace(self._opened(total), sums=add_sums(total.sums))
            except TooFewClientsError as error:
                refused.append(f"group {name}: {error.message}")
        more = f"; and {len(refused) - _NAMED:,} more groups" if len(refused) > _NAMED else ""
        told = "; ".join(refused[:_NAMED]) + more
        if not collected.groups:
            collected.too_few = told
        elif isinstance(self._pipeline.aggregator, Judges):
            collected.note = told

    def _add(self, update: Update, factor: float, *, during: During = "training") -> bool:
        try:
            group = None if self._group_of is None else self._group_of(update)
            opened = self._pipeline.open(update, expected=self._spec, bare=self._bare)
            self._brought.check(opened)
            total = (
                self._sum if group is None else self._by_group.get(group.name) or _Sum(self._pipeline.zero(self._spec))
            )
            total.accumulator = self._pipeline.accumulate(total.accumulator, opened, factor=factor)
        except Exception as error:  # noqa: BLE001 - what one client's bytes make of a stage costs that client only
            self._lose(failure(update.client, self._number, error), during=during)
            return False
        weight = self._pipeline.weight(update)
        total.weight += weight
        total.stale_weight += weight * factor
        if group is not None:
            total.sums.append(update.sums)
            self._by_group[group.name] = total
            self._collected.landed[update.client] = group.shown
        self._count(Receipt.of(update))
        return True

    def _opened(self, total: _Sum) -> Aggregate:
        found = self._pipeline.finish(total.accumulator, rngs=self._rngs, spec=self._spec, extras=self._extras)
        fresh = total.stale_weight == total.weight
        return found if fresh else replace(found, freshness=total.stale_weight / total.weight)

    def _count(self, receipt: Receipt) -> None:
        collected = self._collected
        collected.num_updates += 1
        collected.bytes_up += receipt.nbytes
        if not self._pipeline.hides_replies:  # else they are in the sum, and known once it is opened
            collected.num_examples += receipt.num_examples
            self._sums.append(receipt.sums)
            self._tell(receipt)
        self._emit(
            ClientFinished(
                round=self._number,
                client=receipt.client,
                num_examples=0 if self._private else receipt.num_examples,
                seconds=0.0 if self._private else receipt.seconds,
            )
        )

    def _tell(self, receipt: Receipt) -> None:
        if self._tells.losses:
            loss = means(receipt.sums).get("loss")
            self._collected.trained.append(
                ClientTraining(client=receipt.client, round=receipt.round, num_examples=receipt.num_examples, loss=loss)
            )
        if self._tells.seconds:
            self._collected.client_seconds[receipt.client] = receipt.seconds

    def _lose(self, reply: ClientFailure, *, during: During = "training") -> None:
        told = FailureRecord(client=reply.client, kind=reply.kind, message=reply.message, during=during)
        self._collected.failures.append(told)
        self._emit(ClientFailed(round=self._number, client=reply.client, kind=reply.kind, message=reply.message))
