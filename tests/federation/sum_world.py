"""A coordinator and three sites in threads whose clients hold answers back, and what befalls them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from hanse.aggregators.hidden_sum import hidden_sum_of
from hanse.aggregators.secure_sum import SecureSum
from hanse.core.messages import ClientFailure, Phase, SumPhase
from hanse.core.messages import Reply as CoreReply
from hanse.core.protocols import Transport
from hanse.core.random_bytes import OsBytes
from hanse.federation.client.runtime import Answerer
from hanse.federation.protocol import Reply
from hanse.federation.server.transport import FederationTransport
from hanse.pipeline.clip import Clip
from hanse.pipeline.modular import Modular
from hanse.pipeline.pipeline import Pipeline
from hanse.rounds.asked_sums import AskedSums
from hanse.rounds.client_runtime import ClientRuntime
from hanse.rounds.held_answers import HeldAnswers, HeldInFolder, SumRules
from hanse.rounds.held_numbers import HeldNumbers
from hanse.rounds.hidden_updates import HiddenSums
from hanse.rounds.journal import MemoryJournal
from hanse.rounds.kept_vectors import KeptInFolder
from hanse.rounds.loop import run_rounds
from hanse.rounds.run_parts import RunOutcome, RunParts
from hanse.rounds.selection import Population
from hanse.rounds.settings import RoundSettings
from hanse.rounds.simulated_numbers import SimulatedNumbers
from hanse.rounds.sum_diary import DiaryFile
from hanse.rounds.sums_over_transport import Exchange
from hanse.secagg.identity import RehearsedIdentities
from hanse.simulation.engine import RuntimeFactory
from hanse.strategies.fedavg import FedAvg
from hanse.testing.fakes import linear_task, tiny_federation
from hanse.trainers.auto import TrainerSettings
from tests.federation.harness import Coordinator, SiteThread

DATASET = tiny_federation(5)
TASK = linear_task()
AGGREGATOR = SecureSum(threshold=0.4, min_survivors=2)
PIPELINE = Pipeline(stages=(Clip(norm=2.0), Modular(bits=20, range=2.0)), aggregator=AGGREGATOR, weighting="uniform")
SETTINGS = RoundSettings(rounds=2, seed=7, min_clients=2)
STEPS = ("keys", "shares", "inputs", "confirmation", "unmasking")
SITES = {"north": ("site-0", "site-1"), "south": ("site-2", "site-3"), "east": ("site-4",)}


def factory(folder: Path, pipeline: Pipeline | None = None) -> RuntimeFactory:
    kept = KeptInFolder(folder)
    return RuntimeFactory(
        dataset=DATASET,
        task=TASK,
        pipeline=pipeline or PIPELINE,
        seed=SETTINGS.seed,
        kept=kept,
        trainer=TrainerSettings(),
    )


def parts_of(transport: Transport, **more: Any) -> RunParts:
    return RunParts(
        strategy=FedAvg(weighting="uniform"),
        task=TASK,
        pipeline=more.pop("pipeline", PIPELINE),
        transport=transport,
        journal=more.pop("journal", None) or MemoryJournal(),
        population=Population(DATASET.clients, DATASET.sizes),
        held_out=DATASET.held_out,
        **more,
    )


def simulated_numbers(exchange: Exchange) -> SimulatedNumbers:
    return SimulatedNumbers(exchange, aggregator=AGGREGATOR, seed=SETTINGS.seed)


class World:
    """A coordinator, three sites, and their identities; sites can be killed and started again."""

    def __init__(
        self, folder: Path, pipeline: Pipeline | None = None, sites: Mapping[str, Sequence[str]] = SITES
    ) -> None:
        self.clients = sites
        self.site_of = {client: site for site, clients in sites.items() for client in clients}
        self.max_staleness, self.settings = 0, SETTINGS
        self.folder = folder
        self.pipeline = pipeline or PIPELINE
        self.coordinator = Coordinator()
        self.known = RehearsedIdentities(sites, OsBytes())
        self.sites: dict[str, SiteThread] = {}
        self.replies: list[tuple[str, Reply]] = []
        self.hold: Callable[[str, Reply], None] = lambda site, reply: None
        self.starts = 0

    def open(self, name: str, answerer: Callable[[ClientRuntime, str], Answerer] | None = None) -> None:
        self.starts += 1

        def told(reply: Reply) -> None:
            self.replies.append((name, reply))
            self.hold(name, reply)

        self.sites[name] = SiteThread(
            self.coordinator,
            name,
            factory(self.folder / "kept" / name, self.pipeline),
            folder=self.folder / f"{name}-{self.starts}",
            clients=self.clients[name],
            hold=told,
            answerer=answerer or (lambda made, run: HeldAnswers(made, self.rules(name, run), self.store(name))),
        )

    def store(self, site: str) -> HeldInFolder:
        return HeldInFolder(self.folder / "held" / site)

    def verify(self, client: str, text: bytes, signature: bytes) -> bool:
        return self.known.verify(self.site_of[client], text, signature)

    def rules(self, site: str, run: str) -> SumRules:
        return SumRules(
            run=run,
            aggregator=hidden_sum_of(self.pipeline.aggregator),
            bits=20,
            fewest_of=self.asked().fewest_of,
            tells=True,
            sign=self.known.sign_for(site),
            verify=self.verify,
            max_staleness=self.max_staleness,
        )

    def asked(self) -> AskedSums:
        return AskedSums(
            pipeline=self.pipeline,
            settings=self.settings,
            task=TASK,
            num_clients=len(DATASET.clients),
            min_clients=self.settings.min_clients,
        )

    def transport(self, **more: Any) -> FederationTransport:
        job = self.coordinator.blobs.put(b"{}")
        self.coordinator.dispatcher.set_live(["run"])
        return FederationTransport(
            "run",
            job,
            clients=DATASET.clients,
            site_of=self.site_of,
            work=self.coordinator.work,
            blobs=self.coordinator.blobs,
            dispatcher=self.coordinator.dispatcher,
            holds_back=True,
            **more,
        )

    def run(self, transport: Transport | None = None, journal: MemoryJournal | None = None, **more: Any) -> RunOutcome:
        sums = HiddenSums(run="run", verify=self.verify, diary=DiaryFile(self.folder / "diary.json"))
        more["numbers"] = partial(HeldNumbers, sums=sums, pipeline=self.pipeline)
        parts = parts_of(
            transport or self.transport(), sums=sums, journal=journal or MemoryJournal(), pipeline=self.pipeline, **more
        )
        return run_rounds(parts, self.settings, emit=lambda _: None)

    def close(self) -> None:
        for site in self.sites.values():
            site.close()
        self.coordinator.close()


Wrap = Callable[[str, Callable[[], HeldAnswers]], object]
"""Of a site's name and what makes its answers, something that answers."""


