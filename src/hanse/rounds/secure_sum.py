"""Runs whose updates nobody sees: what must fit, what is not asked of clients, and the round's secure sum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from hanse.aggregators.hidden_round import SimulatesSums, SumRound, SumSizes, TakesTime
from hanse.aggregators.hidden_sum import HidesInGroups, hidden_sum_of
from hanse.aggregators.told_numbers import layout_of
from hanse.core.errors import PipelineError
from hanse.core.processors import usable_cores
from hanse.core.protocols import Preprocess, Task
from hanse.core.sum_layout import Layout
from hanse.pipeline.hidden import adds_numbers, residue_bits
from hanse.pipeline.pipeline import Pipeline
from hanse.rounds.privacy.releases import quiet
from hanse.rounds.selection import Population, innermost, looks_at_clients
from hanse.rounds.selection import cohort_size as selected_size
from hanse.rounds.settings import RoundSettings

_SUMS = {
    "homomorphic_sum": "homomorphic encryption ({scheme}) was run",
    "light_sum": "the light protocol was run",
    "secure_sum": "the protocol was run",
}

_USUAL = ("examples", "sum.count", "sum.loss")  # what clients of most tasks tell beside their updates


def discreet(pipeline: Pipeline, settings: RoundSettings) -> RoundSettings:
    """The settings without questions whose answers could not be added up unseen, where nobody sees single updates.

    Raises:
      PipelineError: The job asks such questions.
    """
    if not pipeline.hides_replies or pipeline.adds_numbers:
        return settings
    if settings.evaluate.clients not in ("none", "auto"):
        raise PipelineError(
            f"evaluate.clients is {settings.evaluate.clients!r}: {_in_the_open(pipeline, 'what each client measures')}",
            hint='use evaluate = { clients = "none" }, and measure on the central test set',
        )
    return quiet(settings)


def check_secure_sum(pipeline: Pipeline, settings: RoundSettings, task: Task, population: Population) -> None:
    """Whether a run's updates can be hidden in secure sums, where its pipeline says so.

    Args:
      pipeline: As privacy demands.
      settings: The round loop's.
      task: What is learned.
      population: Everybody who may be selected.

    Raises:
      PipelineError: The last stage makes no whole numbers; cohorts are too small; or clients would tell something else.
      SettingError: The protocol's numbers do not fit the cohort.
      MissingExtraError: The protocol's package is not installed.
    """
    aggregator = pipeline.aggregator
    if not pipeline.hides_replies:
        return
    residue_bits(pipeline.stages, aggregator)
    selector, name = innermost(settings.cohort), type(aggregator).__name__
    if getattr(selector, "needs_sizes", False):
        raise PipelineError(
            f"cohort: {type(selector).__name__} selects clients by their numbers of examples, and with `{name}` "
            "no client tells its own",
            hint='use cohort = { use = "uniform", size = … }',
        )
    if looks := looks_at_clients(selector):
        raise PipelineError(
            f"cohort: {type(selector).__name__} {looks}, and with `{name}` nobody sees what one client tells",
            hint='use cohort = { use = "uniform", size = … }',
        )
    if is_fitted_to_all(task) and not pipeline.adds_numbers:
        raise PipelineError(
            f"task.preprocess: {_in_the_open(pipeline, 'sums over the inputs of each client')}",
            hint='use preprocess = { use = "standardize", fit = "client" }',
        )
    secure_sizes(pipeline, settings, population, length=1)


def _in_the_open(pipeline: Pipeline, what: str) -> str:
    if adds_numbers(pipeline.aggregator):
        return f"{what} would be told without any noise, which hides the updates of this run"
    return f"the server would see {what}, outside of `{type(pipeline.aggregator).__name__}`"


def is_fitted_to_all(task: Task) -> bool:
    """Whether inputs are prepared by sums over all clients' inputs."""
    preprocess: Preprocess | None = getattr(task, "preprocess", None)  # of a site's, which is bound later
    return preprocess is not None and preprocess.scope == "federated"


def cohort_size(settings: RoundSettings, everyone: int) -> int:
    """The most clients that a round asks."""
    size = selected_size(settings.cohort) or len(getattr(settings.cohort, "clients", ())) or None
    return min(everyone, size or everyone)


def secure_sizes(
    pipeline: Pipeline, settings: RoundSettings, population: Population, *, length: int
) -> SumSizes | None:
    """What one client sends and is sent in a round's secure sum; None where there is none.

    Args:
      pipeline: As privacy demands.
      settings: The round loop's.
      population: Everybody who may be selected.
      length: Numbers of an encoded update, ≥ 1.

    Raises:
      HanseError: As `check_secure_sum` does.
    """
    aggregator = pipeline.aggregator
    if not isinstance(aggregator, SimulatesSums):
        return None
    given, layout = _first_sum(pipeline, settings, population, length)
    return aggregator.sizes(given, layout, name_bytes=len(given.clients[-1].encode()))


def secure_times(pipeline: Pipeline, settings: RoundSettings, population: Population, *, length: int) -> str:
    """What computing takes in a round's secure sum, in a phrase; empty where it is not worth a measurement."""
    aggregator = pipeline.aggregator
    if not isinstance(aggregator, TakesTime):
        return ""
    return aggregator.times(*_first_sum(pipeline, settings, population, length))


