"""What a job would cost: parameters, bytes a round, memory; computed from its parts, with nothing run."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from hanse.aggregators.hidden_round import SumSizes
from hanse.aggregators.robust.aggregator import Robust
from hanse.core.local_work import LocalWork
from hanse.core.messages import Update
from hanse.core.params import Params, ParamSpec, TensorSpec
from hanse.core.randomness import stream
from hanse.core.units import plural
from hanse.data.examples import Examples
from hanse.jobs.assemble import BuiltJob
from hanse.pipeline.binding import PipelineRound
from hanse.pipeline.downlink import encoded
from hanse.rounds.brought_vectors import said_uploads
from hanse.rounds.initial_state import first_broadcasts, initial_state
from hanse.rounds.number_sums import SumOfNumbers, number_sizes, sums_of_numbers
from hanse.rounds.secure_sum import secure_sizes, secure_times
from hanse.rounds.selection import Surveys, cohort_size, innermost, likely
from hanse.simulation.checks import samples
from hanse.simulation.device_memory import device_memory
from hanse.simulation.parts import Simulation
from hanse.trainers.auto import make_trainer

_TRIED = 3
_ROUNDS_TRIED = 20  # cohorts of random size are averaged over so many rounds


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a job would cost.

    Args:
      rounds: As planned.
      num_clients: Clients in the federation.
      num_empty: Clients without a training example.
      sizes: Training examples of a client: smallest, median, largest.
      num_examples: Training examples of all.
      cohort: Clients a round, on average.
      num_parameters: P, of what is trained and averaged.
      num_frozen: Numbers in frozen parameters, which everybody has and nobody sends.
      bytes_kept: What a client keeps on its disk between rounds, in bytes.
      bytes_down: Bytes of vectors sent to clients in a round.
      bytes_up: Bytes of vectors they send back, as the pipeline's stages encode an update of normal numbers.
      secure: What one client sends and is sent in a round's secure sum; None where there is none.
      secure_times: What computing takes in it, in a phrase; empty where that is next to nothing.
      numbers: The secure sums of what clients measure and of their inputs' statistics, and what one client sends and is
        sent in each.
      encoding: CPU seconds that the stages take at a client, about.
      steps: Local steps of the cohort in a round, about.
      memory: Bytes for data, model and updates, beside what Python and its packages take.
      training: What training takes of its device, in words; empty for tasks that train by themselves.
      held_out: Whether models are measured on examples that clients keep back.
      central_test: Examples of the official test set that models are measured on; 0 where they are not.
      baselines: What is run besides.
      attack: Who attacks, and how, in words; empty where all are honest.
      rule: The robust rule and how many attackers of a round it is for, in words; empty without one.
    """

    rounds: int
    num_clients: int
    num_empty: int
    sizes: tuple[int, float, int]
    num_examples: int
    cohort: float
    num_parameters: int
    num_frozen: int
    bytes_kept: int
    bytes_down: float
    bytes_up: float
    secure: SumSizes | None
    secure_times: str
    numbers: tuple[tuple[SumOfNumbers, SumSizes], ...]
    encoding: float
    steps: float
    memory: int
    training: str
    held_out: bool
    central_test: int
    baselines: tuple[str, ...]
    attack: str = ""
    rule: str = ""


