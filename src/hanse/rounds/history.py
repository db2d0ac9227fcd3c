"""What happened in a run, round by round, as plain values: the source of tables, plots and reports."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from hanse.core.judged_round import Verdict
from hanse.core.stage_round import StageState
from hanse.rounds.standouts import Standing

Metrics = Mapping[str, float]
"""Metric name to value; ``loss`` is always among them."""

Where = Literal["train", "central", "federated", "personal", "validation"]
"""Where metrics were measured."""

Objective = tuple[str, Literal["max", "min"]]
"""The metric by which models are compared, and which way is better."""

RunStatus = Literal["running", "finished", "stopped early", "interrupted", "failed"]


@dataclass(frozen=True, kw_only=True)
class FailureRecord:
    """One client's failure in one round: in its training, in an earlier round's, or when it measured a model."""

    client: str
    kind: str
    message: str
    during: Literal["training", "late", "evaluation", "survey"] = "training"


@dataclass(frozen=True, kw_only=True)
class LateRecord:
    """An update of an earlier round, taken in by a later one.

    Args:
      client: Who.
      round: The round that it was asked for in, whose model it started from.
      factor: What its weight was multiplied with, in (0, 1]; 0 where it did not count, and the failures say why.
    """

    client: str
    round: int
    factor: float


@dataclass(frozen=True, kw_only=True)
class ClientScore:
    """One client's metrics of the model at the end of a round; `group` says of which, where there are several."""

    client: str
    num_examples: int
    metrics: Metrics
    group: str = ""


@dataclass(frozen=True, kw_only=True)
class ClientTraining:
    """What one client told of its training, where a selector learns from it.

    Args:
      client: Who.
      round: The round that it was asked for in.
      num_examples: Its training examples.
      loss: Mean training loss over all its local steps' examples; None where the task tells none.
    """

    client: str
    round: int
    num_examples: int
    loss: float | None


