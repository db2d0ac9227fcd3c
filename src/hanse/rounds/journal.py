"""The durable record of a run: one commit a round, so that a killed run resumes where it was.

A commit is: the state as a file (written whole, flushed), then one database transaction that names it. What
no committed round names does not exist; it is removed at the next commit.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from sqlalchemy import (
    JSON,
    Column,
    Connection,
    Engine,
    Integer,
    MetaData,
    String,
    Table,
    create_engine,
    event,
    insert,
    select,
)
from sqlalchemy.exc import DatabaseError, OperationalError
from sqlalchemy.pool import NullPool

from hanse.core.errors import HanseError, StorageError, StorageFullError
from hanse.core.judged_round import Memory, Verdict
from hanse.core.protocols import ServerState
from hanse.rounds.history import ClientScore, History, Objective, RoundRecord
from hanse.rounds.record_json import history_of, record_from_json, record_to_json, scores_from_json, scores_to_json
from hanse.rounds.standouts import Tally
from hanse.rounds.tensor_files import load_arrays, load_memory, load_state, save_arrays, save_state, storage_error

_INHERITED: list[Connection] = []
"""Connections of a parent process, held for good: to be collected would be to be closed."""

S = TypeVar("S", bound=ServerState)
SCHEMA_VERSION = 1

_META = MetaData()
_ROUNDS = Table(
    "rounds",
    _META,
    Column("round", Integer, primary_key=True),
    Column("record", JSON, nullable=False),
    Column("state_file", String, nullable=False),
)
_SCORES = Table(
    "scores",
    _META,
    Column("round", Integer, primary_key=True),
    Column("scores", JSON, nullable=False),
)
"""What each client scored, beside the records: they are many, and a history holds the newest ones alone."""
_FACTS = Table("facts", _META, Column("key", String, primary_key=True), Column("value", JSON, nullable=False))


class Journal(Protocol):
    """What the round loop asks of a journal."""

    def history(self, objective: Objective) -> History:
        """All committed rounds; what each client scored, and verdicts, of the newest that has any."""
        ...

    def state(self, template: S, round_number: int | None = None) -> S:
        """The state after a committed round, by default the newest."""
        ...

    def statistics(self) -> Mapping[str, np.ndarray] | None:
        """The federated statistics, once they were written."""
        ...

    def write_statistics(self, statistics: Mapping[str, np.ndarray]) -> None:
        """Write the federated statistics; once a run."""
        ...

    def memory(self) -> Memory:
        """What the aggregator carried out of the newest committed round; empty where it was nothing."""
        ...

    def commit(
        self, record: RoundRecord, state: ServerState, *, best_round: int | None, memory: Memory | None = None
    ) -> None:
        """Make a round durable; the states of this round and of `best_round` stay readable."""
        ...


class MemoryJournal:
    """For runs without a folder: nothing survives the process."""

    def __init__(self) -> None:
        self._records: list[RoundRecord] = []
        self._scored: int | None = None  # the newest that says what each client scored
        self._judged: int | None = None  # the newest that has verdicts
        self._tally = Tally()
        self._states: dict[int, Any] = {}
        self._statistics: Mapping[str, np.ndarray] | None = None
        self._memory: Memory = {}

    def history(self, objective: Objective) -> History:
        """All committed rounds."""
        return History(rounds=tuple(self._records), objective=objective, standings=self._tally.standings())

    def state(self, template: S, round_number: int | None = None) -> S:
        """The state after a committed round, by default the newest."""
        wanted = self._records[-1].round if round_number is None else round_number
        found: S = self._states[wanted]
        return found

    def statistics(self) -> Mapping[str, np.ndarray] | None:
        """The federated statistics, once they were written."""
        return self._statistics

    def write_statistics(self, statistics: Mapping[str, np.ndarray]) -> None:
        """Keep the federated statistics."""
        self._statistics = statistics

    def memory(self) -> Memory:
        """What the aggregator carried out of the newest committed round."""
        return self._memory

    def commit(
        self, record: RoundRecord, state: ServerState, *, best_round: int | None, memory: Memory | None = None
    ) -> None:
        """Keep the record and the state; drop states that nobody will ask for."""
        self._memory = memory or {}
        if record.clients:
            if self._scored is not None:
                self._records[self._scored] = replace(self._records[self._scored], clients=(), personal_clients=())
            self._scored = len(self._records)
        if record.verdicts:
            if self._judged is not None:
                self._records[self._judged] = replace(self._records[self._judged], verdicts=())
            self._judged = len(self._records)
            self._tally.add(record.round, record.verdicts)
        self._records.append(record)
        self._states[record.round] = state
        for number in set(self._states) - {record.round, best_round}:
            del self._states[number]


class FileJournal:
    """A run folder's journal: SQLite through SQLAlchemy, states as safetensors.

    Args:
      folder: The run folder; made if it is not there.

    Raises:
      StorageError: The folder can't be written, or holds a journal of another version.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._states = folder / "state"
        self._path = folder / "journal.sqlite"
        self._writing: Connection | None = None
        self._process = os.getpid()
        with self._guard():
            self._states.mkdir(parents=True, exist_ok=True)
            self._engine = _engine(self._path)
            _META.create_all(self._engine)
        version = self.fact("schema_version")
        if version is None:
            self.write_facts({"schema_version": SCHEMA_VERSION})
        elif version != SCHEMA_VERSION:
            raise StorageError(
                f"`{self._path}` has journal version {version}; this Hanse reads version {SCHEMA_VERSION}",
                hint="open it with the version of Hanse that wrote it: see the run's `versions`",
            )

    def close(self) -> None:
        """Let go of the database; it can be used again."""
        writing, self._writing = self._writing, None
        if writing is None:
            return
        if self._process == os.getpid():
            writing.close()
        else:
            _INHERITED.append(writing)

    def fact(self, key: str) -> Any:
        """One fact about the run, or None."""
        with self._guard(), self._engine.connect() as connection:
            row = connection.execute(select(_FACTS.c.value).where(_FACTS.c.key == key)).first()
        return None if row is None else row[0]

    def facts(self) -> dict[str, Any]:
        """All facts about the run."""
        with self._guard(), self._engine.connect() as connection:
            rows = connection.execute(select(_FACTS.c.key, _FACTS.c.value)).all()
        return {row[0]: row[1] for row in rows}

    def write_facts(self, facts: Mapping[str, Any]) -> None:
        """Write facts about the run, replacing what stood there, in one transaction."""
        with self._guard(), self._engine.begin() as connection:
            for key, value in facts.items():
                connection.execute(_FACTS.delete().where(_FACTS.c.key == key))
                connection.execute(insert(_FACTS).values(key=key, value=value))

    def restore(self, facts: Mapping[str, Any], records: Iterable[Mapping[str, Any]]) -> None:
        """Make this the journal of a run that was kept elsewhere, in place of what stood here; it has no states.

        Args:
          facts: All facts about the run.
          records: Its round records, as `record_to_json` writes them.

        Raises:
          StorageError: A record is none.
        """
        try:
            rows = [_row(record_from_json(record), "") for record in records]
        except (KeyError, TypeError) as error:
            raise StorageError(f"`{self._path}`: a round record is of another version: {error}") from error
        with self._guard(), self._engine.begin() as connection:
            for table in (_FACTS, _ROUNDS, _SCORES):
                connection.execute(table.delete())
            for key, value in {**facts, "schema_version": SCHEMA_VERSION}.items():
                connection.execute(insert(_FACTS).values(key=key, value=value))
            for row, scores in rows:
                _insert(connection, row, scores)

    def history(self, objective: Objective) -> History:
        """All committed rounds; what each client scored, of the newest that has any: see `scores` for the others."""
        newest = select(_SCORES).order_by(_SCORES.c.round.desc()).limit(1)
        with self._guard(), self._engine.connect() as connection:
            scored = connection.execute(newest).first()

            def read() -> Iterator[RoundRecord]:
                for (values,) in connection.execute(select(_ROUNDS.c.record).order_by(_ROUNDS.c.round)):
                    record = record_from_json(values)
                    if scored is not None and record.round == scored.round:
                        own = scored.scores.get("personal")
                        record = replace(
                            record,
                            clients=scores_from_json(scored.scores),
                            personal_clients=scores_from_json(own) if own else (),
                        )
                    yield record

            return history_of(read(), objective)

    def scores(self) -> Iterator[tuple[int, tuple[ClientScore, ...]]]:
        """What each client scored, round by round; one round is held at a time."""
        with self._guard(), self._engine.connect() as connection:
            for row in connection.execute(select(_SCORES).order_by(_SCORES.c.round)):
                yield row.round, scores_from_json(row.scores)

    def verdicts(self) -> Iterator[tuple[int, tuple[Verdict, ...]]]:
        """What the aggregator said of each update, of the rounds in which it judged; one round is held at a time."""
        with self._guard(), self._engine.connect() as connection:
            for (values,) in connection.execute(select(_ROUNDS.c.record).order_by(_ROUNDS.c.round)):
                record = record_from_json(values)
                if record.verdicts:
                    yield record.round, record.verdicts

    def state(self, template: S, round_number: int | None = None) -> S:
        """The state after a committed round, by default the newest.

        Raises:
          StorageError: That round was not committed, or its state was not kept.
        """
        query = select(_ROUNDS.c.state_file).order_by(_ROUNDS.c.round.desc())
        if round_number is not None:
            query = query.where(_ROUNDS.c.round == round_number)
        with self._guard(), self._engine.connect() as connection:
            row = connection.execute(query).first()
        if row is None:
            raise StorageError(f"`{self._path}` holds no round {'' if round_number is None else round_number}".rstrip())
        return load_state(self._states / row[0], template)

    def statistics(self) -> Mapping[str, np.ndarray] | None:
        """The federated statistics, once they were written."""
        return load_arrays(self._statistics_path) if self._statistics_path.exists() else None

    def write_statistics(self, statistics: Mapping[str, np.ndarray]) -> None:
        """Write the federated statistics."""
        save_arrays(self._statistics_path, statistics)

    def memory(self) -> Memory:
        """What the aggregator carried out of the newest committed round; raises `StorageError`."""
        query = select(_ROUNDS.c.state_file).order_by(_ROUNDS.c.round.desc()).limit(1)
        with self._guard(), self._engine.connect() as connection:
            name = connection.execute(query).scalar()
        return load_memory(self._states / name) if name else {}

    def commit(
        self, record: RoundRecord, state: ServerState, *, best_round: int | None, memory: Memory | None = None
    ) -> None:
        """Make a round durable.

        Raises:
          StorageFullError: The disk is full; the rounds before this one are safe.
        """
        name = f"round-{record.round:08d}.safetensors"
        save_state(self._states / name, state, memory)
        row, scores = _row(record, name)
        with self._guard(), self._kept_open() as connection, connection.begin():
            _insert(connection, row, scores)
        kept = {name, f"round-{best_round:08d}.safetensors"} if best_round is not None else {name}
        with suppress(OSError):  # the round is durable; what can't be removed now goes at the next commit
            for path in self._states.iterdir():
                if path.name not in kept:
                    path.unlink(missing_ok=True)

    @contextmanager
    def _kept_open(self) -> Iterator[Connection]:
        """The connection that all commits share, since to open one costs as much as to commit; closed on an error.

        A forked child that inherits it must neither use nor close it, and opens one of its own.
        """
        if self._process != os.getpid():
            self.close()
            self._process = os.getpid()
        if self._writing is None:
            self._writing = self._engine.connect()
        try:
            yield self._writing
        except BaseException:
            self.close()
            raise

    @property
    def _statistics_path(self) -> Path:
        return self._folder / "statistics.safetensors"

    @contextmanager
    def _guard(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise storage_error(error, self._path) from error
        except DatabaseError as error:
            raise _database_error(error, self._path) from error


def _row(record: RoundRecord, state_file: str) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """A round's row, and what its clients scored."""
    plain = record_to_json(replace(record, clients=(), personal_clients=()))
    row = {"round": record.round, "record": plain, "state_file": state_file}
    if not record.clients:
        return row, None
    own = {"personal": scores_to_json(record.personal_clients)} if record.personal_clients else {}
    return row, {**scores_to_json(record.clients), **own}


def _insert(connection: Connection, row: Mapping[str, Any], scores: Mapping[str, Any] | None) -> None:
    connection.execute(insert(_ROUNDS), dict(row))
    if scores is not None:
        connection.execute(insert(_SCORES), {"round": row["round"], "scores": scores})


def _engine(path: Path) -> Engine:
    # one connection a use, but for commits: a run folder that was read stays open for nobody
    engine = create_engine(f"sqlite:///{path}", poolclass=NullPool)

    @event.listens_for(engine, "connect")
    def _configure(connection: sqlite3.Connection, _: object) -> None:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")  # a committed round survives a power cut too

    return engine


def _database_error(error: DatabaseError, path: Path) -> HanseError:
    text = str(error.orig)
    if text == "database or disk is full":  # SQLite's own words; a path may hold some of them too
        return StorageFullError(
            f"the disk is full: `{path}` could not be written",
            hint="every committed round is safe; free some space, then go on with: hanse resume",
        )
    if isinstance(error, OperationalError):
        return StorageError(
            f"`{path}` could not be opened or written: {text}",
            hint="choose another folder with --out, or change its permissions",
        )
    return StorageError(f"`{path}` is damaged: {text}", hint="restore it from a copy, or start the run anew")
