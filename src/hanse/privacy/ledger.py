"""`PrivacyLedger`: the durable account of what was released, written before the release that it accounts for.

A charge that returned is on the disk; a release without a charge that returned must not happen. So a crash can leave
a charge whose release never happened, which over-counts by one and is forgiven when the same key is charged again,
and never a release that was not charged.

It is an SQLite file through Python's own driver, not SQLAlchemy as the journal is: a site needs nothing installed for
it. Two settings differ from the journal's, for the same reason, that an entry must never be lost:

- `journal_mode = DELETE` in place of WAL: the one file holds everything once a charge returned, so a copy of the file
  is a copy of the ledger. A copy of a WAL database without its `-wal` would silently lack the newest entries.
- `synchronous = EXTRA` in place of FULL: without a sync of the folder after the rollback journal is removed, a power
  cut could bring that journal back, and it would undo the charge.

Entries can't be changed or removed through SQL (triggers), and each holds the hash of the one before, so that one that
was changed, dropped or moved by other means is found when the ledger is opened. What a hash chain can't find is a
ledger that was put back to an older state as a whole: compare `head` with what is kept elsewhere.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from hanse.core.errors import HanseError, PrivacyBudgetError, PrivacyError, StorageError, StorageFullError
from hanse.privacy.accountant import Spent, account
from hanse.privacy.budget import Budget
from hanse.privacy.event_json import event_from_dict, event_to_dict
from hanse.privacy.events import Event
from hanse.privacy.flatten import flatten
from hanse.privacy.horizon import BudgetHorizon
from hanse.privacy.neighbours import Neighbours

LEDGER_VERSION = 1
"""Of the tables; kept in the file as SQLite's `user_version`."""

_WAIT_SECONDS = 60.0  # for another process that is charging
_EMPTY = "0" * 64

_TABLES = (
    "CREATE TABLE entries (scope TEXT NOT NULL, number INTEGER NOT NULL, run TEXT NOT NULL, round INTEGER NOT NULL, "
    "attempt INTEGER NOT NULL, part TEXT NOT NULL, event TEXT NOT NULL, sha256 TEXT NOT NULL, "
    "PRIMARY KEY (scope, number), UNIQUE (scope, run, round, attempt, part))",
    "CREATE TRIGGER no_update BEFORE UPDATE ON entries BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END",
    "CREATE TRIGGER no_delete BEFORE DELETE ON entries BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END",
    f"PRAGMA user_version = {LEDGER_VERSION}",
)
_SELECT = (
    "SELECT number, run, round, attempt, part, event, sha256 FROM entries WHERE scope = ? AND number > ? "
    "ORDER BY number"
)
_HASH = "SELECT sha256 FROM entries WHERE scope = ? AND number = ?"


@dataclass(frozen=True, kw_only=True)
class ChargeKey:
    """What makes a charge the same charge when it is made again.

    Args:
      run: The run's name.
      round: >= 0; what is charged for a whole run at once is charged in round 0.
      attempt: >= 0; a release that is made anew, with fresh noise, is another attempt and costs again.
      part: Tells several releases of one attempt apart, for example "update" and "metrics".
    """

    run: str
    round: int
    attempt: int = 0
    part: str = ""

    def __post_init__(self) -> None:
        for name in ("run", "part"):
            if not isinstance(getattr(self, name), str):
                raise PrivacyError(f"a charge's {name} is {getattr(self, name)!r}; wanted a text")
        for name in ("round", "attempt"):
            if type(getattr(self, name)) is not int or getattr(self, name) < 0:
                raise PrivacyError(f"a charge's {name} is {getattr(self, name)!r}; wanted a whole number >= 0")

    def __str__(self) -> str:
        return f"run `{self.run}`, round {self.round}, attempt {self.attempt}" + (f", {self.part}" if self.part else "")


@dataclass(frozen=True, kw_only=True)
class LedgerEntry:
    """One charge, as it stands in the ledger.

    Args:
      number: Its place in its scope, from 1 on, without gaps.
      key: What it is for.
      event: What was released.
      sha256: The hash of this entry and, through the one before, of all before it.
    """

    number: int
    key: ChargeKey
    event: Event
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Account:
    """What some of a scope's charges are added up in.

    Args:
      name: Tells it from the scope's other accounts.
      budgets: What may not be exceeded; empty where nothing bounds it.
    """

    name: str = ""
    budgets: tuple[Budget, ...] = ()