@dataclass(frozen=True, kw_only=True)
class RoundRecord:
    """One committed round. Round 0 is the model before training.

    Args:
      round: Number, from 0.
      status: ``"abandoned"`` where fewer than `min_clients` updates came; the model stayed as it was.
      cohort: Clients that were asked to train.
      failures: Clients that could not.
      not_awaited: Clients whose updates the round did not wait for: enough had come, or they may come late.
      num_updates: Usable updates that came, late ones included.
      late: Updates of earlier rounds that this round took in, or refused; they are never looked at again.
      num_examples: Training examples behind the round's aggregate; 0 where it was abandoned.
      train: Metrics during local training, over the cohort; empty where nothing trained.
      central: Metrics on the central test set; None where it was not evaluated this round.
      federated: Metrics over all evaluated clients' examples; None likewise.
      personal: Metrics of clients' own models, over the same examples; None where they have none. Where clients merely
        keep some tensors of the model for themselves, `federated` is of their own models, and so is this.
      validation: The same on the part that clients keep back for comparing models; None where there is none.
      clients: Metrics of each evaluated client; empty likewise, and where a secure sum adds them up. A `History` has
        them of the newest round alone; of the others, the journal in the run folder (`FileJournal.scores`).
      personal_clients: Each one's metrics of its own model, likewise; empty where `clients` is of their own models.
      bytes_down: Bytes of the vectors sent to clients for training this round, and of the messages of its secure sums.
      bytes_up: Bytes of the vectors they sent back, or of those sums' messages.
      seconds: Wall-clock seconds by phase: select, train, aggregate, evaluate, and journal (of the commit
        before this one).
      profile: Wall-clock seconds by part (`hanse.rounds.spans`), from the commit before this one (included) to
        this one, where the run is profiled; they add up to all of that time.
      note: What to know of this round, in words; empty if nothing.
      stages: States of the pipeline's stages after this round, by position.
      measured: What its stages measured on the round's aggregate, by position and name, such as ``0.norm``;
        where there are groups, the length of each one's mean update, such as ``edge-1.length``.
      simulated_seconds: Simulated seconds from the run's start to this round's end; None where no clock was simulated.
      trained: What each client whose update came told of its training, late ones included, where a selector learns from
        it; else empty.
      client_seconds: Seconds from order to answer of clients that trained: simulated ones, where devices are simulated;
        measured ones, where a selector over the network asks for these; else empty.
      groups: Which group each client of the cohort trained for, in the cohort's order, empty where its update did not
        count; empty where there are no groups, or nothing is to be said of them.
      central_by_group: Of a strategy with several models, each one's metrics on the central test set, by group;
        `central` is then their mean.
      attack: Of a simulated attack ``members``, how many of the cohort were hostile, and ``success``, the share of
        examples with the trigger that the model takes for what the attacker wants, where there is a trigger.
      verdicts: What the aggregator says of each update, where it judges them. A `History` has them of the newest such
        round alone, and what all of them come to in `standings`; of the others, the journal
        in the run folder (`FileJournal.verdicts`).
    """

    round: int
    status: Literal["finished", "abandoned"] = "finished"
    cohort: tuple[str, ...] = ()
    failures: tuple[FailureRecord, ...] = ()
    not_awaited: tuple[str, ...] = ()
    num_updates: int = 0
    late: tuple[LateRecord, ...] = ()
    num_examples: int = 0
    train: Metrics = field(default_factory=dict)
    central: Metrics | None = None
    federated: Metrics | None = None
    personal: Metrics | None = None
    validation: Metrics | None = None
    clients: tuple[ClientScore, ...] = ()
    personal_clients: tuple[ClientScore, ...] = ()
    bytes_down: int = 0
    bytes_up: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict)
    profile: Mapping[str, float] = field(default_factory=dict)
    note: str = ""
    stages: Mapping[str, StageState] = field(default_factory=dict)
    measured: Mapping[str, float] = field(default_factory=dict)
    simulated_seconds: float | None = None
    trained: tuple[ClientTraining, ...] = ()
    client_seconds: Mapping[str, float] = field(default_factory=dict)
    groups: tuple[str, ...] = ()
    central_by_group: Mapping[str, Metrics] = field(default_factory=dict)
    attack: Metrics = field(default_factory=dict)
    verdicts: tuple[Verdict, ...] = ()

    def accepted(self) -> Iterator[tuple[str, int]]:
        """Clients whose updates went into the model this round, and the round that each was asked for in."""
        if self.status == "abandoned":
            return
        without = {failure.client for failure in self.failures if failure.during == "training"} | set(self.not_awaited)
        yield from ((update.client, update.round) for update in self.late if update.factor)
        yield from ((client, self.round) for client in self.cohort if client not in without)

    def objective_value(self, name: str) -> float | None:
        """The metric on clients' validation parts if measured there, else centrally, else over clients.

        Where there are several models, clients come before the central test set: each is measured with its own.
        """
        others = (self.federated, self.central) if self.central_by_group else (self.central, self.federated)
        for metrics in (self.validation, *others):
            if metrics is not None and name in metrics:
                return metrics[name]
        return None


