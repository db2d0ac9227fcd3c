"""Choosing a trainer for a task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from hanse.core.adversarial import Perturbation
from hanse.core.errors import JobError, SettingError, TaskError, did_you_mean
from hanse.core.messages import Sums
from hanse.core.params import Params
from hanse.data.examples import Examples
from hanse.trainers.base import Trainer
from hanse.trainers.numerics import set_numerics

_CHOICES = {
    "use": ("standard", "auto", "resident", "compiled", "vectorised", "plain"),
    "precision": ("float32", "tf32", "bfloat16", "float16"),
    "steps": ("auto", "eager", "graphs", "compiled"),
}
_WIDTH = 64  # lanes where nobody has looked at the memory


@dataclass(frozen=True, kw_only=True)
class TrainerSettings:
    """How local work is run; nothing here changes what is computed, but for rounding.

    Args:
      use: ``"resident"`` for torch modules, one client after another; ``"compiled"`` for the same with compiled
        steps; ``"vectorised"`` for many clients side by side, in a simulation; ``"plain"`` for
        estimators and callables; ``"standard"`` for resident or plain, the one that fits; ``"auto"`` for compiled
        where a simulation is long enough to gain from it, else standard.
      device: A torch device. With several workers, ``"cuda"`` is one GPU after another.
      precision: Type of the activations under mixed precision; ``"tf32"`` is float32 whose products are rounded to
        TensorFloat-32 by a GPU.
      width: Clients that ``"vectorised"`` trains side by side at most, ≥ 0; fewer where memory holds fewer. 0 is as
        many as the memory holds and a cohort has. The result's last bits depend on it.
      steps: How ``"vectorised"`` runs a step: ``"eager"`` as it is; ``"graphs"`` captured as a graph, on a GPU;
        ``"compiled"`` through `torch.compile`, and captured on a GPU; ``"auto"`` is graphs on a GPU, else eager.
      threads: CPU threads inside one client's arithmetic, ≥ 1. The result's last bits may depend on it,
        so it belongs to the job and not to the machine; use workers to fill the cores.
    """

    use: Literal["standard", "auto", "resident", "compiled", "vectorised", "plain"] = "standard"
    device: str = "cpu"
    precision: Literal["float32", "tf32", "bfloat16", "float16"] = "float32"
    width: int = 0
    steps: Literal["auto", "eager", "graphs", "compiled"] = "auto"
    threads: int = 1

    def __post_init__(self) -> None:
        for name, allowed in _CHOICES.items():
            value = getattr(self, name)
            if value not in allowed:
                raise SettingError(name, f"`{value}` is unknown", hint=did_you_mean(str(value), allowed))
        if self.threads < 1:
            raise SettingError("threads", f"must be at least 1, got {self.threads}")
        if self.width < 0:
            raise SettingError("width", f"must be at least 1, or 0 for as many as fit, got {self.width}")
        if self.precision == "tf32" and not self.on_gpu:
            raise SettingError(
                "precision",
                f"TensorFloat-32 is a GPU's way to multiply; the device is `{self.device}`",
                hint='take "float32", or device = "cuda"',
            )
        if self.use == "vectorised" and self.precision == "float16":
            raise SettingError(
                "precision",
                "clients side by side can't be trained in float16, whose loss must be scaled for each by itself",
                hint='take "bfloat16"',
            )
        if self.steps == "graphs" and not self.on_gpu:
            raise SettingError("steps", f"only a GPU captures graphs; the device is `{self.device}`")
        if self.use == "compiled" and (not self.device.startswith("cpu") or self.precision != "float32"):
            raise SettingError(
                "use",
                f"compiled steps run on the CPU in float32; got the device `{self.device}` and {self.precision}",
                hint='take "resident" on a GPU or in mixed precision',
            )

    @property
    def on_gpu(self) -> bool:
        """Whether the device is a GPU of NVIDIA's."""
        return self.device.startswith("cuda")