def _first_sum(
    pipeline: Pipeline, settings: RoundSettings, population: Population, length: int
) -> tuple[SumRound, Layout]:
    most = cohort_size(settings, len(population.clients))
    needed = fewest_updates(pipeline, settings.min_clients, most)
    if most < needed:
        raise PipelineError(
            f"cohort: {most} clients a round, and no sum of fewer than {needed} is opened",
            hint="use larger cohorts, or a smaller min_survivors or min_clients",
        )
    clients, bits = tuple(population.clients[:most]), residue_bits(pipeline.stages, pipeline.aggregator)
    given = SumRound(round=1, seed=settings.seed, clients=clients, bits=bits, least=needed)
    return given, layout_of(length, bits, _USUAL if pipeline.adds_numbers else ())


def check_sizes(pipeline: Pipeline, settings: RoundSettings) -> None:
    """Whether sums of as many as the job says could be opened; what depends on the clients comes later.

    Raises:
      PipelineError: The cohort, or who measures, is too small.
    """
    if not pipeline.hides_replies:
        return
    size = selected_size(settings.cohort) or len(getattr(settings.cohort, "clients", ())) or None
    measuring = settings.evaluate.clients
    told = {"cohort": (size, settings.min_clients), "evaluate.clients": (measuring, 1)}
    for name, (asked, least) in told.items():
        if isinstance(asked, int) and asked < (needed := fewest_updates(pipeline, least, asked)):
            raise PipelineError(
                f"{name}: {asked} clients are asked, and no sum of fewer than {needed} is opened",
                hint="ask more, or use a smaller min_survivors or min_clients",
            )


def check_over_selection(pipeline: Pipeline, settings: RoundSettings, *, goal: int | None) -> None:
    """Whether as many updates as are waited for are enough to open a sum.

    Args:
      pipeline: As privacy demands.
      settings: The round loop's, its cohort enlarged.
      goal: Updates after which a round waits for no others.

    Raises:
      PipelineError: They are too few.
    """
    size = selected_size(settings.cohort) or len(getattr(settings.cohort, "clients", ())) or None
    if not pipeline.hides_replies or size is None or goal is None:
        return
    needed = fewest_updates(pipeline, settings.min_clients, size)
    if goal < needed:
        raise PipelineError(
            f"federation.over_select: of {size} clients that are asked the first {goal} are taken, and "
            f"`{type(pipeline.aggregator).__name__}` opens no sum of fewer than {needed}",
            hint="use a smaller over_select, or a smaller threshold",
        )


def fewest_updates(pipeline: Pipeline, least: int, cohort: int) -> int:
    """How many updates of a cohort a sum needs; with fewer it is not opened."""
    survivors = getattr(pipeline.aggregator, "survivors", None) if pipeline.hides_replies else None
    return least if survivors is None else max(least, survivors(cohort))


def fewest_in_one_sum(pipeline: Pipeline, least: int, cohort: int) -> int:
    """How many updates must be in each of a round's sums: of the whole cohort, or of a group of it.

    Args:
      pipeline: Whose aggregator adds up.
      least: Updates that a round must have.
      cohort: How many are asked.
    """
    aggregator = pipeline.aggregator
    if isinstance(aggregator, HidesInGroups):
        return hidden_sum_of(aggregator).survivors(aggregator.smallest(cohort))
    return fewest_updates(pipeline, least, cohort)


def summed_securely(pipeline: Pipeline, number: int, cohort: Sequence[str], *, seed: int, least: int) -> Pipeline:
    """The pipeline that knows of a round whose updates are hidden; else as it is.

    Args:
      pipeline: As it is in this round.
      number: The round.
      cohort: Who was asked.
      seed: The job's.
      least: Updates that must be in the sum.

    Raises:
      PipelineError: The last stage makes no whole numbers.
    """
    aggregator = pipeline.aggregator
    if not isinstance(aggregator, SimulatesSums):
        return pipeline
    given = SumRound(
        round=number,
        seed=seed,
        clients=tuple(cohort),
        bits=residue_bits(pipeline.stages, aggregator),
        least=least,
        threads=usable_cores(),
        tells=pipeline.adds_numbers,
    )
    return replace(pipeline, aggregator=aggregator.in_round(given))


def secure_sum_in_words(job: Mapping[str, Any], *, between_sites: bool = False) -> str:
    """How a run's updates were added up, from its complete job; empty where nothing was hidden.

    Args:
      job: The job, with its defaults.
      between_sites: Whether it ran in a federation, and not in a simulation.
    """
    told = job.get("pipeline", {}).get("aggregator", {}) if isinstance(job.get("pipeline"), Mapping) else {}
    use = told.get("use") if isinstance(told, Mapping) else None
    if use == "sums_of_groups":
        own = secure_sum_in_words({"pipeline": {"aggregator": told.get("sum", {})}}, between_sites=between_sites)
        return f"one for each of {told.get('groups')} groups: {own}"
    if use not in _SUMS:
        return ""
    if told.get("simulate") == "sum" and not between_sites:
        return "simulated by a plain sum modulo 2^b: the protocol was not run"
    keys = "the job's seed" if use != "homomorphic_sum" and not between_sites else "the operating system"
    where = " between sites" if between_sites else ""
    return f"{_SUMS[use].format(scheme=told.get('scheme', 'bfv'))}{where}, with keys from {keys}"


def hidden_from_server(job: Mapping[str, Any], *, between_sites: bool = False) -> str:
    """What hides single updates from the server, in a sentence; empty where nothing does. As `secure_sum_in_words`."""
    if not secure_sum_in_words(job):
        return ""
    homomorphic = job["pipeline"]["aggregator"]["use"] == "homomorphic_sum"
    towards = "a server that no site helps" if homomorphic else "the server too"
    if between_sites:
        return f"A sum in which nobody sees a single reply hid each: this holds towards {towards}."
    return f"In a federation the same job's sums hide each reply: there this holds towards {towards}."
