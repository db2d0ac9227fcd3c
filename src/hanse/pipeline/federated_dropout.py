"""Federated dropout: the clients of a round train a smaller model, made of some units of the whole."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from hanse.core.aggregate import Aggregate
from hanse.core.errors import SettingError
from hanse.core.messages import Update
from hanse.core.params import Params, ParamSpec, TensorSpec
from hanse.core.protocols import Stage
from hanse.core.randomness import stream
from hanse.core.stage_round import StageRound
from hanse.pipeline.encodings import in_this_round, require_finite, require_layout
from hanse.pipeline.layers import Layer, kept_elements, layers_of

_NAME = "FederatedDropout"


@dataclass(frozen=True, kw_only=True)
class FederatedDropout:
    """Of each hidden layer a share of units, of convolutions filters, is left out in a round: neither sent nor trained.

    A unit that is left out takes its row of weights and its bias along, and its column of the next layer. With zeros in
    their place and no gradient there, the model that is left is trained exactly, whatever its activations. All clients
    of a round have the same units, drawn anew each round: so the broadcast is encoded once, is smaller too, and sums of
    updates mean something. Nothing is scaled.

    Needs a model whose layers feed one another in a row: dense ones, and convolutions, with or without biases. It
    restricts the training itself, so it stands first.

    Args:
      rate: Share of each hidden layer's units that is left out, in [0, 1); at least one stays.

    References:
      Caldas, Konečný, McMahan, Talwalkar 2018, arXiv:1812.07210, section 3; there each client may have another
      sub-model.
    """

    rate: float = 0.25
    _given: StageRound | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 0 <= self.rate < 1:
            raise SettingError("rate", f"must be at least 0 and below 1, got {self.rate}")

    @property
    def additive(self) -> bool:
        """True: all clients of a round send the same elements."""
        return True

    @property
    def redraws(self) -> bool:
        """True: an element of one round is none of the next."""
        return True

    @property
    def needs_uniform_weights(self) -> bool:
        """False."""
        return False

    @property
    def restricts(self) -> bool:
        """True."""
        return True

    @property
    def shrinks(self) -> bool:
        """True."""
        return True

    def trained(self, client: str) -> np.ndarray:
        """What is left of the model."""
        return self._kept

    def in_round(self, given: StageRound) -> Stage:
        """With this round's units; raises `PipelineError` where the model's layers do not feed one another in a row."""
        layers_of(given.spec, stage=_NAME)
        return replace(self, _given=given)

    def encoded_spec(self, spec: ParamSpec) -> ParamSpec:
        """The smaller model."""
        layers, tensors = layers_of(spec, stage=_NAME), list[TensorSpec]()
        for i, layer in enumerate(layers):
            out = self._count(layer, last=i == len(layers) - 1)
            inputs = layer.weight.shape[1] if i == 0 else layer.fan * self._count(layers[i - 1], last=False)
            tensors.append(replace(layer.weight, shape=(out, inputs, *layer.weight.shape[2:])))
            if layer.bias is not None:
                tensors.append(replace(layer.bias, shape=(out,)))
        return ParamSpec(tuple(tensors), spec.dtype)

    def lookalikes(self, params: Params) -> tuple[Params, Params]:
        """The model with zeros for what is left out, and the same with ones going into the units that are left out."""
        spec, vector = params.spec, params.numpy()
        into = np.zeros(spec.size, dtype=bool)
        for i, (layer, units) in enumerate(zip(self._layers, self._units, strict=True)):
            before = np.ones(layer.weight.shape[1], dtype=bool) if i == 0 else np.repeat(self._units[i - 1], layer.fan)
            rows = into[spec.slices[layer.weight.name]].reshape(layer.units, layer.weight.shape[1], -1)
            rows[np.ix_(~units, before)] = True
            if layer.bias is not None:
                into[spec.slices[layer.bias.name]] = ~units
        alone = np.where(self._kept, vector, vector.dtype.type(0))
        return params.with_vector(alone), params.with_vector(np.where(into, vector.dtype.type(1), alone))

    def encode(self, update: Update, rng: np.random.Generator) -> Update:
        """The client's half, and the server's for a broadcast; raises `NonFiniteUpdateError`."""
        require_finite(update)
        spec = in_this_round(self._given, self).spec
        return replace(update, delta=Params(self.encoded_spec(spec), update.delta.numpy()[self._kept]))

    def decode(self, update: Update) -> Update:
        """The server's half for one reply, and the client's for a broadcast; raises `EncodingError`."""
        require_layout(update, self.encoded_spec(in_this_round(self._given, self).spec))
        return replace(update, delta=self._filled(update.delta))

    def finish(self, aggregate: Aggregate, rng: np.random.Generator) -> Aggregate:
        """The server's half on the aggregate."""
        return replace(aggregate, delta=self._filled(aggregate.delta))

    def _filled(self, part: Params) -> Params:
        values = part.numpy()
        spec = replace(in_this_round(self._given, self).spec, dtype=values.dtype.name)
        vector = np.zeros(spec.size, dtype=values.dtype)
        vector[self._kept] = values
        return Params(spec, vector)

    def _count(self, layer: Layer, *, last: bool) -> int:
        return layer.units if last else max(1, layer.units - round(self.rate * layer.units))

    @cached_property
    def _layers(self) -> tuple[Layer, ...]:
        return layers_of(in_this_round(self._given, self).spec, stage=_NAME)

    @cached_property
    def _units(self) -> tuple[np.ndarray, ...]:
        """For each layer which units stay; all of the last one's, which are the model's outputs."""
        rng, found = stream(in_this_round(self._given, self).seed, "units"), []
        for i, layer in enumerate(self._layers):
            stay = np.zeros(layer.units, dtype=bool)
            count = self._count(layer, last=i == len(self._layers) - 1)
            stay[rng.choice(layer.units, size=count, replace=False, shuffle=False)] = True
            found.append(stay)
        return tuple(found)

    @cached_property
    def _kept(self) -> np.ndarray:
        return kept_elements(self._layers, in_this_round(self._given, self).spec, self._units)
