"""`SiteLedger`: what runs have cost each of a site's clients, kept at the site, whatever its coordinator keeps.

Every update is charged before it leaves, in `privacy.sqlite` of the site's folder. A charge is named by the run, the
round, the client and what was asked, so the same answer to the same question is charged once however often it is given,
and another answer is another charge. Each client has an account of its own for every requester, and one for all.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hanse.core.errors import PrivacyBudgetError, PrivacyError, RefusedError
from hanse.federation.client.site_config import ALL, PrivacyTable
from hanse.privacy.accountant import account
from hanse.privacy.budget import Budget
from hanse.privacy.events import Event, Repeated
from hanse.privacy.ledger import Account, ChargeKey, PrivacyLedger
from hanse.rounds.privacy.settled import neighbours_by

WITHOUT = "nobody"
"""In place of a unit: of runs that promised nothing."""

Unit = Literal["client", "example"]
NoiseBy = Literal["site", "coordinator"]


@dataclass(frozen=True, kw_only=True)
class Charged:
    """For what something was charged.

    Args:
      run: The run's name.
      requester: Who asked for the run.
      secret: Names the key that the run's noise here follows from; another one is another run, whatever it is called.
      noise_by: Who adds the noise: the site itself, or the coordinator, which is trusted to.
      round: 0 for a whole run at once.
      client: Whose privacy it costs.
      question: Names what was asked.
      answer: Names what was answered, where one question may have several answers.
    """

    run: str
    requester: str
    secret: str
    noise_by: NoiseBy
    round: int
    client: str
    question: str = ""
    answer: str = ""

    def key(self) -> ChargeKey:
        """The ledger's key for it."""
        run = json.dumps([self.run, self.requester, self.secret, self.noise_by], ensure_ascii=False)
        part = json.dumps([self.client, self.question, self.answer], ensure_ascii=False)
        return ChargeKey(run=run, round=self.round, part=part)

    @staticmethod
    def of(key: ChargeKey) -> Charged:
        """Read what `key` returned.

        Raises:
          PrivacyError: It is no site's key.
        """
        try:
            run, requester, secret, noise_by = json.loads(key.run)
            client, question, answer = json.loads(key.part)
        except (ValueError, TypeError):
            raise PrivacyError(f"a site's ledger holds {key}, which is no charge of a site's") from None
        return Charged(
            run=run,
            requester=requester,
            secret=secret,
            noise_by=noise_by,
            round=key.round,
            client=client,
            question=question,
            answer=answer,
        )


@dataclass(frozen=True, kw_only=True)
class Promise:
    """What a run's job says that the run costs anybody at most, where the site adds the noise itself.

    Args:
      run: The run's name.
      secret: As in `Charged`.
      budget: The job's.
    """

    run: str
    secret: str
    budget: Budget


