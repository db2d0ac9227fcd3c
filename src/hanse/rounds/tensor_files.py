"""Parameters and server states as safetensors: in files, written whole or not at all, and in bytes for the network.

`pack_*` copy the elements once; `unpack_*` return views of the bytes (read-only where these are), and take whatever
others have sent: what is not as it should be raises `ProtocolError` or `SpecMismatchError`, and nothing else.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np

from hanse.core.errors import HanseError, ProtocolError, SpecMismatchError, StorageError, StorageFullError
from hanse.core.judged_round import Memory
from hanse.core.params import Params, ParamSpec, TensorSpec
from hanse.rounds.tensor_bytes import Buffer, pack_parts, unpack

T = TypeVar("T")
_META = "hanse"
_ELEMENTS = frozenset({"bool", "float16", "bfloat16", "float32", "float64"}) | {
    f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)
}
"""Element types that a layout may name."""


def save_model(path: Path, params: Params) -> None:
    """Write a model as named tensors, for any safetensors reader; raises `StorageError`."""
    write_atomically(path, _parts(params.arrays(), _spec_to_json(params.spec)))


def pack_model(params: Params) -> bytes:
    """A model as the bytes that `save_model` writes."""
    return _packed(params.arrays(), _spec_to_json(params.spec))


def load_model(path: Path) -> Params:
    """Read what `save_model` wrote.

    Raises:
      StorageError: The file is missing, damaged or another program's.
    """
    with _reading(path) as content:
        arrays, about = _unpacked(content)
        with _strictly():
            spec = _spec_from_json(about)
            if any(arrays[tensor.name].shape != tensor.shape for tensor in spec.tensors):
                raise ValueError("a tensor has another shape than the layout says")
            vector = np.empty(spec.size, dtype=spec.dtype)
            for tensor in spec.tensors:
                vector[spec.slices[tensor.name]] = arrays[tensor.name].reshape(-1)
            return Params(spec, vector)


def save_vectors(path: Path, vectors: Mapping[str, Params], *, durable: bool = True) -> None:
    """Write named parameter vectors, each exactly as it is; raises `StorageError`."""
    write_atomically(path, _parts_of_state(dict(vectors)), durable=durable)


def load_vectors(path: Path) -> dict[str, Params]:
    """Read what `save_vectors` wrote; raises `StorageError`."""
    with _reading(path) as content:
        return unpack_vectors(content)


def pack_vectors(vectors: Mapping[str, Params]) -> bytes:
    """Named parameter vectors as bytes; the same vectors give the same bytes."""
    return pack_state(dict(vectors))


def unpack_vectors(content: Buffer, wanted: Mapping[str, ParamSpec] | None = None) -> dict[str, Params]:
    """Read what `pack_vectors` returned.

    Args:
      content: The bytes; the vectors are views of them.
      wanted: The names and layouts that are to be there, and no others.

    Raises:
      ProtocolError: The bytes are something else.
      SpecMismatchError: A vector of `wanted` is missing or has another layout, or there are others.
    """
    arrays, about = _unpacked(content)
    with _strictly():
        if about["kind"] != "dict":
            raise ValueError("it holds no named vectors")
        found = {name: _unpack_params(value, arrays) for name, value in about["items"].items()}
    if wanted is not None:
        _check_layouts(found, wanted)
    return found


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write named arrays; raises `StorageError`."""
    write_atomically(path, _parts(arrays, {}))


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read what `save_arrays` wrote; raises `StorageError`."""
    with _reading(path) as content:
        return unpack_arrays(content)


def pack_arrays(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Named arrays as bytes; the same arrays give the same bytes."""
    return _packed(arrays, {})


def unpack_arrays(content: Buffer) -> dict[str, np.ndarray]:
    """Read what `pack_arrays` returned, as views of it; raises `ProtocolError` where it is something else."""
    return _unpacked(content)[0]


def save_state(path: Path, state: Any, memory: Memory | None = None) -> None:
    """Write a strategy's state: dataclasses, dicts and tuples of `Params`, arrays, numbers and strings.

    Args:
      path: Where.
      state: The state.
      memory: What an aggregator carries to the next round; `load_memory` reads it.

    Raises:
      StorageError: The file can't be written, or the state holds something else.
    """
    write_atomically(path, _parts_of_state(state, memory))


def load_state(path: Path, template: T) -> T:
    """Read what `save_state` wrote, as the same classes as `template` (a fresh state of the strategy)."""
    with _reading(path) as content:
        return unpack_state(content, template)


