"""Folders and tar archives of images, one subfolder for each class."""

from __future__ import annotations

import io
import tarfile
import warnings
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np

from hanse.core.errors import DataError, DataNotFoundError, MissingExtraError
from hanse.data.dataset import Dataset
from hanse.data.examples import Examples
from hanse.data.readers.encode import About
from hanse.data.readers.files import existing, existing_folder

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})
"""File endings that are taken for images; other files are passed over."""

MAX_IMAGE_BYTES = 64 << 20
"""Largest single image file that is read."""

Mode = Literal["RGB", "L"]
Size = tuple[int, int]
"""Height and width in pixels."""


def read_image_folder(
    path: Path | str, *, about: About | None = None, mode: Mode = "RGB", size: Size | None = None
) -> Dataset:
    """Read ``train/<class>/*.jpg`` and, where it is there, ``test/<class>/*.jpg``; or plainly ``<class>/*.jpg``.

    The images of a class may lie in deeper folders. Classes and files are taken in sorted order. A tar archive (gzipped
    or not) is read as it is: nothing is unpacked to the disk, and links in it are passed over.

    Args:
      path: A folder or a tar archive; in an archive the class folders may stand below common ones.
      about: Name and provenance.
      mode: ``RGB`` for three channels, ``L`` for grey.
      size: Height and width in pixels to resize to (bilinear); None wants images of one size.

    Returns:
      A data set with x float32 `[n, channels, height, width]` in [0, 1].

    Raises:
      MissingExtraError: Pillow is not installed.
      DataNotFoundError: There is nothing at that path, or no image in it.
      DataError: An image is damaged, too large or of another size, or a name in the archive leads outside it.
    """
    try:
        import PIL.Image  # noqa: F401  # said before the archive is searched, which may take seconds
    except ImportError:
        raise MissingExtraError("reading images", extra="images") from None
    found = Path(path).expanduser()
    if found.is_file():
        source: _Folder | _Archive = _Archive(existing(found))
    else:
        source = _Folder(existing_folder(found))
    entries = _entries(source.names(), found)
    classes = tuple(sorted({entry.label for entry in entries}))
    parts = _decode(source, entries, classes, mode=mode, size=size)
    about = about or About(name=found.name.split(".")[0])
    return Dataset(
        name=about.name,
        train=parts["train"],
        test=parts.get("test"),
        classes=classes,
        description=about.description,
        source=about.source or str(found),
    )


@dataclass(frozen=True)
class _Entry:
    """One image: where it is, which part of the set it belongs to, and its class."""

    name: PurePosixPath
    part: str
    label: str


class _Folder:
    def __init__(self, root: Path) -> None:
        self.root = root

    def names(self) -> list[PurePosixPath]:
        files = (file for file in self.root.rglob("*") if file.is_file())
        return [PurePosixPath(file.relative_to(self.root).as_posix()) for file in files]

    def contents(self, wanted: Collection[PurePosixPath]) -> Iterator[tuple[PurePosixPath, bytes]]:
        for name in wanted:
            file = self.root / name
            _check_size(file.stat().st_size, str(file))
            yield name, file.read_bytes()


class _Archive:
    def __init__(self, path: Path) -> None:
        self.path = path

    def names(self) -> list[PurePosixPath]:
        with self._open() as archive:
            return [_safe(member.name, self.path) for member in archive if member.isfile()]

    def contents(self, wanted: Collection[PurePosixPath]) -> Iterator[tuple[PurePosixPath, bytes]]:
        """In the order of the archive: a gzipped one can only be read forwards."""
        left = set(wanted)
        with self._open() as archive:
            for member in archive:
                name = _safe(member.name, self.path)
                file = archive.extractfile(member) if member.isfile() and name in left else None
                if file is None:
                    continue
                left.discard(name)
                _check_size(member.size, f"{self.path}: {name}")
                yield name, file.read()

    @contextmanager
    def _open(self) -> Iterator[tarfile.TarFile]:
        try:
            with tarfile.open(self.path) as archive:
                yield archive
        except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
            raise DataError(
                f"{self.path} can't be read as a tar archive: {error}", hint="a folder or a .tar(.gz) was wanted"
            ) from None