class SiteLedger:
    """The ledger of one of a site's data sets, for one kind of unit.

    Args:
      path: The file.
      table: `[privacy]` of the site's `site.toml`.
      dataset: The data's name.
      unit: Who is protected.
      promise: To which the run that goes on is held, however often its coordinator asks.

    Raises:
      StorageError: The file can't be opened or written, is damaged, or was tampered with.
    """

    def __init__(
        self, path: Path, table: PrivacyTable, *, dataset: str, unit: Unit, promise: Promise | None = None
    ) -> None:
        self._table = table
        self._promise = promise
        self._dataset = dataset
        self._unit = unit
        self._neighbours = neighbours_by(unit)
        self.ledger = PrivacyLedger(
            path, scope=scope_of(dataset, unit), accounts=self._accounts, neighbours=self._neighbours
        )

    def charge(self, charges: Sequence[tuple[Charged, Event]], *, planned: int = 0) -> dict[str, RefusedError]:
        """Write down what is about to leave; when this returns it is on the disk.

        Args:
          charges: For what, and what it costs.
          planned: As in `PrivacyLedger.charge`.

        Returns:
          Why not, for clients of which nothing may leave.

        Raises:
          StorageError: It could not be written; nothing may leave.
        """
        told = {charged.key(): charged for charged, _ in charges}
        refused = self.ledger.charge_each([(charged.key(), event) for charged, event in charges], planned=planned)
        return {told[key].client: self._refusal(told[key], error) for key, error in refused.items()}

    def room(self, charged: Charged, event: Event) -> RefusedError | None:
        """Why there is no room for a charge; None where there is."""
        try:
            self.ledger.check(charged.key(), event)
        except PrivacyError as error:
            return self._refusal(charged, error)
        return None

    def plan(self, whom: Callable[[str], Charged], clients: Sequence[str], event: Event, times: int) -> list[str]:
        """What a run would cost the client that has spent most so far, in sentences; one for each budget.

        Args:
          whom: What is charged, by client.
          clients: The site's.
          event: What asking a client once costs.
          times: How often one is asked.

        Raises:
          RefusedError: A budget has no room for that.
        """
        whole = Repeated(event=event, count=times)
        lines: dict[str, tuple[float, str]] = {}
        seen: set[tuple[frozenset[tuple[Event, int]], Budget]] = set()
        spent = self.ledger.accounts()
        for client in clients:
            charged = whom(client)
            refusal = self.room(charged, whole)
            if refusal is not None:
                raise refusal
            for of in self._accounts(charged.key()):
                before = spent.get(of.name, Counter[Event]())
                for budget in of.budgets:
                    if self._promise is not None and budget is self._promise.budget:
                        continue  # it was settled to keep that
                    state = frozenset(before.items()), budget
                    if state in seen:
                        continue
                    seen.add(state)
                    now = (
                        account(_repeated(before), delta=budget.delta, neighbours=self._neighbours).epsilon
                        if before
                        else 0.0
                    )
                    then = account([*_repeated(before), whole], delta=budget.delta, neighbours=self._neighbours).epsilon
                    who = _who(of.name, self._unit)
                    line = f"this run brings {who} from ε = {now:.4g} to {then:.4g}, of {budget}"
                    name = f"{who} {budget}"
                    lines[name] = max(lines.get(name, (-1.0, "")), (then, line))
        return [line for _, line in lines.values()]

    def _accounts(self, key: ChargeKey) -> Sequence[Account]:
        charged = Charged.of(key)
        covering = self._table.covering(charged.requester, self._dataset)
        mine = [budget for budget in covering if budget.unit == self._unit]

        def budgets(shared: bool) -> tuple[Budget, ...]:
            found = [budget for budget in mine if (budget.requester == ALL) == shared]
            return tuple(Budget(epsilon=budget.epsilon, delta=budget.delta) for budget in found)

        whole = Account(name=account_of(charged.client, None), budgets=budgets(True))
        theirs = Account(name=account_of(charged.client, charged.requester), budgets=budgets(False))
        promise = self._promise
        if promise is None or (charged.run, charged.secret) != (promise.run, promise.secret):
            return whole, theirs
        name = json.dumps([charged.client, charged.requester, promise.run], ensure_ascii=False)
        return whole, theirs, Account(name=name, budgets=(promise.budget,))

    def _refusal(self, charged: Charged, error: PrivacyError) -> RefusedError:
        if not isinstance(error, PrivacyBudgetError):
            return RefusedError(f"this site can't account for what was asked: {error.message}", hint=error.hint)
        spent = self.ledger.accounts()
        told = []
        for of in self._accounts(charged.key()):
            for budget in of.budgets:
                before = spent.get(of.name, Counter[Event]())
                now = (
                    account(_repeated(before), delta=budget.delta, neighbours=self._neighbours).epsilon
                    if before
                    else 0.0
                )
                told.append(f"ε = {now:.4g} of {budget} is spent, by {_who(of.name, self._unit)}")
        where = f"round {charged.round}" if charged.round else "the run"
        return RefusedError(
            f"{where}: this site's privacy budget has no room for it: {'; '.join(told)}",
            hint="more noise, fewer rounds, or a larger budget in the site's site.toml",
        )


def scope_of(dataset: str, unit: str) -> str:
    """A data set's scope in a site's ledger."""
    return f"{dataset} by {unit}"


def account_of(client: str, requester: str | None) -> str:
    """A client's account: of one requester, or (None) of all together."""
    return json.dumps([client] if requester is None else [client, requester], ensure_ascii=False)


def _who(name: str, unit: Unit) -> str:
    parts = json.loads(name)
    whose = f"the runs of `{parts[1]}`" if len(parts) > 1 else "all runs"
    if len(parts) > 2:
        whose = "this run, whose job promises no more,"
    return f"{whose} with {'' if unit == 'client' else 'each example of '}`{parts[0]}`"


def _repeated(events: Mapping[Event, int]) -> list[Event]:
    return [Repeated(event=event, count=count) for event, count in events.items()]
