"""`JobRun`: a run as a site does it, from the job's values and the site's own data, under the site's policy."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from hanse.aggregators.hidden_sum import hidden_sum_of
from hanse.core import messages as core
from hanse.core.errors import DataError, HanseError, RefusedError
from hanse.core.local_work import LocalWork
from hanse.core.protocols import Task
from hanse.core.units import plural
from hanse.data.federated import FederatedDataset
from hanse.data.schema import DataSchema
from hanse.federation.client.asked_work import AskedWork
from hanse.federation.client.own_data import Note
from hanse.federation.client.peers import Peers
from hanse.federation.client.policy import Cohort, Policy
from hanse.federation.client.prepared import Prepared, PreparedFile
from hanse.federation.client.run_account import Agreed, RunAccount, of_training, stamp_of
from hanse.federation.client.runtime import Answerer, Objections, client_cards
from hanse.federation.client.site_config import SiteConfig
from hanse.federation.client.site_data import SiteData, site_data
from hanse.federation.client.site_files import OWN
from hanse.federation.client.sum_policy import SumPolicy
from hanse.federation.identity.sum_signing import SumSigner
from hanse.federation.protocol import (
    ClientCard,
    DescribeOrder,
    DescriptionReply,
    Order,
    PreparedReply,
    PrepareOrder,
    TrainOrder,
)
from hanse.federation.written_work import WorkReader
from hanse.jobs.job import Job, job_from_values
from hanse.jobs.parts import JobParts, build_parts
from hanse.pipeline.dp_sgd import DPSGD
from hanse.pipeline.hidden import residue_bits
from hanse.rounds.asked_sums import AskedSums
from hanse.rounds.client_runtime import ClientRuntime
from hanse.rounds.group_checks import works_of
from hanse.rounds.held_answers import HELD, HeldAnswers, HeldInFolder, SumRules
from hanse.rounds.kept_vectors import KeptInFolder
from hanse.rounds.own_model_files import OwnModelFolder
from hanse.rounds.privacy.example_guard import ExampleGuard
from hanse.rounds.smaller_model import check_smaller_model
from hanse.rounds.sum_names import name_for_sums
from hanse.simulation.checks import check_samples, samples
from hanse.tasks.bindable import BindableTask
from hanse.trainers.auto import make_trainer

KEPT = "kept"
"""Folder, in a run's, of what clients keep between rounds."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where and for whom a run is done.

    Args:
      site: The site's name.
      folder: The run's folder at this site: what clients keep, and what was agreed on.
      job_sha256: Names the job by its content.
      ledger: The file of the site's privacy ledger; by default in the run's folder.
    """

    site: str
    folder: Path
    job_sha256: str
    ledger: Path | None = None


class JobRun:
    """One run at a site; see `RunAtSite`. Nothing is built before the policy has been asked.

    Args:
      config: The site's configuration.
      values: The job's values, as they came from the coordinator.
      place: Where, and for whom.
      clock: Seconds since 1970.
      note: Told in words of what people should know.
      signer: Signs texts of secure sums as this site; None where nobody does, and jobs that hide updates are refused.
    """

    def __init__(
        self,
        config: SiteConfig,
        values: Mapping[str, Any],
        place: Place,
        *,
        clock: Callable[[], float] = time.time,
        note: Note = lambda _: None,
        signer: SumSigner | None = None,
    ) -> None:
        self.signer = signer
        self._config = config
        self._values = dict(values)
        self._place = place
        self._clock = clock
        self._note = note
        self._policy = Policy(config.policy)
        self.sum_policy = SumPolicy(config.secure_sums, site=place.site)
        self._parts: JobParts | None = None
        self._data: SiteData | None = None
        self._runtime: ClientRuntime | None = None
        self._guarded: ExampleGuard | None = None
        self._held_to: AskedWork | None = None
        self._account = RunAccount(config, place.folder, place.job_sha256, ledger=place.ledger, note=note)
        self._mine: frozenset[str] = frozenset()
        self._prepared = PreparedFile(place.folder, site=place.site, job_sha256=place.job_sha256)
        self._peers: Peers | None = None
        self._begun = False
        self._held: HeldAnswers | None = None
        self._asked_sums: AskedSums | None = None
        self._task: Task | None = None
        self.read_work = WorkReader(self._policy.admit)

    def describe(self, order: DescribeOrder) -> DescriptionReply:
        """The site's clients and what their data looks like."""
        self._agree(order.submitter, Cohort())
        described = self._site_data().describe()
        return described.model_copy(update={"clients": self._told(described.clients)})

    def prepare(self, order: PrepareOrder) -> PreparedReply:
        """Read the data by the agreed layout, bind the task to it, and try the model on a few rows."""
        self._agree(order.submitter, Cohort(sites=order.sites, clients=order.clients))
        self._prepared.check_other()
        self._check_list(order)
        agreed = Agreed(requester=order.submitter, clients=order.clients)
        if self._prepared.begun:  # asked again, by a coordinator that came back: nothing is begun anew
            return PreparedReply(clients=self._cards())
        prepared = Prepared(layout=order.layout, told=agreed, peers=tuple(order.peers), number=order.number)
        try:
            return self._ready(prepared)
        except BaseException:
            self._runtime = self._peers = None  # what was agreed to before holds
            raise

    @property
    def discreet(self) -> bool:
        """Whether the job promises that nothing of single clients is told: it hides updates, or promises privacy."""
        parts = self._parts  # before there are any, nobody has looked at data
        return parts is not None and (parts.privacy is not None or parts.pipeline.hides_replies)

    def runtime(self) -> ClientRuntime:
        """Answers for the site's clients; made anew from what was agreed on where this process is a new one."""
        if self._runtime is None:
            self._open(self._prepared.read())
        assert self._runtime is not None
        return self._runtime

    def peers(self) -> Peers:
        """Who takes part, by which keys, as the site was told when it got ready.

        Raises:
          HanseError: It has not agreed to this run, or the run hides nothing.
        """
        self.runtime()
        if self._peers is None:
            raise RefusedError("this run's job hides no updates, so nobody said whose keys are whose")
        return self._peers

    def answerer(self, run: str) -> Answerer:
        """The runtime; or, where the job hides updates, what holds them back, and adds them to sums.

        Raises:
          HanseError: As `runtime` and `peers` do.
        """
        runtime = self.runtime()
        pipeline = self._built().pipeline
        if not pipeline.hides_replies:
            return runtime
        if self._held is None or self._held.run != run:
            peers, signer, aggregator = self.peers(), self._signer(), pipeline.aggregator
            federation = self._built().federation
            rules = SumRules(
                run=name_for_sums(run, self._place.job_sha256, peers.digest),
                aggregator=hidden_sum_of(aggregator),
                bits=residue_bits(runtime.stages, aggregator),
                fewest_of=self._sums().fewest_of,
                tells=runtime.adds_numbers,
                sign=signer.sign,
                verify=peers.verify,
                min_cohort=self.sum_policy.min_cohort,
                suits=self.sum_policy.suits(peers),
                max_staleness=federation.max_staleness if federation.stragglers == "buffer" else 0,
            )
            self._held = HeldAnswers(runtime, rules, HeldInFolder(self._place.folder / HELD), run=run)
        return self._held

    def _sums(self) -> AskedSums:
        """Which sums the job has, where it hides updates."""
        if self._asked_sums is None:
            parts = self._built()
            assert self._task is not None  # as there are peers
            self._asked_sums = AskedSums(
                pipeline=parts.pipeline,
                settings=parts.settings,
                task=self._task,
                num_clients=self.peers().num_clients,
                min_clients=self._account.min_clients,
            )
        return self._asked_sums

    def admit(self, phase: core.Phase, order: Order, clients: Sequence[str]) -> dict[str, HanseError]:
        """Why the policy, the data or the site's privacy budget does not allow this, client by client."""
        if self._built().pipeline.hides_replies and not self._begun:
            self._prepared.begin()
            self._begun = True
        found: dict[str, HanseError] = {}
        for client in clients:
            objection = self.objection(phase, client)
            if objection is not None:
                found[client] = objection
        if isinstance(phase, core.TrainPhase) and isinstance(order, TrainOrder):
            rest = [client for client in clients if client not in found]
            kept = partial(self.runtime().kept_digest, phase)
            found |= self._account.admit(phase, order, rest, kept=kept)
        return found

    def objection(self, phase: core.Phase, client: str) -> HanseError | None:
        """Why the policy, or the data, does not allow this."""
        if client not in self._mine:
            return DataError(f"site `{self._place.site}` has no client `{client[:200]}`")
        if (refused := self._account.objection(phase)) is not None:
            return refused
        reasons = self._policy.closed(self._clock())
        if isinstance(phase, core.TrainPhase) and self._runtime is not None:
            num_examples = self._runtime.dataset.num_examples(client)
            for work in works_of(phase, client):
                reasons += self._policy.work_refusals(work, num_examples)
            reasons += self._unprotected(phase, num_examples)
        reasons += self._asked_work().refusals(phase, client)
        if isinstance(phase, core.EvaluatePhase):
            reasons += self._policy.evaluation_refusals(phase.split)
            adapts = phase.own.adapt if phase.own is not None else None
            if adapts is not None and self._runtime is not None:
                reasons += self._policy.work_refusals(adapts, self._runtime.dataset.num_examples(client))
        if self.discreet and isinstance(phase, core.TrainPhase | core.EvaluatePhase) and phase.groups:
            reasons.append("the job hides what its clients send, and which group a client is in would tell of its data")
        if self._built().pipeline.hides_replies:
            reasons += self._sums().refusals(phase)
        privacy = self._built().privacy
        if not of_training(phase) and privacy is not None:
            whom = "single examples" if privacy.unit == "example" else "clients"
            reasons.append(f"the job promises privacy to {whom}, and this question is about their data, without noise")
        return RefusedError("; ".join(reasons)) if reasons else None

    def _asked_work(self) -> AskedWork:
        """What the job has clients do, whatever the coordinator says."""
        if self._held_to is None:
            self._held_to = AskedWork(self._built().strategy, self._built().settings.cohort)
        return self._held_to

    def _unprotected(self, phase: core.TrainPhase, num_examples: int) -> list[str]:
        guard = self._guard()
        if guard is not None:
            return guard.refusals(phase.round, phase.work, num_examples)
        if phase.work.example_privacy is not None:
            return ["this work hides single examples, and the job promises nothing of the kind"]
        parts = self._built()
        if parts.privacy is not None and not 1 <= phase.round <= parts.settings.rounds:
            return [f"the job promises privacy for {parts.settings.rounds:,} rounds, and this is round {phase.round:,}"]
        return []

    def _guard(self) -> ExampleGuard | None:
        """What the site holds the coordinator to, where the job promises privacy to examples."""
        parts = self._built()
        if parts.privacy is None or parts.privacy.unit != "example":
            return None
        if self._guarded is None:
            task: Any = parts.task
            self._guarded = ExampleGuard.check(
                parts.privacy, parts.pipeline, parts.settings, parts.strategy.local_work, task
            )
        return self._guarded

    def _asked(self) -> LocalWork:
        """What clients will be asked in the first round; how much noise there is to be, nobody has said yet."""
        parts = self._built()
        pipeline = parts.pipeline
        if self._guard() is not None:
            assert parts.privacy is not None
            assert isinstance(parts.privacy.mechanism, DPSGD)
            pipeline = replace(pipeline, example_privacy=parts.privacy.mechanism.in_steps(1.0))
        return pipeline.restricted(pipeline.protected(parts.strategy.local_work(1)))

    def _agree(self, submitter: str, cohort: Cohort) -> None:
        reasons = self._policy.refusals(self._values, submitter, cohort, self._clock())
        if reasons:
            raise Objections(reasons)
        reasons = self._policy.work_refusals(self._built().strategy.local_work(1))
        reasons += self._account.refusals(self._built(), submitter)
        reasons += self.sum_policy.refusals(self._built(), cohort)
        if reasons:
            raise Objections(reasons)

    def _ready(self, prepared: Prepared) -> PreparedReply:
        self._account.begin()
        dataset, task = self._open(prepared)
        self._account.check_plan(self._site_data().mine(dataset))
        trainer, chosen = make_trainer(task, self._built().trainer)
        trainer.check(self._asked())
        check_samples(dataset, task)
        parts = self._built()
        if parts.pipeline.shrinking is not None:
            tried = next(samples(dataset, task))
            check_smaller_model(parts.pipeline, parts.strategy, task, trainer, seed=parts.settings.seed, examples=tried)
        self._note(chosen)
        # asked before round 1 alone: what lies here was kept in an earlier run of this name, at another coordinator
        for name in (KEPT, HELD, OWN):
            shutil.rmtree(self._place.folder / name, ignore_errors=True)
        self._held = self._asked_sums = None
        self._prepared.write(prepared)
        return PreparedReply(clients=self._cards())

    def _cards(self) -> list[ClientCard]:
        """The site's clients, as it tells of them."""
        dataset = self.runtime().dataset
        return self._told(client_cards(dataset, self._site_data().mine(dataset)))

    def _open(self, prepared: Prepared) -> tuple[FederatedDataset, Task]:
        parts, data, config = self._built(), self._site_data(), self._config
        dataset = data.open(prepared.layout)
        peers = self._known(prepared, data.mine(dataset))
        task: Task = parts.task.bind(DataSchema.of(dataset)) if isinstance(parts.task, BindableTask) else parts.task
        trainer, _ = make_trainer(task, parts.trainer, note=self._note)
        kept = KeptInFolder(self._place.folder / KEPT)
        mine = data.mine(dataset)
        about = config.data.model_dump_json()  # the same file read in another way is other data
        stamp = stamp_of([config.data_path, config.resolved(config.data.test_path)], about=about)
        sizes = {client: dataset.num_examples(client) for client in mine}
        pipeline = self._account.open(parts, task, prepared.told, sizes, stamp=stamp)
        self._runtime = ClientRuntime(
            dataset,
            task,
            trainer,
            pipeline,
            seed=parts.settings.seed,
            kept=kept,
            noise=self._account.noise,
            keep_own=OwnModelFolder(self._place.folder / OWN, self._note).keep,
        )
        self._mine, self._peers, self._task = frozenset(mine), peers, task
        return dataset, task

    def _told(self, cards: Sequence[ClientCard]) -> list[ClientCard]:
        """The site's clients as it tells them: how many examples each has, nobody hears where the job hides updates."""
        if not self._built().pipeline.hides_replies:
            return list(cards)
        return [card.model_copy(update={"num_examples": 1}) for card in cards]

    def _check_list(self, order: PrepareOrder) -> None:
        """Whether the list of who takes part may be taken, where the job hides updates."""
        if not self._built().pipeline.hides_replies:
            return
        self._prepared.check_newer(order)
        listed = len(order.peers), sum(len(peer.clients) for peer in order.peers)
        if (order.sites, order.clients) != listed:
            raise RefusedError(
                f"the coordinator says that {plural(order.clients, 'client')} of {plural(order.sites, 'site')} take "
                f"part, and lists {plural(listed[1], 'client')} of {plural(listed[0], 'site')}"
            )

    def _known(self, prepared: Prepared, mine: Sequence[str]) -> Peers | None:
        """Who is who, where the job hides updates."""
        if not self._built().pipeline.hides_replies:
            return None
        signer = self._signer()
        peers = Peers(prepared.peers, site=self._place.site, key=signer.public, clients=mine)
        if reasons := self.sum_policy.objections(peers):
            raise Objections(reasons)
        return peers

    def _signer(self) -> SumSigner:
        if self.signer is None:
            raise RefusedError(
                "the job hides updates in secure sums, and this site's worker has no key to sign its part with",
                hint="run the site with: hanse site run",
            )
        return self.signer

    def _job(self) -> Job:
        return job_from_values(self._values)

    def _built(self) -> JobParts:
        if self._parts is None:
            parts = build_parts(self._job(), admit=self._policy.admit)
            if parts.pipeline.hides_replies:
                self._signer()
            self._parts = parts
        return self._parts

    def _site_data(self) -> SiteData:
        if self._data is None:
            self._data = site_data(
                self._config, self._job(), self._place.site, admit=self._policy.admit, note=self._note
            )
        return self._data
