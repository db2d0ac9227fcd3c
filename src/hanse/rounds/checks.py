"""What must fit together before any run, simulated or over the network; nothing here looks at data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from hanse.core.corrections import needs_of, rescales
from hanse.core.errors import HanseError, PipelineError, SettingError
from hanse.core.local_work import LocalWork
from hanse.core.protocols import ChecksClients, NeedsFresh, PerRound, ReadsLosses, Stage, Strategy, Task
from hanse.pipeline.binding import PipelineRound
from hanse.pipeline.downlink import broadcast_stages
from hanse.pipeline.entropy import Zstd
from hanse.pipeline.hidden import is_noisy
from hanse.pipeline.pipeline import Pipeline
from hanse.pipeline.quantize import Quantize
from hanse.pipeline.rotate import Rotate
from hanse.rounds.group_checks import check_groups
from hanse.rounds.judging_checks import check_judging
from hanse.rounds.selection import Clock, Learns, Narrows, Poisson, Population, Selector, cohort_size, innermost
from hanse.rounds.settings import EvaluateSettings, FederationSettings, RoundSettings
from hanse.rounds.tensor_name_checks import check_tensor_names


def problems_of_parts(
    strategy: Strategy[Any],
    task: Task,
    pipeline: Pipeline,
    settings: RoundSettings,
    population: Population,
    *,
    has_root: bool = False,
) -> Iterator[HanseError]:
    """Everything about these parts that does not fit, in sentences; `has_root`: the server has examples of its own."""
    checks: tuple[Callable[[], None], ...] = (
        lambda: settings.cohort.check(population),
        lambda: _check_weighting(strategy, pipeline),
        lambda: _check_cohort(strategy, settings, len(population.clients)),
        lambda: _check_clients(strategy, settings, population),
        lambda: check_groups(strategy, pipeline, len(population.clients)),
        lambda: check_judging(strategy, pipeline, settings, len(population.clients), has_root=has_root),
        lambda: check_tensor_names(strategy, task, settings.seed),
        lambda: _check_beside(strategy, pipeline),
        lambda: _check_rounds(strategy, task, pipeline, settings, population),
    )
    for check in checks:
        try:
            check()
        except HanseError as problem:
            yield problem


def check_seconds(cohort: Selector, clock: Clock) -> None:
    """Whether a run knows the seconds, and who is there, that its selector looks at.

    Args:
      cohort: As the job says.
      clock: Whose seconds the run knows.

    Raises:
      SettingError: It does not.
    """
    inner = innermost(cohort)
    if isinstance(inner, Learns) and inner.clock not in ("none", clock):
        name = type(inner).__name__
        raise SettingError(
            "cohort",
            f"{name} looks at simulated seconds, and no devices are simulated"
            if inner.clock == "simulated"
            else f"{name} would look at seconds measured on this machine, and no two simulations would be alike",
            hint="describe devices in [simulation.devices], or let seconds play no role"
            if clock != "measured"
            else 'use seconds = "measured", or let seconds play no role',
        )
    while isinstance(cohort, Narrows):
        if cohort.needs_presence and clock != "simulated":
            raise SettingError(
                "cohort",
                f"{type(cohort).__name__} asks simulated devices who is there, and none are simulated",
                hint="give the windows as a table: windows = { client = [[1, 10]] }",
            )
        cohort = cohort.among


def check_fresh(strategy: Strategy[Any], federation: FederationSettings) -> None:
    """Whether a strategy can take in what clients did from an earlier round's model.

    Raises:
      PipelineError: It can not, and the federation's rounds do not wait.
    """
    if federation.stragglers == "buffer" and isinstance(strategy, NeedsFresh):
        raise PipelineError(
            f'{type(strategy).__name__} {strategy.why_fresh}, and with stragglers = "buffer" updates of earlier rounds '
            "come in, with less weight",
            hint='use stragglers = "drop", or a strategy such as fedbuff',
        )


def check_no_test_set(evaluate: EvaluateSettings) -> None:
    """Whether a run can do without a test set at the server, as a federation's must.

    Raises:
      SettingError: It can not.
    """
    if evaluate.robust is not None:
        raise SettingError(
            "evaluate.robust",
            "is measured on the server's own test set, and a coordinator has no examples",
            hint="leave it out here, and measure in a simulation of the job",
        )


def check_asynchronous(
    pipeline: Pipeline, federation: FederationSettings, cohort: Selector, evaluate: EvaluateSettings | None = None
) -> None:
    """Whether updates of several rounds may be in one sum of this pipeline.

    Where nobody sees single updates each counts once, with weight 1; else late ones weigh less.

    Raises:
      PipelineError: A stage bounds what one client can do to an unweighted sum, or encodes differently each round.
    """
    if federation.stragglers != "buffer":
        return
    hidden = pipeline.hides_replies
    if hidden and isinstance(cohort, Poisson):
        raise PipelineError(
            "stragglers: hidden updates of several rounds are added up as they are, so all are encoded for one size of "
            "cohort, and Poisson's changes from round to round",
            hint='use cohort = { use = "uniform", size = … }, or stragglers = "drop"',
        )
    if hidden and evaluate is not None and evaluate.clients == "cohort":
        raise PipelineError(
            'evaluate.clients is "cohort": rounds that do not wait ask fewer at times, and sites open no sum of fewer '
            "clients than the job's cohort makes them expect",
            hint='use evaluate.clients = "auto", or a number',
        )
    for stage in pipeline.stages:
        if stage.needs_uniform_weights and not hidden:
            raise PipelineError(
                f"stage `{type(stage).__name__}` needs all updates to weigh alike, and buffered ones weigh less",
                hint='use stragglers = "drop"; or hide updates, with aggregator = { use = "light_sum" }: there each '
                "counts once",
            )
        if isinstance(stage, PerRound) and not (hidden and _alike(stage)):
            raise PipelineError(
                f"stage `{type(stage).__name__}` works another way each round, and buffered updates come from several",
                hint='use stragglers = "drop"' + ("; clip and modular are the same in all rounds" if hidden else ""),
            )


def _alike(stage: Stage) -> bool:
    """Whether it encodes alike in all rounds with cohorts of one size."""
    return bool(getattr(stage, "alike_each_round", False))


def _check_weighting(strategy: Strategy[Any], pipeline: Pipeline) -> None:
    if pipeline.weighting != strategy.weighting:
        raise PipelineError(
            f"the pipeline weighs clients by {pipeline.weighting}, the strategy by {strategy.weighting}"
        )


def _check_cohort(strategy: Strategy[Any], settings: RoundSettings, num_clients: int) -> None:
    most = getattr(strategy, "max_cohort", None)
    size = cohort_size(settings.cohort) or num_clients
    if most is not None and size > most:
        raise PipelineError(
            f"{type(strategy).__name__} takes at most {most} client(s) a round, the cohort has {size}",
            hint=f'use cohort = {{ use = "cyclic", size = {most} }}',
        )


def _check_clients(strategy: Strategy[Any], settings: RoundSettings, population: Population) -> None:
    if isinstance(strategy, ChecksClients):
        try:
            strategy.check_clients(population.clients, cohort_size(settings.cohort) or len(population.clients))
        except SettingError as problem:
            raise SettingError(f"strategy.{problem.where}", problem.problem, hint=problem.hint) from None


def _check_rounds(
    strategy: Strategy[Any], task: Task, pipeline: Pipeline, settings: RoundSettings, population: Population
) -> None:
    """Whether the stages can do a round's work, for as many clients as it may ask."""
    whole = task.init_params(settings.seed)
    spec = whole.spec.without(whole.spec.matching(strategy.local_work(1).personal))
    most = min(len(population.clients), cohort_size(settings.cohort) or len(population.clients))
    given = PipelineRound(round=1, seed=settings.seed, cohort=max(1, most), states=pipeline.initial_states())
    pipeline.in_round(given, spec).aggregated_spec(spec)
    pipeline.restricted(pipeline.protected(strategy.local_work(1)))
    broadcast_stages(pipeline, given, spec)


