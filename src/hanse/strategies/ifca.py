"""IFCA: several models; each client trains the one that suits its examples best. HypCluster is the same idea."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from hanse.core.aggregate import Aggregate
from hanse.core.errors import PipelineError, SettingError
from hanse.core.local_work import LocalWork
from hanse.core.messages import Broadcast, Group
from hanse.core.params import Params, ParamSpec
from hanse.core.protocols import Weighting
from hanse.core.randomness import derive_seed


@dataclass(frozen=True)
class ClusterState:
    """The models of all clusters.

    Args:
      models: θ_1, …, θ_k, at least one.
      dealt: Which cluster each client is to train for, as long as some model is untrained that started as others did;
        empty where clients choose.
      untrained: Those models.
    """

    models: tuple[Params, ...]
    dealt: Mapping[str, int] = field(default_factory=dict)
    untrained: tuple[int, ...] = ()

    @property
    def params(self) -> Params:
        """The first cluster's model."""
        return self.models[0]


@dataclass(frozen=True, kw_only=True)
class IFCA:
    """Iterative federated clustering: k models, and clients choose among them anew in each round.

    All k models are sent to each client of the cohort M. With F_i the mean loss over all its training examples, it
    estimates its cluster, and trains that cluster's model alone:

        ĵ_i = argmin_j F_i(θ_j)

    The server moves each model by what the clients of its cluster brought. With `averaging="models"` (the paper's
    option II), θ̃_i being the weights after local work,

        θ_j ← Σ_{i: ĵ_i = j} a_i θ̃_i / Σ_{i: ĵ_i = j} a_i

    and with ``"gradients"`` (option I), each client answering with the gradient over all its examples,

        θ_j ← θ_j − lr · Σ_{i: ĵ_i = j} a_i ∇F_i(θ_j) / Σ_{i ∈ M} a_i

    so that a cluster with few clients takes shorter steps. The weights a_i are 1 in the paper, where all clients hold
    as many examples; here they are n_i unless `weighting` is ``"uniform"``. A model that nobody chose stays as it is.
    Equals FedAvg, to the bit, when k = 1 and models are averaged.

    Where clusters differ in part only, they may share tensors (the paper's weight sharing): those that match `shared`
    move alike in all models, by the mean over all clients, and the rest by each cluster's own.

    HypCluster (Mansour et al.) alternates between the same two steps, with SGD on the union of a cluster's examples
    in place of averaging, hence with a_i = n_i; and it starts from models that were trained on some of the clients, as
    `start="clients"` does here, where IFCA starts from random weights.

    Both find local optima: which clusters come out depends on the start, and a model that no client prefers is never
    trained. With another `restart` it is another start; the paper takes the best of several.

    Args:
      clusters: k, the number of models, ≥ 1, at most the number of clients.
      local: What clients do; in option I its batch size alone counts, which bounds memory.
      averaging: ``"models"`` or ``"gradients"``.
      lr: The server's learning rate for option I, > 0.
      start: ``"models"``: each model starts from random weights of its own. ``"clients"``: all start from the same
        weights, all clients are dealt out to them evenly at random, and choose once each model was trained; also for
        models that start at zero, whose losses could not differ.
      shared: Patterns of names of tensors that all models share.
      restart: Which random start, ≥ 0. With 0 the first model starts as FedAvg's would.
      weighting: ``"examples"`` or ``"uniform"``.

    References:
      Ghosh, Chung, Yin, Ramchandran 2020, arXiv:2006.04088, algorithm 1, and its weight sharing. (Its clients may
      estimate their cluster on a part of their examples; here on all.) Mansour, Mohri, Ro, Suresh 2020,
      arXiv:2002.10619, section 3 (HypCluster).
    """

    clusters: int = 2
    local: LocalWork = field(default_factory=LocalWork)
    averaging: Literal["models", "gradients"] = "models"
    lr: float = 0.1
    start: Literal["models", "clients"] = "models"
    shared: tuple[str, ...] = ()
    restart: int = 0
    weighting: Weighting = "examples"

    #: Clients choose by their own data.
    choosing = True

    def __post_init__(self) -> None:
        if self.clusters < 1:
            raise SettingError("clusters", f"must be at least 1, got {self.clusters}")
        if self.restart < 0:
            raise SettingError("restart", f"must not be negative, got {self.restart}")
        if not self.lr > 0:
            raise SettingError("lr", f"must be more than 0, got {self.lr}")
        if self.averaging not in ("models", "gradients"):
            raise SettingError("averaging", f'must be "models" or "gradients", got {self.averaging!r}')
        if self.start not in ("models", "clients"):
            raise SettingError("start", f'must be "models" or "clients", got {self.start!r}')
        if self.averaging == "gradients" and self.local.perturbation is not None:
            raise SettingError(
                "local.adversarial", 'moves the inputs of local steps, and averaging = "gradients" takes none'
            )
        if self.local.remembers and self.clusters > 1:
            raise SettingError(
                "local", "has clients keep vectors, and these would be of another model once a client goes over to one"
            )

    @property
    def max_groups(self) -> int:
        """k: more than there are clients could not all be chosen."""
        return self.clusters

    def model_seeds(self, seed: int) -> Sequence[int]:
        """The seeds of the models' first weights, from the job's."""
        if self.start == "clients":
            return [derive_seed(seed, "cluster", self.restart, 0) if self.restart else seed] * self.clusters
        seeds = [derive_seed(seed, "cluster", self.restart, j) for j in range(self.clusters)]
        return seeds if self.restart else [seed, *seeds[1:]]

    def init_models(self, models: Sequence[Params], clients: Sequence[str]) -> ClusterState:
        """The models before training, and who is to train which at first."""
        common = self._common(models[0].spec)
        if common is not None:
            models = [model.overlay(models[0].select(common)) for model in models]
        if self.start == "models" or self.clusters == 1:
            return ClusterState(tuple(models))
        order = sorted(clients, key=lambda client: (derive_seed(self.restart, "deal", client), client))
        dealt = {client: place % self.clusters for place, client in enumerate(order)}
        return ClusterState(tuple(models), dealt, tuple(range(self.clusters)))

    def init(self, params: Params) -> ClusterState:
        """The same model for all clusters."""
        return ClusterState((params,) * self.clusters)

    def local_work(self, round_number: int) -> LocalWork:
        """`local`, or the gradient at the chosen model."""
        if self.averaging == "gradients":
            return LocalWork(upload="gradient", batch_size=self.local.batch_size, shuffle=False)
        return self.local

    def groups(self, state: ClusterState, clients: Sequence[str], round_number: int) -> Sequence[Group]:
        """One for each model: to choose among, or as clients were dealt out."""
        broadcasts = [Broadcast(params=model) for model in state.models]
        if not state.dealt:
            return [Group(name=str(j), broadcast=broadcast) for j, broadcast in enumerate(broadcasts)]
        dealt: list[list[str]] = [[] for _ in broadcasts]
        for client in clients:
            dealt[state.dealt[client]].append(client)
        return [
            Group(name=str(j), broadcast=broadcast, clients=tuple(dealt[j])) for j, broadcast in enumerate(broadcasts)
        ]

    def step_groups(self, state: ClusterState, aggregates: Mapping[str, Aggregate]) -> ClusterState:
        """Move each model by its own aggregate."""
        total = sum(self._weight(aggregate) for aggregate in aggregates.values())
        models = list(state.models)
        for name, aggregate in aggregates.items():
            delta = aggregate.delta
            if self.averaging == "gradients":
                delta = delta.scale_trainable(self.lr * self._weight(aggregate) / total)
            models[int(name)] = models[int(name)] + delta
        common = self._common(models[0].spec)
        if common is not None:
            moved = state.models[0].select(common) + self._mean(aggregates.values(), common)
            models = [model.overlay(moved) for model in models]
        untrained = tuple(j for j in state.untrained if str(j) not in aggregates)
        return ClusterState(tuple(models), state.dealt if untrained else {}, untrained)

    def step(self, state: ClusterState, aggregate: Aggregate) -> ClusterState:
        """The step of a single cluster.

        Raises:
          PipelineError: There are several.
        """
        if self.clusters > 1:
            raise PipelineError(f"IFCA has {self.clusters} models, and one aggregate came for all of them")
        return self.step_groups(state, {"0": aggregate})

    def models(self, state: ClusterState) -> Mapping[str, Params]:
        """Each cluster's."""
        return {str(j): model for j, model in enumerate(state.models)}

    def _common(self, spec: ParamSpec) -> ParamSpec | None:
        """Layout of the tensors that all models share; None where they share none."""
        names = spec.matching(self.shared) if self.shared else frozenset()
        return spec.without(frozenset(spec.slices) - names) if names else None

    def _mean(self, aggregates: Iterable[Aggregate], common: ParamSpec) -> Params:
        """The shared tensors' step: the mean over all clients, times the rate where gradients came."""
        total, weight = np.zeros(common.size), 0
        for aggregate in aggregates:
            total += self._weight(aggregate) * aggregate.delta.select(common).numpy().astype(np.float64)
            weight += self._weight(aggregate)
        mean = Params(common, (total / weight).astype(common.dtype))
        return mean.scale_trainable(self.lr) if self.averaging == "gradients" else mean

    def _weight(self, aggregate: Aggregate) -> int:
        return aggregate.num_examples if self.weighting == "examples" else aggregate.num_clients
