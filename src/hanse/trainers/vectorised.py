"""The vectorised trainer: many clients side by side, each a lane of tensors `[K, …]`.

One small client leaves most of a large GPU idle; K of them in batched kernels fill it. On a CPU, where one client
fills a core, nothing is gained.

Batched kernels add up in an order that depends on how many lanes there are: the last bits of a client's result depend
on `width`, and on a CPU on who else is in its group. So groups are cut by the clients' places in the cohort, alike
in every process and at every repetition; and the width is a number of the job's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor
from torch.func import grad_and_value, vmap

from hanse.core.corrections import Fact, GradientCorrection
from hanse.core.local_work import EVERYTHING, LocalWork
from hanse.core.messages import Sums
from hanse.core.objectives import LocalObjective
from hanse.core.params import Params, ParamSpec
from hanse.data.examples import Examples
from hanse.trainers.base import Key, LocalFailure, LocalJob, LocalResult, Part
from hanse.trainers.contexts import Contexts, Finished
from hanse.trainers.divergence import refuse_non_finite
from hanse.trainers.gradients import has_hooks
from hanse.trainers.graphs import Capture, cuda_capture
from hanse.trainers.lane_buffers import Gradients, LaneBuffers
from hanse.trainers.lane_groups import Chunk, LaneGroup, chunks_of
from hanse.trainers.lane_plan import LanePlan, Tail
from hanse.trainers.lane_step import Compile, LaneStep, Steps, compiled_by_torch
from hanse.trainers.lane_stepping import SteppingLanes
from hanse.trainers.lanes import has_lanes, numbers
from hanse.trainers.memory import kept_data
from hanse.trainers.module_weights import module_on
from hanse.trainers.objectives import FixedModels, loss_by_weights
from hanse.trainers.resident import Precision, ResidentTrainer
from hanse.trainers.resident_task import ResidentTask
from hanse.trainers.stepper import kept_of, started

_KEPT_STEPS = 4  # kinds of group (batch length, shapes) whose memory and graphs are kept
Done = dict[int, LocalResult | LocalFailure]


class VectorisedTrainer:
    """Trains up to `width` clients at once.

    What can't be done side by side (models with buffers, random layers, optimisers of one's own, accumulated batches,
    adversarial training) is done by a resident trainer, and said once. Frozen parameters are the lanes' in common, and
    lie on the device once.

    Args:
      task: Makes the module, the tensors and the loss.
      device: A torch device.
      width: Clients side by side at most, ≥ 1.
      precision: As for the resident trainer, but for ``"float16"``, whose loss would have to be scaled lane by lane.
      steps: How steps are run: ``"eager"`` as they are, ``"graphs"`` captured as a graph (on a GPU), ``"compiled"``
        through `torch.compile` (on a GPU captured too); ``"auto"`` is graphs on a GPU and eager elsewhere.
      padded: Run every group on `width` lanes, the last one too; by default on a GPU, where the graph is there already.
        It is meant to make a client's bits independent of who else is in its group, which no GPU has shown yet.
      note: Told in words what is done by the resident trainer instead.
      capture: Captures graphs; by default those of CUDA, on a GPU.
      compile: Compiles steps.

    Attributes:
      deltas_on_device: Leave deltas where they were computed, for somebody who adds them up there.
    """

    def __init__(
        self,
        task: ResidentTask,
        *,
        device: str = "cpu",
        width: int = 64,
        precision: Precision = "float32",
        steps: Steps = "auto",
        padded: bool | None = None,
        note: Callable[[str], None] = lambda _: None,
        capture: Capture | None = None,
        compile: Compile = compiled_by_torch,  # noqa: A002 - it is what PyTorch calls it
    ) -> None:
        self._resident = ResidentTrainer(
            task, device=device, precision=precision, cache_bytes=kept_data(device), note=note
        )
        self._data = self._resident.data
        self._device = torch.device(device)
        self._spec = task.spec
        self._width = width
        self._note = note
        self._told: set[str] = set()
        on_gpu = self._device.type == "cuda"
        self._padded = on_gpu if padded is None else padded
        self._compile = compile if steps == "compiled" else None
        wants_graphs = steps in ("auto", "graphs", "compiled")
        self._capture = capture or cuda_capture if wants_graphs and (on_gpu or capture is not None) else None
        self._kept: list[tuple[object, LocalWork, LaneBuffers | SteppingLanes, LaneStep]] = []
        self._uploaded: tuple[Params, Tensor] | None = None
        self._anchored: tuple[Params, Tensor] | None = None
        self._fixed: FixedModels | None = None
        self.deltas_on_device = False
        self._task, self._precision = task, precision
        self._module = module = module_on(task, self._device).train()
        bare = not list(module.buffers()) and not any(has_hooks(parameter) for parameter in module.parameters())
        self._suited = bare and all(tensor.trainable for tensor in self._spec.tensors)
        self._gradients: dict[tuple[LocalObjective | None, tuple[str, ...]], tuple[Gradients, Gradients]] = {}

    @property
    def width(self) -> int:
        """Clients side by side at most."""
        return self._width

    def check(self, work: LocalWork) -> None:
        """As the resident trainer does it."""
        self._resident.check(work)

    def evaluate(self, params: Params, key: Key, examples: Callable[[], Examples]) -> Sums:
        """As the resident trainer does it, whose batches fill the device already."""
        return self._resident.evaluate(params, key, examples)

    def evaluate_each(self, params: Params, parts: Iterable[Part]) -> Iterator[Sums | LocalFailure]:
        """As the resident trainer does it."""
        return self._resident.evaluate_each(params, parts)

    def train(
        self, work: LocalWork, round_number: int, jobs: Iterable[LocalJob]
    ) -> Iterator[LocalResult | LocalFailure]:
        """As many clients at once as there are lanes; an error of one's own costs that client only.

        While the device computes one group, the next one's examples are read and sent there.
        """
        if not self._suited:
            self._tell("the model has buffers, or hooks on its parameters")
        elif work.example_privacy is not None:
            self._tell("steps with example privacy have the examples of one client side by side")
        elif work.perturbation is not None:
            self._tell("adversarial training moves the inputs of one client's batch at a time")
        elif not has_lanes(work.optimizer) or work.accumulate > 1 or work.upload != "delta":
            self._tell("such work is not done side by side")
        else:
            running: Chunk | None = None
            for clients in chunks_of(jobs, self._width):
                following = self._prepared(work, round_number, clients)
                if running is not None:
                    yield from self._collected(work, round_number, running)
                self._start(work, round_number, following)
                running = following
            if running is not None:
                yield from self._collected(work, round_number, running)
            # in a worker of a pool they may look at memory that the next message is written into
            self._uploaded = self._anchored = None
            return
        yield from self._resident.train(work, round_number, jobs)

    def _tell(self, why: str) -> None:
        # what was told is no reason to do anything else the next time: a resumed run has not been told
        self._say(f"trainer: clients are trained one after another, not side by side: {why}", once="one after another")

    def _say(self, line: str, *, once: str) -> None:
        if once not in self._told:
            self._told.add(once)
            self._note(line)

    def _prepared(self, work: LocalWork, round_number: int, jobs: list[LocalJob]) -> Chunk:
        """Examples read and on their way to the device, and the plan made."""
        began = time.perf_counter()
        done: Done = {}
        alike: dict[object, list[tuple[int, Tensor, Tensor]]] = {}
        for position, job in enumerate(jobs):
            try:
                with self._data.tensors((job.client, "train"), job.examples) as (x, y):
                    pair = x, y
            except Exception as error:  # noqa: BLE001 - one client's data, of whatever kind, costs that client only
                done[position] = LocalFailure(job.client, error)
                continue
            if not len(pair[0]):  # the resident trainer has the sentence for it
                done[position] = next(iter(self._resident.train(work, round_number, [job])))
                continue
            kinds = tuple((tensor.shape[1:], tensor.dtype) for tensor in pair)
            key = (work.batch_length(len(pair[0])), kinds)
            alike.setdefault(key, []).append((position, *pair))
        groups = [self._group(work, jobs, members) for members in alike.values()]
        return Chunk(jobs, groups, done, began)

    def _group(self, work: LocalWork, jobs: list[LocalJob], members: list[tuple[int, Tensor, Tensor]]) -> LaneGroup:
        own = [jobs[position] for position, _, _ in members]
        sizes = [len(x) for _, x, _ in members]
        lanes = self._width if self._padded else len(members)
        return LaneGroup(
            positions=[position for position, _, _ in members],
            jobs=own,
            x=torch.cat([x for _, x, _ in members]),
            y=torch.cat([y for _, _, y in members]),
            plan=LanePlan.of(work, sizes, [job.seed for job in own], lanes=lanes, shares=[job.share for job in own]),
            contexts=[],
        )

    def _start(self, work: LocalWork, round_number: int, chunk: Chunk) -> None:
        """Hand all steps to the device; on a GPU nobody waits for them here."""
        for group in chunk.groups:
            try:
                self._run(work, round_number, group)
            except Exception as error:  # noqa: BLE001 - what vmap can't do, and what a user's model raises, look alike
                # by themselves they end as they should, or fail each with an error of its own
                first = (str(error).strip().splitlines() or [""])[0][:200]
                self._tell(f"{type(error).__name__}: {first}")
                results = self._resident.train(work, round_number, group.jobs)
                chunk.done |= dict(zip(group.positions, results, strict=True))
                group.buffers = None

    def _run(self, work: LocalWork, round_number: int, group: LaneGroup) -> None:
        plan, lr, objective = group.plan, work.lr(round_number), work.objective
        if objective is not None:
            group.fixed = self._representations(objective, group)
        if work.correction is not None:
            group.contexts = [self._context(work.correction, group, lane) for lane in range(len(group.jobs))]
        if work.stepping is not None:
            group.begun = [started(work.stepping, self._spec, self._sent(job), job) for job in group.jobs]
        buffers, step = self._lanes_for(work, group, lr)
        starts = self._starts(group.jobs, buffers.lanes)
        if isinstance(buffers, SteppingLanes):
            buffers.load(starts, group.begun)
        else:
            buffers.load(starts, group.contexts)
        rows = self._data.send(torch.from_numpy(plan.rows.reshape(plan.num_steps, -1)))
        table = self._table(work, plan, lr, buffers)
        group.losses = torch.zeros_like(table[:, :, 0])
        for number in range(plan.num_steps):
            for lane in (plan.begin == number).nonzero()[0].tolist() if number else ():
                buffers.begin(lane)
            tails = plan.tails.get(number, [])
            if plan.whole[number].any():
                held = buffers.hold([tail.lane for tail in tails])
                buffers.numbers.copy_(table[number])
                step(*(_taken(t, rows[number], (buffers.lanes, plan.length)) for t in group.columns))
                group.losses[number].copy_(buffers.losses)
                buffers.put_back(held)
            if tails:
                self._take_tails(self._gradients_of(work), group, buffers, tails, table[number])
        group.buffers = buffers

    def _context(self, correction: GradientCorrection, group: LaneGroup, lane: int) -> Contexts:
        job, sizes = group.jobs[lane], group.plan.sizes
        first = sum(sizes[:lane])
        own = slice(first, first + sizes[lane])

        def find(facts: tuple[Fact, ...], weights: Tensor | None) -> dict[str, Tensor]:
            at = job.start if weights is None else Params(self._spec, weights)
            return self._resident.facts(facts, (group.x[own], group.y[own]), at)

        return Contexts(self._spec, self._anchor(job), correction, job, find)

    def _take_tails(
        self,
        gradients: tuple[Gradients, Gradients],
        group: LaneGroup,
        buffers: LaneBuffers | SteppingLanes,
        tails: Sequence[Tail],
        table: Tensor,
    ) -> None:
        """Shorter batches: all lanes at once where all have one of the same length, else lane by lane."""
        one_lane, many = gradients
        places = [self._data.send(torch.as_tensor(tail.places)) for tail in tails]
        if isinstance(buffers, SteppingLanes):
            group.tail_losses += buffers.tails(many, group.columns, tails, places, table)
            return
        length = len(places[0])
        if len(tails) == len(group.jobs) == buffers.lanes > 1 and all(len(rows) == length for rows in places):
            together = torch.cat(places)
            batch = (_taken(t, together, (len(tails), length)) for t in group.columns)
            grads, losses = many(buffers.weights, *batch)
            buffers.step(grads, table)
            group.tail_losses += [(k, length, losses[k]) for k in range(len(tails))]
            return
        for (lane, _, _), rows in zip(tails, places, strict=True):
            grads, loss = one_lane(buffers.row(lane), *(t.index_select(0, rows) for t in group.columns))
            one = slice(lane, lane + 1)
            buffers.step({name: grad.unsqueeze(0) for name, grad in grads.items()}, table[one], one)
            group.tail_losses.append((lane, len(rows), loss))

    def _gradients_of(self, work: LocalWork) -> tuple[Gradients, Gradients]:
        """Gradients and loss of one lane's batch, and of all lanes'; of those tensors that the work moves."""
        key = work.objective, work.trains
        if key not in self._gradients:
            autocast = partial(_autocast, self._device, self._precision)
            loss = loss_by_weights(work.objective, self._module, self._task.loss, autocast)
            one = (
                grad_and_value(loss) if work.trains == EVERYTHING else _of_some(loss, self._spec.matching(work.trains))
            )
            self._gradients[key] = one, vmap(one, randomness="error")
        return self._gradients[key]

    def _representations(self, objective: LocalObjective, group: LaneGroup) -> dict[str, Tensor]:
        """What fixed models find in the group's examples, one client after the other."""
        if self._fixed is None:
            self._fixed = FixedModels(self._task, self._device, _autocast(self._device, self._precision))
        inputs = torch.split(group.x, list(group.plan.sizes))
        each = [self._fixed.representations(objective, job, x) for job, x in zip(group.jobs, inputs, strict=True)]
        return {name: torch.cat([found[name] for found in each]) for name in each[0]}

    def _table(self, work: LocalWork, plan: LanePlan, lr: float, buffers: LaneBuffers | SteppingLanes) -> Tensor:
        """What the rule takes as `given` in each step of each lane, `[S, K, n]`; a stepping, the step's number."""
        if work.stepping is not None:
            return self._data.send(torch.from_numpy(plan.number).unsqueeze(-1).to(buffers.numbers.dtype))
        each = [numbers(work.optimizer, lr=lr, step=taken) for taken in range(1, plan.num_steps + 1)]
        kind = buffers.numbers.dtype
        return self._data.send(torch.tensor(each, dtype=kind)[torch.from_numpy(plan.number - 1)])

    def _lanes_for(self, work: LocalWork, group: LaneGroup, lr: float) -> tuple[LaneBuffers | SteppingLanes, LaneStep]:
        """Memory and step for groups of this shape, made when the first one comes."""
        plan = group.plan
        lanes = plan.rows.shape[1]
        kinds = (group.x.shape[1:], group.x.dtype, group.y.shape[1:], group.y.dtype)
        key = (lanes, plan.length, kinds, None if work.stepping is None else lr)
        for place, (known, of, buffers, step) in enumerate(self._kept):
            if known == key and _alike(of, work):
                self._kept.append(self._kept.pop(place))
                return buffers, step
        del self._kept[: -(_KEPT_STEPS - 1)]
        gradients, device = self._gradients_of(work)[1], self._device
        made: LaneBuffers | SteppingLanes
        if work.stepping is not None:
            made = SteppingLanes(self._spec, work, lr=lr, lanes=lanes, device=device)
        else:
            made = LaneBuffers(self._spec, work, lanes=lanes, device=device)
        taken = LaneStep(
            made,
            partial(made.whole, gradients),
            compile=self._compile,
            capture=self._capture,
            note=lambda line: self._say(line, once=line),
        )
        self._kept.append((key, work, made, taken))
        return made, taken

    def _sent(self, job: LocalJob) -> Tensor:
        """The weights to start from, on the device; a broadcast that all share is sent once."""
        if self._uploaded is None or self._uploaded[0] is not job.start:
            self._uploaded = job.start, torch.tensor(job.start.numpy(), device=self._device)
        return self._uploaded[1]

    def _anchor(self, job: LocalJob) -> Tensor:
        """The weights that a correction takes for those at the start."""
        if job.anchor is None:
            return self._sent(job)
        if self._anchored is None or self._anchored[0] is not job.anchor:
            self._anchored = job.anchor, torch.tensor(job.anchor.numpy(), device=self._device)
        return self._anchored[1]

    def _starts(self, jobs: Sequence[LocalJob], lanes: int) -> Tensor:
        """`[P]` where all start from the same model, else `[K, P]`."""
        if all(job.start is jobs[0].start for job in jobs):
            return self._sent(jobs[0])
        each = [self._sent(job) for job in jobs]
        return torch.stack(each + [each[0]] * (lanes - len(each)))

    def _collected(self, work: LocalWork, round_number: int, chunk: Chunk) -> Iterator[LocalResult | LocalFailure]:
        """The results of a chunk, in its order; the device is waited for here."""
        for group in chunk.groups:
            if group.buffers is not None:
                results = self._results(work, round_number, group, group.buffers)
                chunk.done |= dict(zip(group.positions, results, strict=True))
        share = (time.perf_counter() - chunk.began) / len(chunk.jobs)
        for position in range(len(chunk.jobs)):
            result = chunk.done[position]
            yield replace(result, seconds=share) if isinstance(result, LocalResult) else result

    def _results(
        self, work: LocalWork, round_number: int, group: LaneGroup, buffers: LaneBuffers | SteppingLanes
    ) -> list[LocalResult | LocalFailure]:
        count = len(group.jobs)
        losses, deltas = group.mean_losses(), buffers.change(count)
        asked = group.contexts or work.objective is not None or any(job.personal for job in group.jobs)
        after = buffers.after(count) if asked else deltas
        stays = self.deltas_on_device and self._stays(deltas)
        finite = torch.isfinite(deltas).all(1).tolist() if stays else [False] * count
        if not stays:
            deltas = self._data.fetch(deltas)
        if isinstance(buffers, SteppingLanes):
            group.kept = {name: self._data.fetch(rows) for name, rows in buffers.kept(count).items()}
        found: list[LocalResult | LocalFailure] = []
        for lane, job in enumerate(group.jobs):
            delta = Params(self._spec, deltas[lane] if stays else deltas[lane].numpy())
            try:
                found.append(self._result(work, round_number, group, lane, after[lane], delta, losses[lane]))
                if not finite[lane]:  # or not known to be: memory of this computer is looked through faster elsewhere
                    refuse_non_finite(job.client, round_number, {"delta": delta})
            except Exception as error:  # noqa: BLE001 - a refusal is this client's own
                found[lane:] = [LocalFailure(job.client, error)]
        return found

    @staticmethod
    def _stays(deltas: Tensor) -> bool:
        """Whether it is worth while to leave them where they are."""
        return deltas.device.type != "cpu"

    def _result(
        self,
        work: LocalWork,
        round_number: int,
        group: LaneGroup,
        lane: int,
        after: Tensor,
        delta: Params,
        losses: tuple[float, int],
    ) -> LocalResult:
        job, steps = group.jobs[lane], group.plan.num_steps - int(group.plan.begin[lane])
        finished = Finished({}, {})
        if group.contexts:
            finished = group.contexts[lane].finish(lambda: after, lr=work.lr(round_number), num_steps=steps)
            refuse_non_finite(job.client, round_number, {**finished.extras, **finished.kept})
        if work.stepping is not None:
            memory = {name: rows[lane] for name, rows in group.kept.items()}
            finished.kept.update(kept_of(work.stepping, self._spec, memory))
            refuse_non_finite(job.client, round_number, finished.kept)
        if work.objective is not None:
            own = Params(self._spec, after.cpu().numpy())
            finished.kept.update(dict.fromkeys(work.objective.keeps, own))
        personal = None
        if job.personal:
            names = ParamSpec(tuple(t for t in self._spec.tensors if t.name in job.personal), self._spec.dtype)
            personal = Params(self._spec, after.cpu().numpy()).select(names)
        mean_loss, size = losses
        return LocalResult(
            client=job.client,
            delta=delta,
            num_examples=size,
            num_steps=steps,
            personal=personal,
            extras=finished.extras,
            kept=finished.kept,
            sums={"count": float(size), "loss": mean_loss * size},
            scale=finished.scale,
        )


