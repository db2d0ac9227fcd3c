"""Machine code on disk: a graph or a C++ source is compiled once for a machine, and loaded by every later run.

An artefact is a shared library that PyTorch's inductor has made of a graph ("AOTInductor": C++ throughout, so that a
step is one call). It is named by the hash of everything that it depends on: the graph, the tensors' shapes and orders
in memory, PyTorch's version, the processor. To load one is to run it, so the folder must belong to the user alone.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import stat
import subprocess
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx

from hanse.core.errors import JobError, TaskError
from hanse.trainers.cpp_compiler import compiler

CACHE = "HANSE_CACHE"
"""Environment variable that names the folder; by default ``$XDG_CACHE_HOME/hanse`` or ``~/.cache/hanse``."""

Compiled = Callable[[list[Tensor]], list[Tensor]]

_ALIKE = 0.05
"""Share of a step by which rounding may change it; what a compiler gets wrong changes it by far more."""

# a product and a sum as one instruction; nothing that would change what an infinity or NaN does
_FLAGS = ("-O3", "-march=native", "-std=gnu++17", "-ffp-contract=fast", "-shared", "-fPIC", "-w")


def require_compiler() -> None:
    """Refuse to go on where nothing could be compiled.

    Raises:
      JobError: There is no C++ compiler, or this PyTorch has no loader for what it makes.
    """
    if compiler() is None:
        raise JobError(
            "the compiled trainer needs a C++ compiler, and there is neither `g++` nor `clang++` on the path",
            hint='install one (Debian, Ubuntu: apt install g++), or take trainer.use = "resident"',
        )
    if not hasattr(getattr(torch._C, "_aoti", None), "AOTIModelContainerRunnerCpu"):
        raise JobError(
            f"the compiled trainer can't load compiled steps into PyTorch {torch.__version__}",
            hint='update PyTorch, or take trainer.use = "resident"',
        )


def compiled(graph: fx.GraphModule, flat: Sequence[Tensor]) -> Compiled:
    """The graph as machine code, from the cache or made now.

    Args:
      graph: Takes tensors like `flat`, which it may change in place, and returns a tuple.
      flat: For their shapes, types and orders in memory.

    What is made now takes one step beside the graph before anybody relies on it.

    Raises:
      TaskError: Inductor can't compile it, or what it makes computes something else.
    """
    folder = cache_folder()
    path = folder / f"{_fingerprint(graph, flat)}.so"
    if not path.exists():
        with _alone(folder / f"{path.stem}.lock"):
            if not path.exists():
                _make(graph, flat, path)
    return _loaded(path)


def _loaded(path: Path) -> Compiled:
    run: Compiled = torch._C._aoti.AOTIModelContainerRunnerCpu(str(path), 1).run
    return run


def shared_library(source: Path, definitions: Mapping[str, str], *, flags: Sequence[str] = ()) -> ctypes.CDLL:
    """A C++ source of Hanse's own as machine code for this very processor, from the cache or made now.

    Args:
      source: A file without dependencies but the standard library.
      definitions: Macros by name.
      flags: For the compiler, beside those that all sources get; the later of two counts.

    Raises:
      JobError: The compiler is not there, or refuses.
    """
    require_compiler()
    macros = (f"-D{name}={value}" for name, value in sorted(definitions.items()))
    command = [str(compiler()), *_FLAGS, *flags, *macros]
    found = hashlib.sha256()
    for part in (source.read_bytes(), *(word.encode() for word in command), _processor().encode()):
        found.update(part)
        found.update(b"\0")
    folder = cache_folder()
    path = folder / f"{source.stem}-{found.hexdigest()}.so"
    if not path.exists():
        with _alone(folder / f"{path.stem}.lock"):
            if not path.exists():
                _call_compiler(command, source, path)
    return ctypes.CDLL(str(path))


def _call_compiler(command: Sequence[str], source: Path, path: Path) -> None:
    handle, part = tempfile.mkstemp(dir=path.parent, suffix=".part")
    os.close(handle)
    try:
        done = subprocess.run(  # noqa: S603 - the compiler that the user's path or CXX names
            [*command, str(source), "-o", part], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise JobError(
                f"`{command[0]}` can't compile {source.name}: {done.stderr.strip()[:500]}",
                hint='name another compiler in CXX, or take trainer.use = "resident"',
            )
        Path(part).replace(path)  # never half a library under its name
    finally:
        Path(part).unlink(missing_ok=True)


def cache_folder() -> Path:
    """The folder of artefacts, made if need be; one of this process's own where it could be written to by others."""
    named = os.environ.get(CACHE)
    base = Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hanse"
    folder = base / "compiled"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        about = folder.stat()
        mine = about.st_uid == os.getuid() if hasattr(os, "getuid") else True
        if mine and not about.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and os.access(folder, os.W_OK):
            return folder
    except OSError:
        pass
    return _own_folder()