@dataclass(frozen=True, kw_only=True)
class History:
    """All committed rounds of a run, in order.

    Args:
      rounds: One record each.
      objective: Metric by which models are compared, and which way is better.
      standings: What verdicts of all rounds said of each client, by name; empty where no update was judged. Of a
        history that has its records whole, `hanse.rounds.standouts.judged` makes them.
    """

    rounds: tuple[RoundRecord, ...] = ()
    objective: Objective = ("loss", "min")
    standings: tuple[Standing, ...] = ()

    @property
    def last(self) -> RoundRecord | None:
        """The newest record."""
        return self.rounds[-1] if self.rounds else None

    def series(self, metric: str, where: Where = "central") -> dict[int, float]:
        """Round to value, for the rounds in which `metric` was measured there."""
        found: dict[int, float] = {}
        for record in self.rounds:
            metrics: Metrics | None = getattr(record, where)
            if metrics is not None and metric in metrics:
                found[record.round] = metrics[metric]
        return found

    def objective_series(self) -> dict[int, float]:
        """The objective by round, where it was measured; see `RoundRecord.objective_value`."""
        name = self.objective[0]
        found = ((record.round, record.objective_value(name)) for record in self.rounds)
        return {number: value for number, value in found if value is not None}

    def best_round(self) -> int | None:
        """The first round with the best objective; None where nothing was evaluated."""
        series = {r: v for r, v in self.objective_series().items() if v == v}  # NaN is never best
        if not series:
            return None
        sign = 1 if self.objective[1] == "min" else -1
        return min(series, key=lambda r: (sign * series[r], r))

    def first_reaching(self, target: float) -> int | None:
        """The first round whose objective is at least as good as `target`."""
        sign = 1 if self.objective[1] == "max" else -1
        return next((r for r, v in self.objective_series().items() if sign * v >= sign * target), None)

    def last_scores(self) -> tuple[ClientScore, ...]:
        """Per-client metrics of the newest round that has any."""
        return next((record.clients for record in reversed(self.rounds) if record.clients), ())

    def last_personal_scores(self) -> tuple[ClientScore, ...]:
        """The same of clients' own models; empty where they have none."""
        found = next((record for record in reversed(self.rounds) if record.clients), None)
        if found is None or found.personal is None:
            return ()
        return found.personal_clients or found.clients

    def last_personal(self) -> Metrics | None:
        """Metrics of clients' own models, over all their examples, of the newest round that has any."""
        return next((record.personal for record in reversed(self.rounds) if record.personal is not None), None)

    @property
    def has_personal(self) -> bool:
        """Whether clients' own models were measured beside a shared one."""
        return any(record.personal is not None and record.personal != record.federated for record in self.rounds)

    def total_seconds(self) -> dict[str, float]:
        """Seconds by phase, over all rounds."""
        total: dict[str, float] = {}
        for record in self.rounds:
            for phase, seconds in record.seconds.items():
                total[phase] = total.get(phase, 0.0) + seconds
        return total

    @property
    def bytes_up(self) -> int:
        """Bytes from clients to the server, over all rounds."""
        return sum(record.bytes_up for record in self.rounds)

    @property
    def bytes_down(self) -> int:
        """Bytes from the server to clients, over all rounds."""
        return sum(record.bytes_down for record in self.rounds)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Is it worth joining? One metric, on each client's held-out examples, under several models.

    Args:
      metric: Name of the metric; `better` says which way.
      better: ``"max"`` or ``"min"``.
      clients: Client ids.
      num_examples: Held-out examples of each client.
      columns: Model name (``own``, ``federated``, ``pooled``) to one value per client.
      overall: Model name to the value over all clients' examples.
    """

    metric: str
    better: Literal["max", "min"]
    clients: tuple[str, ...]
    num_examples: tuple[int, ...]
    columns: Mapping[str, tuple[float, ...]]
    overall: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """Everything that is said about a run; `hanse show --json` prints it.

    Args:
      name: The run's name, its folder's name.
      status: Where it stands.
      path: The run folder, or empty for a run in memory.
      rounds_planned: As the job says.
      history: The committed rounds.
      model_sha256: Identity of the newest committed parameters.
      num_parameters: P.
      num_clients: Clients in the federation.
      job: The job as plain values, complete enough to repeat the run.
      versions: Package to version, Python and platform included.
      started: ISO 8601 time with zone.
      seconds: Wall-clock seconds spent, start-up included, over all attempts.
      comparison: Set where baselines were run.
      between_sites: Whether it ran in a federation, and not in a simulation.
    """

    name: str
    status: RunStatus
    path: str
    rounds_planned: int
    history: History
    model_sha256: str
    num_parameters: int
    num_clients: int
    job: Mapping[str, object]
    versions: Mapping[str, str]
    started: str = ""
    seconds: float = 0.0
    comparison: Comparison | None = None
    between_sites: bool = False