def _safe(name: str, path: Path) -> PurePosixPath:
    pure = PurePosixPath(name)
    if pure.is_absolute() or ".." in pure.parts or "\\" in name:
        raise DataError(f"{path}: the member {name!r} leads outside the archive; such an archive is not read")
    return pure


def _entries(names: list[PurePosixPath], path: Path) -> list[_Entry]:
    """The images in sorted order, with part and class read off their folders."""
    images = sorted({name for name in names if name.suffix.lower() in SUFFIXES and len(name.parts) > 1})
    if not images:
        raise DataNotFoundError(
            f"{path} holds no image below a class folder",
            hint="wanted: train/<class>/<name>.jpg and test/<class>/<name>.jpg, or <class>/<name>.jpg",
        )
    skip = _common_folders(images)
    heads = {name.parts[skip] for name in images}
    if "train" in heads:
        strange = next((n for n in images if n.parts[skip] not in ("train", "test") or len(n.parts) < skip + 3), None)
        if strange is not None:
            raise DataError(
                f"{path}: {strange} is neither below train/<class>/ nor below test/<class>/",
                hint="beside a folder `train` only `test` is known; parts for validation are split off at each client",
            )
        return [_Entry(name, name.parts[skip], name.parts[skip + 1]) for name in images]
    return [_Entry(name, "train", name.parts[skip]) for name in images]


def _common_folders(images: list[PurePosixPath]) -> int:
    """How many folders all images share before the class folders (or ``train``) begin."""
    skip = 0
    while all(len(name.parts) > skip + 2 for name in images) and len({name.parts[skip] for name in images}) == 1:
        if images[0].parts[skip] == "train":
            break
        skip += 1
    return skip


def _decode(
    source: _Folder | _Archive, entries: list[_Entry], classes: tuple[str, ...], *, mode: Mode, size: Size | None
) -> dict[str, Examples]:
    """One array for each part, filled image by image: no second copy of the set is ever held."""
    index = {label: i for i, label in enumerate(classes)}
    members = {part: [entry for entry in entries if entry.part == part] for part in sorted({e.part for e in entries})}
    rows = {entry.name: (part, row) for part, own in members.items() for row, entry in enumerate(own)}
    x: dict[str, np.ndarray] = {}
    shape: tuple[int, ...] | None = None
    for name, content in source.contents(rows):
        image = _image(content, str(name), mode, size)
        if shape is None:
            shape = image.shape
            x = {part: np.empty((len(own), *shape), dtype=np.float32) for part, own in members.items()}
        if image.shape != shape:
            raise DataError(
                f"{name}: an image of {image.shape[1]} x {image.shape[2]} pixels, "
                f"and the first one has {shape[1]} x {shape[2]}",
                hint="give `size` (height, width) to resize them",
            )
        part, row = rows[name]
        np.divide(image, np.float32(255), out=x[part][row], dtype=np.float32)
    return {
        part: Examples(x[part], np.array([index[entry.label] for entry in own], dtype=np.int64))
        for part, own in members.items()
    }


def _image(content: bytes, where: str, mode: Mode, size: Size | None) -> np.ndarray:
    """Bytes `[channels, height, width]` of one image."""
    import PIL.Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", PIL.Image.DecompressionBombWarning)
            with PIL.Image.open(io.BytesIO(content)) as opened:
                image = opened.convert(mode)
                if size is not None:
                    image = image.resize((size[1], size[0]), PIL.Image.Resampling.BILINEAR)
                array = np.asarray(image)
    except (OSError, ValueError, SyntaxError, PIL.Image.DecompressionBombError, Warning) as error:
        raise DataError(f"{where} can't be read as an image: {error}") from None
    return array[None] if array.ndim == 2 else np.moveaxis(array, -1, 0)


def _check_size(size: int, where: str) -> None:
    if size > MAX_IMAGE_BYTES:
        raise DataError(f"{where} has {size:,} bytes; an image file of at most {MAX_IMAGE_BYTES:,} is read")