def make_trainer(
    task: Any,
    settings: TrainerSettings,
    *,
    whole_cohorts: bool = False,
    note: Callable[[str], None] = lambda _: None,
) -> tuple[Trainer, str]:
    """The trainer for a task, and a line that says which was chosen and why.

    Args:
      task: What is learned.
      settings: What the job says.
      whole_cohorts: Whether the trainer is handed cohorts whole, or in parts of its width. One that takes clients side
        by side wants that: the last bits of a client's result depend on who else is with it.
      note: Told later, in words, where the trainer has to fall back on another way.

    Raises:
      TaskError: The task offers what neither, or not the one asked for, needs.
      JobError: The trainer can't be had on this machine.
    """
    torch_like = hasattr(task, "module") and hasattr(task, "tensors")
    plain_like = hasattr(task, "train_plain")
    chosen: str = settings.use
    if chosen in ("standard", "auto"):  # a simulation has settled `auto` before; sites and baselines do without
        chosen = "resident" if torch_like else "plain"
    if chosen == "vectorised" and not whole_cohorts:
        raise JobError(
            "the trainer `vectorised` takes many clients at once, as a simulation does",
            hint='take trainer.use = "standard" at sites',
        )
    if chosen in ("resident", "compiled", "vectorised") and torch_like:
        return _torch_trainer(task, settings, chosen, note)
    if chosen == "plain" and plain_like:
        from hanse.trainers.plain import PlainTrainer

        return PlainTrainer(task), "trainer: plain (the task trains by itself)"
    needs = "train_plain and evaluate_plain" if chosen == "plain" else "a torch module"
    raise TaskError(
        f"the trainer `{chosen}` needs {needs}, which task `{getattr(task, 'name', task)}` does not offer",
        hint='leave trainer.use at "standard"',
    )


def make_robustness(
    task: Any, settings: TrainerSettings, perturbation: Perturbation, *, seed: int
) -> Callable[[Params, Callable[[], Examples]], Sums]:
    """What measures a task's models on examples whose inputs are moved; see `hanse.trainers.robustness`.

    Raises:
      TaskError: The task shows no gradients, or its inputs can't be moved.
      JobError: The device is not there.
    """
    if not (hasattr(task, "module") and hasattr(task, "tensors")):
        raise TaskError(
            f"robust accuracy needs the gradients of a torch module, and task `{getattr(task, 'name', task)}` trains "
            "by itself and shows none",
            hint="leave `robust` out, or take a task with a PyTorch model",
        )
    import torch

    from hanse.trainers.memory import kept_data
    from hanse.trainers.robustness import Robustness

    torch.set_num_threads(settings.threads)
    device, precision = settings.device, settings.precision
    set_numerics(device, precision)
    return Robustness(task, perturbation, seed=seed, device=device, precision=precision, cache_bytes=kept_data(device))


def _torch_trainer(
    task: Any, settings: TrainerSettings, chosen: str, note: Callable[[str], None]
) -> tuple[Trainer, str]:
    import torch

    from hanse.trainers.memory import kept_data
    from hanse.trainers.resident import ResidentTrainer

    torch.set_num_threads(settings.threads)
    device, precision = settings.device, settings.precision
    set_numerics(device, precision)
    if chosen == "resident":
        trainer = ResidentTrainer(task, device=device, precision=precision, cache_bytes=kept_data(device), note=note)
        return trainer, f"trainer: resident on {device} (a torch module, one client after another)"
    if chosen == "vectorised":
        from hanse.trainers.vectorised import VectorisedTrainer

        width = settings.width or _WIDTH
        side_by_side = VectorisedTrainer(
            task, device=device, width=width, precision=precision, steps=settings.steps, note=note
        )
        return side_by_side, f"trainer: vectorised on {device} (up to {width} clients side by side)"
    from functools import partial

    from hanse.trainers.artefacts import require_compiler
    from hanse.trainers.compiled import CompiledSteps
    from hanse.trainers.dense_layer import chain_of_kernels
    from hanse.trainers.dense_pass import DensePass

    require_compiler()
    fast = partial(CompiledSteps, note=note)
    if settings.threads > 1:  # the kernels keep to one
        trainer = ResidentTrainer(task, device=device, fast=fast, note=note)
    else:
        trainer = ResidentTrainer(task, device=device, fast=fast, whole=DensePass.of, chain=chain_of_kernels, note=note)
    return trainer, f"trainer: compiled on {device} (one client after another, a step in one call of machine code)"