def estimate(built: BuiltJob) -> Cost:
    """Estimate what a built job would cost."""
    simulation = built.simulation
    sizes = np.asarray(simulation.dataset.sizes)
    whole = simulation.task.init_params(simulation.settings.seed)
    work = simulation.strategy.local_work(1)
    shared = whole.select(whole.spec.without(whole.spec.matching(work.personal))) if work.personal else whole
    cohorts, candidates = _cohorts(simulation)
    cohort = float(np.mean([len(ids) for ids in cohorts]))
    down, survey = _broadcast_bytes(simulation, shared, len(cohorts[0])), shared.spec.nbytes * candidates
    up, encoding = _encoded(simulation, shared, len(cohorts[0]), work)
    beside = work.bytes_of_derivatives(shared.spec)
    secure, secure_times = _secure(simulation, shared)
    numbers = _numbers(simulation, whole)
    up_besides, down_besides = (
        sum(given.clients * given.times * getattr(sizes, way) for given, sizes in numbers) / simulation.settings.rounds
        for way in ("up", "down")
    )
    typical = int(np.median(sizes[sizes > 0])) if (sizes > 0).any() else 0
    measured = simulation.settled().settings.evaluate  # a private run asks clients for no metrics
    central = simulation.dataset.central_test if measured.central else None
    on_device = device_memory(simulation)
    return Cost(
        rounds=simulation.settings.rounds,
        num_clients=len(simulation.dataset),
        num_empty=int(np.count_nonzero(sizes == 0)),
        sizes=(int(sizes.min()), float(np.median(sizes)), int(sizes.max())),
        num_examples=int(sizes.sum()),
        cohort=cohort,
        num_parameters=whole.spec.size,
        num_frozen=getattr(simulation.task, "num_frozen", 0),
        bytes_kept=work.bytes_kept(whole.spec),
        bytes_down=(down if secure is None else down + secure.down) * cohort + down_besides + survey,
        bytes_up=(up + beside if secure is None else secure.up) * cohort + up_besides,
        secure=secure,
        secure_times=secure_times,
        numbers=numbers,
        encoding=encoding,
        steps=sum(piece.num_steps(typical) for piece in work.pieces) * cohort,
        memory=_memory(simulation, whole),
        training="" if on_device is None else on_device.sentence(),
        held_out="test" in simulation.dataset.held_out and measured.clients != "none",
        central_test=0 if central is None else len(central),
        baselines=built.baselines,
        attack=_attack(simulation),
        rule=_rule(simulation),
    )


def _rule(simulation: Simulation) -> str:
    """How many attackers a round's rule is for: a share comes to another number in each cohort."""
    aggregator, everyone = simulation.pipeline.aggregator, len(simulation.population().clients)
    if not isinstance(aggregator, Robust):
        return ""
    cohort = min(everyone, cohort_size(simulation.settings.cohort) or everyone)
    name, attackers = type(aggregator.rule).__name__, aggregator.tolerated(cohort)
    if not attackers:
        return f"{name}, for no attacker"
    return f"{name}, for up to {plural(attackers, 'attacker')} among {plural(cohort, 'client')} of a round"


def _attack(simulation: Simulation) -> str:
    """Who attacks: a job that was not meant to be attacked is not to be run by mistake."""
    placed = simulation.attack
    if placed is None:
        return ""
    told = simulation.job.get("attack")
    name = told["use"] if isinstance(told, Mapping) else type(placed.attack).__name__
    who, clients = placed.members, simulation.population().clients
    number = len(who.in_round(clients, simulation.settings.seed, who.from_round))
    parts = [f"{name} by {number:,} of {plural(len(clients), 'client')}", "simulated"]
    parts += ["others in each round"] if who.each_round else []
    if who.until_round is not None:
        parts.append(f"in rounds {who.from_round:,} to {who.until_round:,}")
    elif who.from_round > 1:
        parts.append(f"from round {who.from_round:,} on")
    return ", ".join(parts)


def _cohorts(simulation: Simulation) -> tuple[list[tuple[str, ...]], float]:
    """Cohorts as they may be, and how many candidates are asked for their losses first, on average."""
    settings, population = simulation.settings, simulation.population()
    rounds = range(1, min(settings.rounds, _ROUNDS_TRIED) + 1)
    named = [settings.cohort.select(population, r, stream(settings.seed, "cohort", r)) for r in rounds]
    asked = float(np.mean([len(ids) for ids in named])) if isinstance(innermost(settings.cohort), Surveys) else 0.0
    return [likely(settings.cohort, ids) for ids in named], asked


def _broadcast_bytes(simulation: Simulation, shared: Params, cohort: int) -> int:
    strategy, clients, seed = simulation.strategy, simulation.population().clients, simulation.settings.seed
    state = initial_state(strategy, clients, seed=seed, make=lambda _: shared)
    given = PipelineRound(round=1, seed=seed, cohort=max(1, cohort))
    sent = first_broadcasts(strategy, state, clients[0])
    return sum(encoded(simulation.pipeline, broadcast, given, initial=lambda: shared).nbytes for broadcast in sent)