def _taken(tensor: Tensor, rows: Tensor, lead: tuple[int, int]) -> Tensor:
    return tensor.index_select(0, rows).view(*lead, *tensor.shape[1:])


def _of_some(loss: Callable[..., Tensor], moving: frozenset[str]) -> Gradients:
    """Gradients of the named tensors and the loss: no other gradient is computed."""

    def of_own(own: Mapping[str, Tensor], still: Mapping[str, Tensor], *batch: Tensor) -> Tensor:
        return loss({**still, **own}, *batch)

    found = grad_and_value(of_own)

    def gradients(weights: Mapping[str, Tensor], *batch: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        own = {name: weight for name, weight in weights.items() if name in moving}
        still = {name: weight for name, weight in weights.items() if name not in moving}
        result: tuple[dict[str, Tensor], Tensor] = found(own, still, *batch)
        return result

    return gradients


def _alike(one: LocalWork, other: LocalWork) -> bool:
    """Whether a step is the same: numbers that change from round to round come with each step."""
    return _of_a_step(one) == _of_a_step(other)


def _of_a_step(work: LocalWork) -> object:
    return work.optimizer, work.correction, work.objective, work.stepping, work.max_grad_norm, work.trains


def _autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    if precision in ("float32", "tf32"):
        return nullcontext()
    # nothing may be kept from step to step: a graph would go on with the weights of its capture
    return torch.autocast(device.type, dtype=getattr(torch, precision), cache_enabled=False)