@lru_cache(maxsize=1)
def _own_folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="hanse-compiled-"))


def _fingerprint(graph: fx.GraphModule, flat: Sequence[Tensor]) -> str:
    found = hashlib.sha256()
    for part in (
        str(graph.graph),
        *(f"{t.dtype}{tuple(t.shape)}{t.stride()}{t.device.type}" for t in flat),
        *_constants(graph),
        torch.__version__,
        str(torch.get_num_threads()),
        str(compiler()),
        _processor(),
    ):
        found.update(part.encode())
        found.update(b"\0")
    return found.hexdigest()


def _constants(graph: fx.GraphModule) -> Iterator[str]:
    """Tensors that the graph holds: they end up in the artefact."""
    for node in graph.graph.nodes:
        if node.op == "get_attr":
            value = getattr(graph, node.target)
            if not isinstance(value, Tensor):
                raise TaskError(f"the model's graph holds a {type(value).__name__}, which can't be compiled")
            data = value.detach().cpu().contiguous()
            digest = hashlib.sha256(data.view(-1).view(torch.uint8).numpy().tobytes()).hexdigest()
            yield f"{node.target}{value.dtype}{tuple(value.shape)}{digest}"


@lru_cache(maxsize=1)
def _processor() -> str:
    """What code for this very processor may rely on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()} {torch.backends.cpu.get_cpu_capability()}"
    wanted = ("flags", "Features", "model name")
    return "\n".join(sorted({line for line in lines if line.startswith(wanted)}))


def _make(graph: fx.GraphModule, flat: Sequence[Tensor], path: Path) -> None:
    import torch._inductor
    from torch._inductor import config

    try:
        # one process: the pool of compilers pays for many kernels, and a step has a dozen
        with warnings.catch_warnings(), config.patch(compile_threads=1, fallback_random=True):
            warnings.simplefilter("ignore")
            made: Any = torch._inductor.aot_compile(graph, tuple(flat))
    except Exception as error:
        first = (str(error).strip().splitlines() or [""])[0][:200]
        raise TaskError(f"the model can't be compiled: {type(error).__name__}: {first}") from error
    handle, part = tempfile.mkstemp(dir=path.parent, suffix=".part")
    os.close(handle)
    try:
        shutil.copyfile(made, part)
        _check_alike(graph, _loaded(Path(part)), flat)
        Path(part).replace(path)  # never half a library under its name
    finally:
        Path(part).unlink(missing_ok=True)


def _check_alike(graph: fx.GraphModule, run: Compiled, flat: Sequence[Tensor]) -> None:
    """Whether machine code does to tensors what its graph does, up to rounding.

    A compiler that gets one pattern wrong says nothing: models train, and learn something else.

    Raises:
      TaskError: It does not.
    """
    by_graph, by_code = ([_copy(tensor) for tensor in flat] for _ in range(2))
    with torch.no_grad():
        outputs, others = graph(*by_graph), run(list(by_code))
    changes = [(b - a, c - a) for a, b, c in zip(flat, by_graph, by_code, strict=True) if a.is_floating_point()]
    values = [b for b in by_graph if b.is_floating_point()]
    changes += [(a, b) for a, b in zip(outputs, others, strict=True) if a.is_floating_point()]
    values += [a for a in outputs if a.is_floating_point()]
    for (wanted, found), value in zip(changes, values, strict=True):
        rounding = 16 * torch.finfo(value.dtype).eps * value.double().norm()
        off = (found.double() - wanted.double()).norm()
        if not torch.isfinite(wanted).all():
            continue  # examples that no model learns from
        if not off <= _ALIKE * wanted.double().norm() + rounding:
            raise TaskError("its compiled step computes something else than the model itself")


def _copy(tensor: Tensor) -> Tensor:
    copy = tensor.clone()
    return copy if copy.stride() == tensor.stride() else tensor  # what overlaps itself is not written to


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """One process at a time, where the system has such locks: a pool's workers wait for the one that compiles."""
    try:
        import fcntl
    except ImportError:  # Windows: they all compile
        yield
        return
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