def _encoded(simulation: Simulation, shared: Params, cohort: int, work: LocalWork) -> tuple[int, float]:
    """Bytes of one client's encoded update, and the CPU seconds that encoding it takes."""
    pipeline, seed = simulation.settled().pipeline, simulation.settings.seed
    update = _tried_update(shared, work, seed)
    if not pipeline.stages:
        return update.nbytes, 0.0
    given = PipelineRound(round=1, seed=seed, cohort=max(1, cohort), states=pipeline.initial_states())
    bound = pipeline.in_round(given, shared.spec)
    taken, encoded = math.inf, update
    for _ in range(_TRIED):  # the first draws what all clients of a round share
        rngs = [stream(seed, "tried stage", i) for i in range(len(bound.stages))]
        began = time.process_time()
        encoded = bound.encode(update, rngs)
        taken = min(taken, time.process_time() - began)
    return encoded.nbytes, taken


def _tried_update(shared: Params, work: LocalWork, seed: int) -> Update:
    """An update of normal numbers, with what the work uploads beside; derivatives of Newton's method are left out."""
    rng = stream(seed, "tried update")
    number = ParamSpec((TensorSpec("number", (1,), shared.spec.dtype),), shared.spec.dtype)

    def normal(spec: ParamSpec) -> Params:
        return Params(spec, rng.normal(scale=1e-2, size=spec.size).astype(spec.dtype))

    delta = normal(shared.spec)
    beside = {} if work.upload == "newton" else said_uploads(work) or {}
    extras = {name: normal(number if is_number else shared.spec.trainable) for name, is_number in beside.items()}
    return Update(client="", round=1, delta=delta, num_examples=1, num_steps=1, extras=extras)


def _secure(simulation: Simulation, shared: Params) -> tuple[SumSizes | None, str]:
    given, population = simulation.settled(), simulation.population()
    first = PipelineRound(round=1, seed=given.settings.seed, cohort=1, states=given.pipeline.initial_states())
    length = given.pipeline.in_round(first, shared.spec).aggregated_spec(shared.spec).size
    sizes = secure_sizes(given.pipeline, given.settings, population, length=length)
    return sizes, secure_times(given.pipeline, given.settings, population, length=length)


def _numbers(simulation: Simulation, whole: Params) -> tuple[tuple[SumOfNumbers, SumSizes], ...]:
    given = simulation.settled()
    population, held_out = given.population(), given.dataset.held_out
    sums = sums_of_numbers(given.pipeline, given.settings, given.task, population, held_out=held_out)
    lengths = {found.purpose: 0 for found in sums}
    if "statistics" in lengths and given.task.preprocess is not None:
        first = given.dataset.client(given.dataset.clients[0]).train.x[:0]
        found = given.task.preprocess.local_statistics(first)
        lengths["statistics"] = sum(np.size(value) for value in found.values())
    if "evaluation" in lengths:
        trainer, _ = make_trainer(given.task, given.engine.trainer, whole_cohorts=True)
        tried = next(samples(given.dataset, given.task))
        measured = trainer.evaluate(whole, ("", "tried"), lambda: Examples(tried.x[:1], tried.y[:1]))
        lengths["evaluation"] = len(measured)
    sized = ((each, number_sizes(given.pipeline, population, each, length=lengths[each.purpose])) for each in sums)
    return tuple((each, sizes) for each, sizes in sized if sizes is not None)


def _memory(simulation: Simulation, whole: Params) -> int:
    """Data once as it is and once prepared; vectors of the server and of each worker."""
    dataset = simulation.dataset.dataset
    parts = [] if dataset is None else [part for part in (dataset.train, dataset.test) if part is not None]
    data = 2 * sum(part.x.nbytes + part.y.nbytes for part in parts)
    vector = whole.numpy().nbytes
    # the server: state, best state, a 64-bit sum; a worker: weights, gradient, anchor, delta, two of an optimiser
    frozen = getattr(simulation.task, "num_frozen", 0) * whole.numpy().itemsize
    return data + 2 * vector + 8 * whole.spec.size + frozen + 6 * vector * simulation.engine.pool_workers