def load_memory(path: Path) -> dict[str, np.ndarray]:
    """What an aggregator carried when `save_state` wrote the file; empty where it was nothing."""
    with _reading(path) as content:
        return unpack_memory(content)


def pack_state(state: Any, memory: Memory | None = None) -> bytes:
    """A strategy's state as bytes; raises `StorageError` where it holds something that can't be written.

    Args:
      state: The state.
      memory: What an aggregator carries to the next round; `unpack_memory` reads it.
    """
    return b"".join(_parts_of_state(state, memory))


def unpack_memory(content: Buffer) -> dict[str, np.ndarray]:
    """What an aggregator carried when `pack_state` returned these bytes; raises `ProtocolError` for others."""
    arrays, about = _unpacked(content)
    with _strictly():
        return {name: arrays[where] for name, where in about.get("memory", {}).items()}


def unpack_state(content: Buffer, template: T) -> T:
    """Read what `pack_state` returned, as the same classes as `template` (a fresh state of the strategy).

    Raises:
      ProtocolError: The bytes are something else.
      StorageError: The state holds a dataclass where `template` has none.
    """
    arrays, about = _unpacked(content)
    with _strictly():
        found: T = _unpack(about, arrays, template)
    return found


def _parts_of_state(state: Any, memory: Memory | None = None) -> list[Buffer]:
    arrays: dict[str, np.ndarray] = {}
    about = _pack(state, "state", arrays)
    if memory:
        about["memory"] = {name: f"memory.{name}" for name in memory}
        arrays |= {f"memory.{name}": array for name, array in memory.items()}
    return _parts(arrays, about)


def _parts(arrays: Mapping[str, np.ndarray], about: Any) -> list[Buffer]:
    return pack_parts(arrays, {_META: json.dumps(about)})


def _packed(arrays: Mapping[str, np.ndarray], about: Any) -> bytes:
    return b"".join(_parts(arrays, about))


def _unpacked(content: Buffer) -> tuple[dict[str, np.ndarray], Any]:
    arrays, metadata = unpack(content)
    with _strictly():
        return arrays, json.loads(metadata[_META])


@contextmanager
def _strictly() -> Iterator[None]:
    """What a description claims was written by others: any way in which it is not as it should be is one error."""
    try:
        yield
    except (KeyError, IndexError, TypeError, AttributeError, ValueError, OverflowError, RecursionError) as error:
        raise ProtocolError(
            f"this is not a packed set of tensors: its description is wrong ({type(error).__name__}: "
            f"{str(error)[:200]})"
        ) from error


def _check_layouts(found: Mapping[str, Params], wanted: Mapping[str, ParamSpec]) -> None:
    if set(found) != set(wanted):
        names = ", ".join(sorted(found))[:200] or "nothing"
        raise SpecMismatchError(f"the vectors that came are {names}; wanted {', '.join(sorted(wanted))}")
    for name, spec in wanted.items():
        difference = spec.difference(found[name].spec)
        if difference:
            raise SpecMismatchError(f"the vector `{name}` {difference[:1000]}")


@contextmanager
def _reading(path: Path) -> Iterator[bytearray]:
    try:
        with path.open("rb") as file:
            content = bytearray(os.fstat(file.fileno()).st_size)
            read = file.readinto(content)
        if read != len(content):
            raise ProtocolError(f"it ended after {read:,} of {len(content):,} bytes")
        yield content
    except FileNotFoundError as error:
        raise StorageError(f"`{path}` is missing") from error
    except (OSError, ProtocolError, SpecMismatchError) as error:
        raise StorageError(
            f"`{path}` is damaged, or was not written by Hanse: {error}", hint="restore it, or start the run anew"
        ) from error


def _pack(value: Any, where: str, tensors: dict[str, np.ndarray]) -> Any:
    if isinstance(value, Params):
        tensors[where] = value.numpy()
        return {"kind": "params", "at": where, "spec": _spec_to_json(value.spec)}
    if isinstance(value, np.ndarray):
        tensors[where] = value
        return {"kind": "array", "at": where}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        items = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        return {"kind": "record", "items": {n: _pack(v, f"{where}.{n}", tensors) for n, v in items.items()}}
    if isinstance(value, Mapping) and all(isinstance(name, str) for name in value):
        return {"kind": "dict", "items": {n: _pack(v, f"{where}.{n}", tensors) for n, v in value.items()}}
    if isinstance(value, tuple | list):
        kind = "list" if isinstance(value, list) else "tuple"
        return {"kind": kind, "items": [_pack(v, f"{where}.{i}", tensors) for i, v in enumerate(value)]}
    if value is None or isinstance(value, bool | int | float | str):
        return {"kind": "value", "value": value}
    kind = f"a {type(value).__name__}" + (" with keys that are not text" if isinstance(value, Mapping) else "")
    raise StorageError(
        f"a strategy's state holds {kind} at `{where}`, which can't be written",
        hint="a state is made of Params, arrays, numbers, strings, tuples, lists, dicts with text as keys, and "
        "dataclasses of these",
    )