def _check_beside(strategy: Strategy[Any], pipeline: Pipeline) -> None:
    """Whether what the strategy takes from clients beside their deltas may be taken from them."""
    name, work = type(strategy).__name__, pipeline.protected(strategy.local_work(1))
    uploads = work.uploads
    noisy = is_noisy(pipeline.stages, pipeline.mechanism, pipeline.example_privacy)
    if pipeline.hides_replies and uploads:
        raise PipelineError(
            f"{name} has clients upload {', '.join(uploads)} beside their deltas, and aggregator "
            f"`{type(pipeline.aggregator).__name__}` adds up deltas alone",
            hint='use aggregator = { use = "mean" }, or a strategy that uploads a delta alone',
        )
    if pipeline.example_privacy is not None and needs_of(work.correction):
        raise PipelineError(
            f"{name} needs {', '.join(needs_of(work.correction))} of each client, which would be measured on its "
            "examples without noise, and the run hides single examples",
            hint='use unit = "client", or a strategy that looks at weights alone',
        )
    if noisy and uploads and work.correction is not None and rescales(work.correction):
        raise PipelineError(
            f"{name} has clients scale their deltas and upload {', '.join(uploads)}, by which the server scales "
            "them back; in a private run both are clipped together, and little would be left of either",
            hint="use a strategy that uploads deltas as they are, such as FedAvg or FedProx",
        )
    if noisy and work.upload == "newton":
        raise PipelineError(
            f"{name} has clients upload second derivatives, far more numbers than the model has, and noise that hides "
            "a client among all of these would leave nothing of them",
            hint="use FedAvg, whose updates are as long as the model",
        )
    if noisy and isinstance(strategy, ReadsLosses) and strategy.reads_losses:
        raise PipelineError(
            f"{name} looks at clients' training losses, which have no noise, and the run is private",
            hint="use a strategy, or settings of it, that looks at deltas alone",
        )
    _check_whole_models(name, work, pipeline)
    told = getattr(pipeline.aggregator, "adds_numbers", True)
    if pipeline.hides_replies and not told and isinstance(strategy, ReadsLosses) and strategy.reads_losses:
        raise PipelineError(
            f"{name} looks at clients' training losses, and aggregator `{type(pipeline.aggregator).__name__}` adds up "
            "updates alone",
            hint='use aggregator = { use = "secure_sum" }, which adds numbers up too',
        )


def _check_whole_models(name: str, work: LocalWork, pipeline: Pipeline) -> None:
    """Whether the stages leave a whole model what it is; most are made for changes, of which little is large."""
    if work.sends == "change":
        return
    if pipeline.hides_replies:
        raise PipelineError(
            f"{name} has clients send whole models, and `{type(pipeline.aggregator).__name__}` adds up clipped changes",
            hint='use aggregator = { use = "mean" }, or FedBuff, whose clients send changes',
        )
    for stage in pipeline.stages:
        if not isinstance(stage, Quantize | Rotate | Zstd):
            raise PipelineError(
                f"{name} has clients send whole models, and stage `{type(stage).__name__}` is made for changes",
                hint="use the stages rotate, quantize and zstd alone, or FedBuff, whose clients send changes",
            )