def opened(folder: Path, pipeline: Pipeline, wrap: Wrap = lambda site, make: make()) -> World:
    """A world in which each site's answers go through `wrap`, which can make what holds them anew."""
    world = World(folder, pipeline)
    for site in SITES:

        def answerer(runtime: ClientRuntime, run: str, site: str = site) -> object:
            return wrap(site, lambda: HeldAnswers(runtime, world.rules(site, run), world.store(site)))

        world.open(site, answerer)  # type: ignore[arg-type]
    return world


class Restarting:
    """Holds answers back, and is started anew, with nothing but its files, before or after it takes a step."""

    def __init__(self, make: Callable[[], HeldAnswers], step: str, when: str) -> None:
        self._make, self._step, self._when = make, step, when
        self._inner = make()
        self.struck = 0

    def answer(self, phase: Phase, clients: Sequence[str]) -> Iterator[CoreReply]:
        strikes = isinstance(phase, SumPhase) and phase.step == self._step and phase.attempt == 0
        if strikes and self._when == "before":
            self._start_anew()
        yield from self._inner.answer(phase, clients)
        if strikes and self._when == "after":
            self._start_anew()

    def _start_anew(self) -> None:
        self.struck += 1
        self._inner = self._make()


class Dropping:
    """Holds answers back, and fails one client from a step on."""

    first = 1

    def __init__(self, inner: HeldAnswers, client: str, step: str) -> None:
        self._inner, self._client, self._step = inner, client, step

    def answer(self, phase: Phase, clients: Sequence[str]) -> Iterator[CoreReply]:
        for reply in self._inner.answer(phase, clients):
            begun = phase.round >= self.first and isinstance(phase, SumPhase)
            gone = begun and STEPS.index(getattr(phase, "step", "")) >= STEPS.index(self._step)
            if gone and reply.client == self._client:
                yield ClientFailure(client=self._client, round=phase.round, kind="OSError", message="it is gone")
            else:
                yield reply


class Killed(BaseException):
    """The coordinator, at any moment."""


class Killing:
    """The transport of a coordinator that is killed in a step: before anybody is asked, in the midst, or after it."""

    holds_back = True

    def __init__(self, inner: FederationTransport, step: str, after: int) -> None:
        self._inner, self._step, self._after = inner, step, after

    @property
    def clients(self) -> Sequence[str]:
        return self._inner.clients

    def exchange(self, phase: Phase, clients: Sequence[str]) -> Iterator[CoreReply]:
        strikes = isinstance(phase, SumPhase) and phase.step == self._step
        for number, reply in enumerate(self._inner.exchange(phase, clients)):
            if strikes and number == self._after:
                raise Killed
            yield reply
        if strikes:
            raise Killed

    def close(self) -> None:
        self._inner.close()
