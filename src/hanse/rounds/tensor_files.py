"""Parameters and server states as safetensors files, written whole or not at all."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from hanse.core.errors import HanseError, StorageError, StorageFullError
from hanse.core.params import Params, ParamSpec, TensorSpec

T = TypeVar("T")
_META = "hanse"


def save_model(path: Path, params: Params) -> None:
    """Write a model as named tensors, for any safetensors reader; raises `StorageError`."""
    _write(path, {name: _contiguous(a) for name, a in params.arrays().items()}, _spec_to_json(params.spec))


def load_model(path: Path) -> Params:
    """Read what `save_model` wrote.

    Raises:
      StorageError: The file is missing, damaged or another program's.
    """
    tensors, about = _read(path)
    spec = _spec_from_json(about)
    vector = np.empty(spec.size, dtype=spec.dtype)
    for tensor in spec.tensors:
        vector[spec.slices[tensor.name]] = tensors[tensor.name].reshape(-1)
    return Params(spec, vector)


def save_vectors(path: Path, vectors: Mapping[str, Params]) -> None:
    """Write named parameter vectors, each exactly as it is; raises `StorageError`."""
    save_state(path, dict(vectors))


def load_vectors(path: Path) -> dict[str, Params]:
    """Read what `save_vectors` wrote."""
    tensors, skeleton = _read(path)
    return {name: _unpack_params(value, tensors) for name, value in skeleton["items"].items()}


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write named arrays; raises `StorageError`."""
    _write(path, {name: _contiguous(array) for name, array in arrays.items()}, {})


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read what `save_arrays` wrote."""
    return _read(path)[0]


def save_state(path: Path, state: Any) -> None:
    """Write a strategy's state: dataclasses, dicts and tuples of `Params`, arrays, numbers and strings.

    Raises:
      StorageError: The file can't be written, or the state holds something else.
    """
    tensors: dict[str, np.ndarray] = {}
    about = _pack(state, "state", tensors)
    _write(path, tensors, about)


def load_state(path: Path, template: T) -> T:
    """Read what `save_state` wrote, as the same classes as `template` (a fresh state of the strategy)."""
    tensors, skeleton = _read(path)
    found: T = _unpack(skeleton, tensors, template)
    return found


def _pack(value: Any, where: str, tensors: dict[str, np.ndarray]) -> Any:
    if isinstance(value, Params):
        tensors[where] = value.numpy()
        return {"kind": "params", "at": where, "spec": _spec_to_json(value.spec)}
    if isinstance(value, np.ndarray):
        tensors[where] = _contiguous(value)
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


def _contiguous(array: np.ndarray) -> np.ndarray:
    return np.asarray(array, order="C")  # `ascontiguousarray` would give a single number a dimension


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


def _unpack_params(node: Any, tensors: Mapping[str, np.ndarray]) -> Params:
    return Params(_spec_from_json(node["spec"]), tensors[node["at"]])


def _spec_to_json(spec: ParamSpec) -> dict[str, Any]:
    return {"dtype": spec.dtype, "tensors": [[t.name, list(t.shape), t.dtype, t.trainable] for t in spec.tensors]}


def _spec_from_json(about: Any) -> ParamSpec:
    tensors = tuple(TensorSpec(name, tuple(shape), dtype, flag) for name, shape, dtype, flag in about["tensors"])
    return ParamSpec(tensors, about["dtype"])


def _write(path: Path, tensors: dict[str, np.ndarray], about: Any) -> None:
    write_atomically(path, save(tensors, metadata={_META: json.dumps(about)}))


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all, also after a power cut.

    Raises:
      StorageFullError: The disk is full.
      StorageError: The folder can't be written.
    """
    scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with scratch.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        with suppress(OSError):  # the folder itself may be gone, or a file
            scratch.unlink()
        raise storage_error(error, path) from error


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


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return  # a folder can't be opened elsewhere; the rename itself is atomic
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _read(path: Path) -> tuple[dict[str, np.ndarray], Any]:
    try:
        with safe_open(path, framework="numpy") as file:
            about = json.loads((file.metadata() or {})[_META])
            return {name: file.get_tensor(name) for name in file.keys()}, about  # noqa: SIM118 - not a mapping
    except FileNotFoundError as error:
        raise StorageError(f"`{path}` is missing") from error
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise StorageError(
            f"`{path}` is damaged, or was not written by Hanse: {error}", hint="restore it, or start the run anew"
        ) from error
