"""A round's updates where clients hold them back: who has one, their sum gathered unseen, and what the round learns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from hanse.aggregators.hidden_round import SecretTotal
from hanse.aggregators.hidden_sum import GivenSum, HidesInGroups, OneSum, hidden_sum_of
from hanse.aggregators.told_numbers import layout_of
from hanse.core.errors import SpecMismatchError, SumAbandonedError
from hanse.core.hidden_sums import SumAtServer, Verify
from hanse.core.messages import UPDATE, ClientFailure, Held, Receipt, Reply, ReplyFailure, Summed
from hanse.core.params import ParamSpec
from hanse.core.processors import usable_cores
from hanse.core.random_bytes import RandomBytes
from hanse.core.sum_layout import Layout
from hanse.pipeline.hidden import residue_bits
from hanse.pipeline.pipeline import Pipeline
from hanse.rounds.client_failure import failure
from hanse.rounds.sum_diary import NoDiary, PartOfDiary, SumDiary
from hanse.rounds.sum_names import name_of_sum
from hanse.rounds.sums_over_transport import Exchange, SumOverTransport, WantedSum

T = TypeVar("T")

_BEGUN = "the round's sum had begun before its answer came"
_ROOM = 16  # a homomorphic scheme's messages may be so many times as long as what is in them
_SPARE_BYTES = 1 << 20
_A_CLIENT = 512


@dataclass(frozen=True, kw_only=True)
class HiddenSums:
    """What a run's sums over a transport need beside the job.

    Args:
      run: Names the run, the same at all its sites.
      verify: Clients' identities, as the server knows them.
      diary: Where their steps are noted.
    """

    run: str
    verify: Verify = field(repr=False)
    diary: SumDiary = field(default_factory=NoDiary)


def gather_updates(
    sums: HiddenSums,
    pipeline: Pipeline,
    spec: ParamSpec,
    number: int,
    replies: Iterable[Reply],
    *,
    least: int,
    exchange: Exchange,
    late: Callable[[], Iterable[Held]] = tuple,
) -> Iterator[Receipt | ClientFailure | Summed]:
    """Add up what clients hold, without opening it: a `Receipt` or failure for each, and the `Summed` that opens.

    What is held of an earlier round counts once, as all else does; its receipt, or failure, is of that round. Where
    the aggregator hides updates in groups, each group's sum is gathered by itself, one after another.

    Args:
      sums: The run's.
      pipeline: As it is in this round.
      spec: Layout of the shared model.
      number: The round.
      replies: To the training phase, in the order of the cohort.
      least: How many must be in the sum.
      exchange: Asks clients.
      late: Asked once all replies are there: what is held of earlier rounds, and was in no sum.
    """
    order: list[str] = []
    failed: dict[str, ClientFailure] = {}
    held: dict[str, Held] = {}
    for reply in replies:
        order.append(reply.client)
        if isinstance(reply, Held):
            held[reply.client] = reply
        elif isinstance(reply, ClientFailure):
            failed[reply.client] = reply
    for earlier in late():
        held.setdefault(earlier.client, earlier)
    sums.diary.begin(number, UPDATE)
    noted = sums.diary.members({client: reply.round for client, reply in held.items()})
    alike = agreed([reply for client, reply in held.items() if noted.get(client) == reply.round])
    failed |= alike.others
    before = {client: then for client, then in alike.holding.items() if then < number}
    encoded, names = pipeline.aggregated_spec(spec), alike.told
    layout = layout_of(encoded.size, residue_bits(pipeline.stages, pipeline.aggregator), names)
    wanted = WantedSum(
        round=number,
        purpose=UPDATE,
        least=least,
        told=names,
        questions=alike.questions,
        of_rounds=before,
        once=not pipeline.adds_numbers,
    )
    aggregator, holding = pipeline.aggregator, tuple(alike.holding)
    groups = aggregator if isinstance(aggregator, HidesInGroups) else None
    parts = (OneSum(clients=holding, least=least),) if groups is None else groups.sums_of(holding)
    why: dict[str, str] = {}
    totals = []
    for place, part in enumerate(parts):
        of_part = replace(sums, diary=PartOfDiary(sums.diary, place)) if groups is not None else sums
        asked = replace(wanted, least=part.least)
        found = sum_of_held(of_part, pipeline, layout, asked, part.clients, exchange=exchange)
        try:
            found.gather()
        except SumAbandonedError as error:
            why |= dict.fromkeys(part.clients, error.message)
        failed |= found.lost
        totals.append(SecretTotal(encoded, found, names, set(found.survivors)))
    survivors = frozenset[str]().union(*(total.clients for total in totals))
    of_round = {**dict.fromkeys(order, number), **alike.holding}
    for client in (*order, *before):
        if client in survivors:
            yield Receipt(client=client, round=of_round[client], num_examples=1, num_steps=1, nbytes=0)
        elif client in failed:
            yield replace(failed[client], round=of_round[client])
        else:  # it did all that was asked of it
            told = why.get(client, _BEGUN)
            yield ClientFailure(client=client, round=of_round[client], kind=ReplyFailure.SPARE, message=told)
    yield Summed(totals[0] if groups is None else groups.together(totals))


def sum_of_held(
    sums: HiddenSums,
    pipeline: Pipeline,
    layout: Layout,
    wanted: WantedSum,
    holding: Sequence[str],
    *,
    exchange: Exchange,
) -> SumOverTransport:
    """A sum of what clients hold back, not begun yet.

    Args:
      sums: The run's.
      pipeline: Whose aggregator it is.
      layout: What is summed.
      wanted: Which sum.
      holding: Who holds an answer.
      exchange: Asks clients.
    """
    aggregator = hidden_sum_of(pipeline.aggregator)

    def open_session(attempt: int, clients: Sequence[str], source: RandomBytes) -> SumAtServer:
        given = GivenSum(
            run=name_of_sum(sums.run, wanted.questions),
            round=wanted.round,
            purpose=wanted.purpose,
            attempt=attempt,
            asked=len(clients),
            least=wanted.least,
            layout=layout,
            threads=usable_cores(),
        )
        return aggregator.sum_at_server(given, clients, verify=sums.verify, source=source)

    most = _ROOM * layout.nbytes + _SPARE_BYTES + _A_CLIENT * len(holding)
    return SumOverTransport(exchange, open_session, replace(wanted, most_bytes=most), holding, sums.diary)


@dataclass(frozen=True, kw_only=True)
class Alike:
    """Clients whose answers can be in one sum.

    Args:
      holding: Who holds one, and to which round.
      told: Names of the numbers beside a vector.
      questions: What was asked, by round.
      others: Why the others are in no sum with them.
    """

    holding: Mapping[str, int]
    told: tuple[str, ...]
    questions: Mapping[int, str]
    others: Mapping[str, ClientFailure]


def agreed(replies: Sequence[Held]) -> Alike:
    """Those who hold numbers of the same names, to the same question, as most do; so no single one decides for all."""
    told = _most([reply.told for reply in replies], ())
    rounds = sorted({reply.round for reply in replies})
    questions = {number: _most([reply.question for reply in replies if reply.round == number], "") for number in rounds}
    holding: dict[str, int] = {}
    others: dict[str, ClientFailure] = {}
    for reply in replies:
        if reply.told == told and reply.question == questions[reply.round]:
            holding[reply.client] = reply.round
        else:
            others[reply.client] = _unlike(reply, told)
    return Alike(holding=holding, told=told, questions=questions, others=others)


def _most(values: Sequence[T], otherwise: T) -> T:
    """The value that is there most often; of several the first."""
    return Counter(values).most_common(1)[0][0] if values else otherwise


def _unlike(reply: Held, told: tuple[str, ...]) -> ClientFailure:
    if reply.told != told:
        what = f"would add {list(reply.told)[:20]} to the sum, others add {list(told)[:20]}"
        hint = "clients of a secure sum tell numbers of the same names; where there is nothing to tell, a zero"
    else:
        what, hint = "says that it was asked something else than the others", "compare the versions of Hanse"
    error = SpecMismatchError(f"round {reply.round}: client `{reply.client}` {what}", hint=hint)
    return failure(reply.client, reply.round, error)
