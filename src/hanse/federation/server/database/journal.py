"""A run's durable record in the coordinator's database: a round's commit also lets go of the round's work.

A commit is: the state as a blob, then one transaction that names it and removes the items and the replies that the
round has used. A coordinator that comes back thus finds either the round, or what it was made from.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
from sqlalchemy import Connection, Select, delete, insert, select, update

from hanse.core.errors import ProtocolError, StorageError
from hanse.core.judged_round import Memory
from hanse.core.protocols import ServerState
from hanse.federation.blobs.store import Blobs
from hanse.federation.protocol import BlobRef
from hanse.federation.server.database.engine import Database
from hanse.federation.server.database.statements import insert_missing
from hanse.federation.server.database.tables import FACTS, ROUNDS
from hanse.federation.server.database.work_book import remove_committed
from hanse.rounds.history import History, Objective, RoundRecord
from hanse.rounds.record_json import history_of, record_from_json, record_to_json
from hanse.rounds.tensor_files import pack_arrays, pack_state, unpack_arrays, unpack_memory, unpack_state

S = TypeVar("S", bound=ServerState)

_STATISTICS = "."
"""The fact that names the statistics' blob; no fact of a run is called so."""


class DatabaseJournal:
    """The `Journal` of one run, and its facts.

    Args:
      database: The coordinator's database; it knows the run.
      blobs: Where states and statistics are kept.
      run: The run's id.
    """

    def __init__(self, database: Database, blobs: Blobs, run: str) -> None:
        self._database = database
        self._blobs = blobs
        self._run = run

    def close(self) -> None:
        """Nothing to let go of: the database is the coordinator's."""

    def fact(self, key: str) -> Any:
        """One fact about the run, or None."""
        query = select(FACTS.c.value).where(FACTS.c.run == self._run, FACTS.c.key == key)
        return self._database.read(lambda c: c.execute(query).scalar())

    def facts(self) -> dict[str, Any]:
        """All facts about the run."""
        query = select(FACTS.c.key, FACTS.c.value).where(FACTS.c.run == self._run, FACTS.c.key != _STATISTICS)
        rows = self._database.read(lambda c: c.execute(query).all())
        return {row.key: row.value for row in sorted(rows, key=lambda row: str(row.key))}

    def write_facts(self, facts: Mapping[str, Any]) -> None:
        """Write facts about the run, replacing what stood there, in one transaction."""
        rows = [{"run": self._run, "key": key, "value": value} for key, value in facts.items()]

        def work(connection: Connection) -> None:
            connection.execute(delete(FACTS).where(FACTS.c.run == self._run, FACTS.c.key.in_(list(facts))))
            connection.execute(insert(FACTS), rows)

        if rows:
            self._database.write(work)

    def history(self, objective: Objective) -> History:
        """All committed rounds; what each client scored, of the newest that has any."""
        query = self._records_query()
        return self._database.read(lambda c: history_of(map(record_from_json, c.execute(query).scalars()), objective))

    def records(self) -> list[dict[str, Any]]:
        """All committed rounds as `record_to_json` wrote them."""
        query = self._records_query()
        return list(self._database.read(lambda c: c.execute(query).scalars().all()))

    def _records_query(self) -> Select[tuple[Any]]:
        return select(ROUNDS.c.record).where(ROUNDS.c.run == self._run).order_by(ROUNDS.c.round)

    def state(self, template: S, round_number: int | None = None) -> S:
        """The state after a committed round, by default the newest.

        Raises:
          StorageError: That round was not committed, its state was not kept, or it is damaged.
        """
        query = select(ROUNDS).where(ROUNDS.c.run == self._run).order_by(ROUNDS.c.round.desc()).limit(1)
        if round_number is not None:
            query = query.where(ROUNDS.c.round == round_number)
        row = self._database.read(lambda c: c.execute(query).first())
        which = "" if round_number is None else f" {round_number}"
        if row is None:
            raise StorageError(f"run `{self._run}` has no round{which}")
        if row.state_sha256 is None:
            raise StorageError(f"the state of run `{self._run}` after round {row.round} was not kept")
        content = self._blobs.read(row.state_sha256)
        try:
            return unpack_state(bytearray(content), template)  # a strategy may step in place
        except ProtocolError as error:
            raise StorageError(f"the state of run `{self._run}` after round {row.round} is damaged: {error}") from error

    def statistics(self) -> Mapping[str, np.ndarray] | None:
        """The federated statistics, once they were written."""
        blob = self.statistics_blob()
        return None if blob is None else unpack_arrays(bytearray(self._blobs.read(blob.sha256)))

    def statistics_blob(self) -> BlobRef | None:
        """Where the statistics are, once they were written."""
        found = self.fact(_STATISTICS)
        return None if found is None else BlobRef.model_validate(found)

    def write_statistics(self, statistics: Mapping[str, np.ndarray]) -> None:
        """Write the federated statistics."""
        blob = self._blobs.put(pack_arrays(statistics))
        self.write_facts({_STATISTICS: blob.model_dump()})

    def memory(self) -> Memory:
        """What the aggregator carried out of the newest committed round."""
        query = select(ROUNDS.c.state_sha256).where(ROUNDS.c.run == self._run).order_by(ROUNDS.c.round.desc()).limit(1)
        sha256 = self._database.read(lambda c: c.execute(query).scalar())
        return {} if sha256 is None else unpack_memory(bytearray(self._blobs.read(sha256)))

    def commit(
        self, record: RoundRecord, state: ServerState, *, best_round: int | None, memory: Memory | None = None
    ) -> None:
        """Make a round durable, and remove the items and replies that it has used.

        A round that is there already stays as it is.

        Raises:
          StorageFullError: A disk is full; the rounds before this one are safe.
        """
        blob = self._blobs.put(pack_state(state, memory))
        row = {
            "run": self._run,
            "round": record.round,
            "record": record_to_json(record),
            "state_sha256": blob.sha256,
            "state_size": blob.size,
        }
        kept = {record.round} if best_round is None else {record.round, best_round}
        mine = (ROUNDS.c.run == self._run, ROUNDS.c.state_sha256.is_not(None))
        forget = update(ROUNDS).where(*mine, ROUNDS.c.round.not_in(sorted(kept)))

        def work(connection: Connection) -> None:
            connection.execute(insert_missing(connection, ROUNDS), row)
            connection.execute(forget.values(state_sha256=None, state_size=None))
            remove_committed(connection, self._run, record.round, record.late)

        self._database.write(work)
