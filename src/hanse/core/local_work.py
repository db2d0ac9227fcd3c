"""`LocalWork`: the local computation that a strategy prescribes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from re import fullmatch
from typing import Literal, get_args

import numpy as np

from hanse.core.adversarial import Perturbation
from hanse.core.corrections import GradientCorrection, numbers_of, rescales, uploads_of
from hanse.core.errors import SettingError
from hanse.core.example_privacy import ExamplePrivacy
from hanse.core.objectives import LocalObjective
from hanse.core.optimizers import SGD, Optimizer
from hanse.core.params import ParamSpec
from hanse.core.schedules import Constant, Schedule
from hanse.core.stepping import Stepping, refuse_beside

EVERYTHING = ("*",)
"""Patterns that match each tensor."""

Upload = Literal["delta", "gradient", "newton"]
"""What a client sends: see `LocalWork.upload`."""

LOSS, HESSIAN = "loss", "hessian"
"""Names of what work with `upload` = ``"newton"`` sends beside the gradient: `[1]`, and `[P (P + 1) / 2]`."""


@dataclass(frozen=True, kw_only=True)
class LocalWork:
    """What a client does with the broadcast model before it answers.

    Args:
      epochs: Passes over the client's training examples, ≥ 1 (E in McMahan 2017).
      steps: Local steps instead of epochs, ≥ 1; the examples are cycled through, reshuffled
        after each pass.
      batch_size: Examples a step, ≥ 1, or ``"all"`` for the whole local data (B = ∞). The last
        batch of a pass may be shorter; no example is left out.
      optimizer: The update rule; its state starts afresh each round.
      schedule: Factor on the learning rate by round.
      correction: What the strategy adds to each gradient, or None.
      objective: What the strategy adds to the loss of each batch, made of what models find in it, or None. The loss
        that a client tells holds it.
      adversarial: Moves the inputs of each batch, before its step, to where the loss at the current weights is larger,
        so that the model learns to withstand that; or None. The loss that a client tells is that of the moved ones.
      stepping: A local step of the strategy's own in the place of a gradient and the optimiser's rule, or None. It uses
        the optimiser's learning rate, `max_grad_norm` bounds each of its gradients, and where it draws several batches
        an epoch has that many times fewer steps.
      upload: ``"delta"``: weights after the work minus weights before. ``"gradient"``: minus the
        mean gradient over all local examples at the broadcast weights, and no step is taken; buffers
        bring their change. ``"newton"``: the same, and beside it the mean loss there (`LOSS`) and the lower triangle of
        its matrix of second derivatives (`HESSIAN`); for models that are linear in their weights.
      sends: ``"change"``: what `upload` says. ``"model"``: the broadcast weights with it, so what the client
        arrived at, whatever the server's model is by then; for strategies that mix models (FedAsync).
      personal: Shell-style patterns of tensor names that stay on the client between rounds and
        are neither broadcast nor uploaded, for example ``("head.*",)``.
      accumulate: Batches whose gradients are averaged, by examples, into one step, ≥ 1.
      max_grad_norm: L2 bound to which a step's gradient is scaled down, or None.
      example_privacy: Hides each single example in every step's gradient, or None. A batch then has `batch_size`
        examples on average.
      shuffle: Draw a new order for each pass; False keeps the order of the data.
      trains: Shell-style patterns of tensor names that this work moves; all others stay as they were, buffers too.
      legs: Further local training in the same round, before or after this.
    """

    epochs: int = 1
    steps: int | None = None
    batch_size: int | Literal["all"] = 32
    optimizer: Optimizer = field(default_factory=SGD)
    schedule: Schedule = field(default_factory=Constant)
    correction: GradientCorrection | None = None
    objective: LocalObjective | None = None
    adversarial: Perturbation | None = None
    stepping: Stepping | None = None
    upload: Upload = "delta"
    sends: Literal["change", "model"] = "change"
    personal: tuple[str, ...] = ()
    accumulate: int = 1
    max_grad_norm: float | None = None
    example_privacy: ExamplePrivacy | None = None
    shuffle: bool = True
    trains: tuple[str, ...] = EVERYTHING
    legs: tuple[Leg, ...] = ()

    def __post_init__(self) -> None:
        for name, value in (("epochs", self.epochs), ("steps", self.steps), ("accumulate", self.accumulate)):
            if value is not None and value < 1:
                raise SettingError(name, f"must be at least 1, got {value}")
        if self.batch_size != "all" and (isinstance(self.batch_size, str) or self.batch_size < 1):
            raise SettingError("batch_size", f'must be at least 1, or "all", got {self.batch_size}')
        if self.max_grad_norm is not None and not self.max_grad_norm > 0:
            raise SettingError("max_grad_norm", f"must be more than 0, got {self.max_grad_norm}")

        if isinstance(self.trains, str) or not self.trains:
            raise SettingError("trains", f"must be a list of at least one pattern, got {self.trains!r}")
        self._check_upload()
        self._check_legs()
        self._check_adversarial()
        if self.stepping is not None:
            asked = {
                "correction": self.correction is not None,
                "objective": self.objective is not None,
                "adversarial": self.perturbation is not None,
                "trains": self.trains != EVERYTHING,
                "accumulate": self.accumulate > 1,
                "upload": self.upload != "delta",
                "example_privacy": self.example_privacy is not None,
            }
            refuse_beside(self.stepping, asked=asked, optimizer=self.optimizer)

    @property
    def pieces(self) -> tuple[LocalWork, ...]:
        """All that is done in a round, in order: the legs before, this itself, the legs after; none has legs."""
        if not self.legs:
            return (self,)
        before = [leg.work for leg in self.legs if leg.when == "before"]
        return (*before, replace(self, legs=()), *(leg.work for leg in self.legs if leg.when == "after"))

    @property
    def perturbation(self) -> Perturbation | None:
        """`adversarial`, where it moves anything at all."""
        return None if self.adversarial is None or self.adversarial.idle else self.adversarial

    @property
    def keeps(self) -> tuple[str, ...]:
        """Names of what a client keeps between rounds, beside its personal tensors."""
        parts = (self.correction, self.objective, self.stepping)
        own = [name for part in parts if part is not None for name in part.keeps]
        own += numbers_of(self.correction)
        for leg in self.legs:
            own += [leg.name] if leg.keeps else []
            own += [f"{leg.name}.{name}" for name in leg.work.keeps]
        return tuple(own)

    def bytes_kept(self, spec: ParamSpec) -> int:
        """Bytes that a client keeps between rounds for a model of this layout, of all its tensors."""
        numbers = {*numbers_of(self.correction), *numbers_of(self.stepping)}
        for leg in self.legs:
            numbers |= {f"{leg.name}.{name}" for name in numbers_of(leg.work.correction)}
        vectors = [name for name in self.keeps if name not in numbers]
        personal = spec.nbytes - spec.without(spec.matching(self.personal)).nbytes
        return personal + len(vectors) * spec.nbytes + len(numbers) * np.dtype(spec.dtype).itemsize

    @property
    def uploads(self) -> tuple[str, ...]:
        """Names of what is sent beside the delta, as far as the correction says so."""
        return (HESSIAN, LOSS) if self.upload == "newton" else uploads_of(self.correction)

    @property
    def bare(self) -> bool:
        """Whether nothing is sent beside the delta."""
        return self.upload != "newton" and all(piece.correction is None for piece in self.pieces)

    def bytes_of_derivatives(self, spec: ParamSpec) -> int:
        """Bytes of what is sent beside the gradient of a model of this layout; 0 for all but ``"newton"``."""
        if self.upload != "newton":
            return 0
        triangle = spec.num_trainable * (spec.num_trainable + 1) // 2
        return (triangle + 1) * np.dtype(spec.dtype).itemsize

    @property
    def remembers(self) -> bool:
        """Whether a client keeps anything of it from round to round."""
        return bool(self.personal or self.keeps)

    def lr(self, round_number: int) -> float:
        """The learning rate in round `round_number` (from 1)."""
        return self.optimizer.lr * self.schedule.factor(round_number)

    def batch_length(self, num_examples: int) -> int:
        """Examples a batch for a client with this many."""
        return max(num_examples, 1) if self.batch_size == "all" else min(self.batch_size, max(num_examples, 1))

    def num_steps(self, num_examples: int, *, share: float = 1.0) -> int:
        """Optimiser steps that a client with this many examples takes.

        Args:
          num_examples: n.
          share: How much of the work it does, in (0, 1]; at least one step is taken.

        >>> LocalWork(epochs=2, batch_size=10).num_steps(25)
        6
        >>> LocalWork(epochs=2, batch_size=10).num_steps(25, share=0.5)
        3
        """
        if self.steps is not None:
            steps = self.steps
        else:
            batches = -(-num_examples // self.batch_length(num_examples))
            if self.stepping is None:
                steps = self.epochs * -(-batches // self.accumulate)
            else:  # which may draw batches of two passes for one step
                steps = -(-self.epochs * batches // self.stepping.num_batches)
        return steps if share == 1 else max(1, round(share * steps))

    def _check_legs(self) -> None:
        names = [leg.name for leg in self.legs]
        if len(set(names)) < len(names):
            raise SettingError("legs", f"two of them have one name: {names}")
        if self.legs and self.example_privacy is not None:
            raise SettingError(
                "legs", "train beside the steps that hide single examples, and nothing would hide these in theirs"
            )
        if self.upload != "delta" and any(leg.moves for leg in self.legs):
            raise SettingError("legs", f'go on from weights that were trained; upload = "{self.upload}" trains none')
        beside = self.correction
        if beside is None or all(leg.keeps for leg in self.legs):
            return
        if uploads_of(beside) or beside.keeps or numbers_of(beside) or rescales(beside):
            raise SettingError(
                "legs",
                f"move the weights too, and {type(beside).__name__} reckons with what the main work alone made of them",
                hint="let the legs stand beside (keeps = true), or leave them out",
            )

    def _check_adversarial(self) -> None:
        if self.perturbation is None:
            return
        if self.objective is not None:
            raise SettingError(
                "adversarial",
                f"moves the inputs of each batch, and `{type(self.objective).__name__}` compares what models find in "
                "them as they are",
                hint="leave one of them out; gradient corrections, such as FedProx's, go with `adversarial`",
            )
        if self.upload != "delta":
            raise SettingError(
                "adversarial", f'moves the inputs of local steps, and upload = "{self.upload}" takes none'
            )

    def _check_upload(self) -> None:
        if self.sends not in ("change", "model"):
            raise SettingError("sends", f'must be "change" or "model", got {self.sends!r}')
        if self.sends == "model" and self.upload != "delta":
            raise SettingError("sends", f'is "model", and upload = "{self.upload}" trains none')
        if self.upload not in get_args(Upload):
            raise SettingError("upload", f'must be "delta", "gradient" or "newton", got {self.upload!r}')
        if self.upload == "delta":
            return
        # no step is taken, so nothing would come of these, without a word
        here = f'upload = "{self.upload}"'
        if self.correction is not None:
            raise SettingError("correction", f"changes local steps, and {here} takes none")
        if self.trains != EVERYTHING:
            raise SettingError("trains", f"names tensors that steps move; {here} takes none")
        if self.objective is not None:
            raise SettingError("objective", f"is a term of local steps' loss, and {here} takes none")
        if self.personal:
            raise SettingError("personal", f"names tensors that a client trains for itself; {here} trains none")


@dataclass(frozen=True, kw_only=True)
class Leg:
    """One more piece of a client's training in a round: by the same trainer, on the same examples.

    Pieces form a chain: what one ends with is what the next starts from, and what the last ends with is uploaded and
    kept. A leg that keeps its result stands beside the chain: it moves a model of the client's own and nothing else.
    Its batches come in an order of their own, so what the main work does is the same with and without legs.

    Args:
      name: Names it, and what it keeps; lower-case letters, digits and ``_``.
      work: What it does; has no legs, no personal tensors, and uploads nothing.
      when: Before or after the main work.
      start: Where it starts: ``"trained"``, from what the piece before it ended with; ``"broadcast"``, from what the
        client received; ``"kept"``, from what it kept of this leg, at first from what it received.
      anchor: What `StepContext.anchor` is: the leg's ``"start"``, or what was ``"broadcast"``.
      keeps: Keep the whole model that it ends with until the next round, and leave the chain as it is.
    """

    name: str
    work: LocalWork = field(default_factory=LocalWork)
    when: Literal["before", "after"] = "after"
    start: Literal["trained", "broadcast", "kept"] = "trained"
    anchor: Literal["start", "broadcast"] = "start"
    keeps: bool = False

    def __post_init__(self) -> None:
        if not fullmatch("[a-z][a-z0-9_]{0,39}", self.name):
            raise SettingError("name", f"must be a word in lower-case letters, digits and _, got {self.name!r}")
        if self.work.legs or self.work.personal or self.work.upload != "delta" or self.work.example_privacy is not None:
            raise SettingError("work", "of a leg has no legs and no personal tensors, and uploads nothing")
        if self.start == "kept" and not self.keeps:
            raise SettingError("start", 'is "kept", and the leg keeps nothing', hint="set keeps = true")

    @property
    def moves(self) -> bool:
        """Whether it is a part of the chain, or starts from it."""
        return not self.keeps or self.start == "trained"