class PrivacyLedger:
    """Everything released under one scope, with the budget that it may not exceed.

    The coordinator keeps one with a run or a data set as its scope, a site one for each requester and data set; any
    number of scopes share a file, and any number of processes may have it open.

    Args:
      path: The file; made, with its folder, if it is not there.
      scope: Whose privacy this is about: text that never changes, such as ``"requester/data set"``.
      budget: What the scope may cost in all; without one everything is charged and nothing refused.
      neighbours: The relation to account under; by default the one that the entries have in common.
      accounts: Which accounts a charge goes to, each with its own budgets, for example one for each person that the
        scope is about; by default all charges go to one, with `budget`.

    Raises:
      StorageError: The file can't be opened or written, is damaged, was tampered with, or is of another version.
      PrivacyError: The scope is empty, or an entry can't be read.
    """

    def __init__(
        self,
        path: Path,
        *,
        scope: str,
        budget: Budget | None = None,
        neighbours: Neighbours | None = None,
        accounts: Callable[[ChargeKey], Sequence[Account]] | None = None,
    ) -> None:
        if not isinstance(scope, str) or not scope:
            raise PrivacyError("a ledger's scope is a text that says whose privacy it accounts for; this one is empty")
        self._path = path
        self._scope = scope
        self._budget = budget
        self._neighbours = neighbours
        whole = (Account(budgets=() if budget is None else (budget,)),)
        self._accounts_of = accounts or (lambda _: whole)
        self._horizons: dict[Budget, BudgetHorizon] = {}
        self._entries: dict[ChargeKey, LedgerEntry] = {}
        self._events: dict[str, Counter[Event]] = {}
        self._head = _EMPTY
        with self._guard():
            path.parent.mkdir(parents=True, exist_ok=True)
            with self._connection() as connection:
                self._create(connection)
                self._catch_up(connection)

    @property
    def budget(self) -> Budget | None:
        """What the scope may cost in all."""
        return self._budget

    @property
    def head(self) -> tuple[int, str]:
        """How many entries there are, and the hash of the last: kept elsewhere, it betrays a file that was put back."""
        return len(self._entries), self._head

    def charge(self, key: ChargeKey, event: Event, *, planned: int = 0) -> LedgerEntry:
        """Write down a release before it happens; when this returns, it is on the disk.

        The same key with the same event is charged once, however often it is asked for and whatever the budget has
        become, so a round that is resumed after a crash charges again without harm.

        Args:
          key: What the release is for.
          event: What will be released.
          planned: How often it will be, this time included, if all goes as planned; saves time, and changes nothing.

        Raises:
          PrivacyBudgetError: The scope would cost more than its budget; nothing was written.
          PrivacyError: The key was charged with another event, or the event can't be accounted for with the others.
          StorageError: It could not be written; nothing may be released.
        """
        refused = self.charge_each([(key, event)], planned=planned)
        if refused:
            raise refused[key]
        return self._entries[key]

    def charge_each(
        self, charges: Sequence[tuple[ChargeKey, Event]], *, planned: int = 0
    ) -> dict[ChargeKey, PrivacyError]:
        """Write down several releases at once, each as `charge` does; those that are refused cost the others nothing.

        Args:
          charges: What will be released.
          planned: As in `charge`.

        Returns:
          Why not, for those that were not written and may not be released.

        Raises:
          StorageError: They could not be written; nothing may be released.
        """
        refused: dict[ChargeKey, PrivacyError] = {}
        with self._guard(), self._connection() as connection:
            with _transaction(connection):
                self._catch_up(connection)
                number, head = len(self._entries), self._head
                new: dict[ChargeKey, Event] = {}
                added: dict[str, Counter[Event]] = {}
                for key, event in charges:
                    try:
                        if (known := self._known(key, new)) is not None:
                            self._same(key, known, event)
                            continue
                        self._check_room(key, event, added, planned)
                    except PrivacyError as error:
                        refused[key] = error
                        continue
                    number, new[key] = number + 1, event
                    for each in self._accounts_of(key):
                        added.setdefault(each.name, Counter())[event] += 1
                    text = json.dumps(event_to_dict(event), sort_keys=True, separators=(",", ":"))
                    head = _chained(head, self._scope, number, key, text)
                    values = (self._scope, number, key.run, key.round, key.attempt, key.part, text, head)
                    connection.execute("INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)
            self._catch_up(connection)
        return refused

    def check(self, key: ChargeKey, event: Event) -> None:
        """Whether a charge would be taken, and nothing is written; `Repeated` says whether several would.

        Raises:
          PrivacyBudgetError: It would cost more than a budget.
          PrivacyError: It can't be accounted for with the others.
        """
        self._refresh()
        self._check_room(key, event, {})

    def would_spend(self, event: Event, *, delta: float | None = None, account: str = "") -> Spent:
        """What everything would cost if `event` were charged too.

        Args:
          event: What might be released.
          delta: At which to account; by default the budget's.
          account: Of which account.
        """
        self._refresh()
        return self._account(self._of(account) + Counter([event]), delta)

    def spent(self, *, delta: float | None = None, account: str = "") -> Spent:
        """What everything so far costs together.

        Args:
          delta: At which to account; by default the budget's.
          account: Of which account.
        """
        self._refresh()
        return self._account(self._of(account), delta)

    def accounts(self) -> Mapping[str, Counter[Event]]:
        """What was charged to each account, as far as anything was."""
        self._refresh()
        return {name: Counter(events) for name, events in self._events.items()}

    def entries(self) -> tuple[LedgerEntry, ...]:
        """All charges of the scope, oldest first."""
        self._refresh()
        return tuple(self._entries.values())

    def spent_by_round(self, run: str, *, delta: float | None = None, points: int = 24) -> dict[int, Spent]:
        """What the scope had cost after rounds of a run, with all that other runs had cost by then.

        Args:
          run: The run's name.
          delta: At which to account; by default the budget's.
          points: At most about so many rounds are looked at, the last one among them; each takes a moment.
        """
        self._refresh()
        entries = list(self._entries.values())
        last = {entry.key.round: place for place, entry in enumerate(entries) if entry.key.run == run}
        rounds = sorted(last)
        kept = {rounds[step * (len(rounds) - 1) // max(1, points - 1)] for step in range(points)} if rounds else set()
        return {
            number: self._account(Counter(entry.event for entry in entries[: last[number] + 1]), delta)
            for number in sorted(kept)
        }

    def _account(self, events: Counter[Event], delta: float | None) -> Spent:
        chosen = self._budget.delta if delta is None and self._budget is not None else delta
        return account(events, delta=chosen, neighbours=self._neighbours)

    def _of(self, account: str) -> Counter[Event]:
        return self._events.get(account, Counter())

    def _check_room(self, key: ChargeKey, event: Event, added: Mapping[str, Counter[Event]], planned: int = 0) -> None:
        for each in self._accounts_of(key):
            events = self._of(each.name) + added.get(each.name, Counter())
            # what could not be accounted for afterwards is not released
            flatten(events + Counter([event]), self._neighbours)
            for budget in each.budgets:
                self._check_budget(budget, key, events, event, planned)

    def _check_budget(self, budget: Budget, key: ChargeKey, events: Counter[Event], event: Event, planned: int) -> None:
        horizon = self._horizons.setdefault(budget, BudgetHorizon(budget, self._neighbours))
        if horizon.allows(events, event, planned=planned):
            return
        before, after = self._account(events, budget.delta), self._account(events + Counter([event]), budget.delta)
        raise PrivacyBudgetError(
            f"`{self._scope}`: {key} would bring ε from {before.epsilon:.4g} to {after.epsilon:.4g}; "
            f"the budget is {budget}, so nothing was released",
            hint="the run ends here; more rounds need more noise from the start, or a larger budget",
        )

    def _known(self, key: ChargeKey, new: Mapping[ChargeKey, Event]) -> Event | None:
        found = self._entries.get(key)
        return new.get(key) if found is None else found.event

    def _same(self, key: ChargeKey, found: Event, event: Event) -> None:
        if found != event:
            raise PrivacyError(
                f"`{self._scope}`: {key} was charged as {found}, and is now charged as {event}",
                hint="a release with other noise or another sample is another attempt, and costs again",
            )

    def _refresh(self) -> None:
        with self._guard(), self._connection() as connection:
            self._catch_up(connection)

    def _catch_up(self, connection: sqlite3.Connection) -> None:
        """Read what was written since; checks every entry's hash, and that what was read before is still there."""
        if self._entries:
            last = connection.execute(_HASH, (self._scope, len(self._entries))).fetchone()
            if last is None or last[0] != self._head:
                raise self._tampered(len(self._entries))
        for number, run, round_number, attempt, part, text, sha256 in connection.execute(
            _SELECT, (self._scope, len(self._entries))
        ):
            try:
                key = ChargeKey(run=run, round=round_number, attempt=attempt, part=part)
                wanted = _chained(self._head, self._scope, len(self._entries) + 1, key, text)
                if number != len(self._entries) + 1 or sha256 != wanted:
                    raise self._tampered(number)
                values = json.loads(text)
            except (PrivacyError, TypeError, ValueError) as error:
                raise self._tampered(number) from error
            event = event_from_dict(values)
            self._entries[key] = LedgerEntry(number=number, key=key, event=event, sha256=sha256)
            for each in self._accounts_of(key):
                self._events.setdefault(each.name, Counter())[event] += 1
            self._head = sha256

    def _tampered(self, number: object) -> StorageError:
        return StorageError(
            f"`{self._path}`: entry {number} of `{self._scope}` does not follow from the one before it: the file was "
            "changed by something other than Hanse, or is damaged",
            hint="restore it from a copy; until then what was spent is not known, so nothing may be released",
        )

    def _create(self, connection: sqlite3.Connection) -> None:
        if self._version(connection) == 0:
            with _transaction(connection):
                if self._version(connection) == 0:  # nobody else was faster
                    for statement in _TABLES:
                        connection.execute(statement)
        if (version := self._version(connection)) != LEDGER_VERSION:
            raise StorageError(
                f"`{self._path}` is a ledger of version {version}; this Hanse reads version {LEDGER_VERSION}",
                hint="open it with the version of Hanse that wrote it, or a newer one",
            )

    def _version(self, connection: sqlite3.Connection) -> int:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        # a connection a use, as the journal does: nothing is shared with worker processes or left open
        connection = sqlite3.connect(self._path, timeout=_WAIT_SECONDS, isolation_level=None)
        with closing(connection):
            connection.execute("PRAGMA journal_mode = DELETE")
            connection.execute("PRAGMA synchronous = EXTRA")
            connection.execute("PRAGMA fullfsync = 1")  # macOS: through the disk's cache
            yield connection

    @contextmanager
    def _guard(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StorageError(f"`{self._path}` could not be written: {error.strerror or error}") from error
        except sqlite3.Error as error:
            raise _storage_error(error, self._path) from error


def scopes_in(path: Path) -> list[str]:
    """The scopes of a ledger's file, in alphabetical order.

    Raises:
      StorageError: It can't be read.
    """
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=_WAIT_SECONDS)) as found:
            return [scope for (scope,) in found.execute("SELECT DISTINCT scope FROM entries ORDER BY scope")]
    except sqlite3.Error as error:
        raise _storage_error(error, path) from error


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All or nothing, with the write lock from the start: what is checked inside still holds when it is written."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        with suppress(sqlite3.Error):  # a failed write may have rolled back already
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _chained(before: str, scope: str, number: int, key: ChargeKey, event: str) -> str:
    content = json.dumps([before, scope, number, key.run, key.round, key.attempt, key.part, event])
    return hashlib.sha256(content.encode()).hexdigest()


def _storage_error(error: sqlite3.Error, path: Path) -> HanseError:
    text = str(error)
    if text == "database or disk is full":  # SQLite's own words
        return StorageFullError(
            f"the disk is full: `{path}` could not be written, so nothing was released",
            hint="free some space, then go on: every charge that was made is safe",
        )
    if isinstance(error, sqlite3.OperationalError):
        return StorageError(
            f"`{path}` could not be opened or written: {text}", hint="check the path and its permissions"
        )
    return StorageError(
        f"`{path}` is damaged: {text}", hint="restore it from a copy; until then nothing may be released"
    )