def _unpack(node: Any, tensors: Mapping[str, np.ndarray], template: Any) -> Any:
    kind = node["kind"]
    if kind == "params":
        return _unpack_params(node, tensors)
    if kind == "array":
        return tensors[node["at"]]
    if kind == "record":
        if not dataclasses.is_dataclass(template) or isinstance(template, type):
            raise StorageError(
                f"a strategy's state was written with a dataclass of {list(node['items'])} where a fresh state has "
                f"{type(template).__name__}, so its class is not known",
                hint="let the strategy's `init` put a dataclass of that kind there",
            )
        parts = {n: _unpack(v, tensors, getattr(template, n)) for n, v in node["items"].items()}
        return type(template)(**parts)
    if kind == "dict":
        like = template if isinstance(template, Mapping) else {}
        return {n: _unpack(v, tensors, like.get(n)) for n, v in node["items"].items()}
    if kind in ("tuple", "list"):
        known = list(template) if isinstance(template, tuple | list) else []
        padded = known + [None] * (len(node["items"]) - len(known))
        items = [_unpack(v, tensors, t) for v, t in zip(node["items"], padded, strict=False)]
        return items if kind == "list" else tuple(items)
    return node["value"]


def _unpack_params(node: Any, arrays: Mapping[str, np.ndarray]) -> Params:
    if node["kind"] != "params":
        raise ValueError("a vector was wanted")
    spec, vector = _spec_from_json(node["spec"]), arrays[node["at"]]
    if vector.dtype.name != spec.dtype:
        raise SpecMismatchError(f"a vector is of {vector.dtype.name}; its layout says {spec.dtype[:40]}")
    return Params(spec, vector)


def _spec_to_json(spec: ParamSpec) -> dict[str, Any]:
    return {"dtype": spec.dtype, "tensors": [[t.name, list(t.shape), t.dtype, t.trainable] for t in spec.tensors]}


def _spec_from_json(about: Any) -> ParamSpec:
    tensors = []
    for name, shape, dtype, flag in about["tensors"]:
        sizes = tuple(shape)
        if not (isinstance(name, str) and isinstance(dtype, str) and dtype in _ELEMENTS and isinstance(flag, bool)):
            raise ValueError("a tensor's name, type or kind is not one")
        if len(sizes) > 32 or not all(type(size) is int and 0 <= size < 1 << 48 for size in sizes):
            raise ValueError(f"`{name[:200]}` has no usable shape")
        tensors.append(TensorSpec(name, sizes, dtype, flag))
    if about["dtype"] not in _ELEMENTS:
        raise ValueError("the vector's element type is not known")
    return ParamSpec(tuple(tensors), about["dtype"])


def write_atomically(path: Path, content: Buffer | Sequence[Buffer], *, durable: bool = True) -> None:
    """Write a file so that it is there whole or not at all, where that is `durable` also after a power cut.

    Args:
      path: Its folder is made where there is none.
      content: The bytes, in one or in parts.
      durable: Wait until the disk has it.

    Raises:
      StorageFullError: The disk is full.
      StorageError: The folder can't be written.
    """
    scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    parts = (content,) if isinstance(content, Buffer) else content
    try:
        with _created(scratch) as file:
            for part in parts:
                file.write(part)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        scratch.replace(path)
        if durable:
            sync_folder(path.parent)
    except OSError as error:
        with suppress(OSError):  # the folder itself may be gone, or a file
            scratch.unlink()
        raise storage_error(error, path) from error


def _created(path: Path) -> BinaryIO:
    try:
        return path.open("wb")
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("wb")


def storage_error(error: OSError, path: Path) -> HanseError:
    """The Hanse error for what the operating system said about a path."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageFullError(
            f"the disk is full: `{path}` could not be written",
            hint="every committed round is safe; free some space, then go on with: hanse resume",
        )
    return StorageError(
        f"`{path}` could not be written: {error.strerror or error}",
        hint="choose another folder with --out, or change its permissions",
    )


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable; raises `OSError`."""
    if os.name != "posix":
        return  # a folder can't be opened elsewhere; the rename itself is atomic
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
