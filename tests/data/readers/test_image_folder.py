"""Folders and archives of images."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest

from hanse.core.errors import DataError, DataNotFoundError
from hanse.data.readers import image_folder
from hanse.data.readers.image_folder import read_image_folder

image = pytest.importorskip("PIL.Image")


def png(value: int, size: tuple[int, int] = (3, 2)) -> bytes:
    buffer = io.BytesIO()
    image.new("RGB", size, (value, 0, 255)).save(buffer, "PNG")
    return buffer.getvalue()


FILES = {
    "train/dog/b.png": png(20),
    "train/cat/a.png": png(10),
    "train/cat/deep/c.PNG": png(30),
    "train/notes.txt": b"not an image",
    "test/dog/z.png": png(40),
}


def folder(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def archive(path: Path, files: dict[str, bytes], mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def test_folder_and_archives_agree(tmp_path: Path) -> None:
    found = [
        read_image_folder(folder(tmp_path / "set", FILES)),
        read_image_folder(archive(tmp_path / "set.tar.gz", FILES)),
        read_image_folder(archive(tmp_path / "set.tar", {f"./top/{k}": v for k, v in FILES.items()}, "w")),
    ]
    for data in found:
        assert data.classes == ("cat", "dog")
        assert data.train.x.shape == (3, 3, 2, 3)
        assert data.train.x.dtype == np.float32
        # sorted: cat/a, cat/deep/c, dog/b
        assert np.rint(data.train.x[:, 0, 0, 0] * 255).tolist() == [10, 30, 20]
        assert data.train.x[0, 2].min() == 1.0
        assert data.train.y.tolist() == [0, 0, 1]
        assert data.test is not None
        assert data.test.y.tolist() == [1]
        assert data.name == "set"


def test_classes_without_parts(tmp_path: Path) -> None:
    files = {"cat/a.png": png(1), "dog/b.png": png(2)}
    data = read_image_folder(folder(tmp_path, files))
    assert data.classes == ("cat", "dog")
    assert data.test is None


@pytest.mark.parametrize("name", ["val/cat/a.png", "train/a.png"])
def test_images_beside_the_parts_are_not_taken_for_a_class(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=f"{name} is neither below train"):
        read_image_folder(folder(tmp_path, {**FILES, name: png(1)}))


def test_grey_and_resizing(tmp_path: Path) -> None:
    files = {"a/1.png": png(1), "b/2.png": png(2, (7, 9))}
    with pytest.raises(DataError, match="9 x 7 pixels, and the first one has 2 x 3") as error:
        read_image_folder(folder(tmp_path, files))
    assert "`size`" in str(error.value)
    assert read_image_folder(tmp_path, mode="L", size=(4, 5)).train.x.shape == (2, 1, 4, 5)


@pytest.mark.parametrize("name", ["../evil/cat/a.png", "/etc/cat/a.png", "train/../../cat/a.png", "cat\\a.png"])
def test_archives_that_lead_outside_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="leads outside the archive"):
        read_image_folder(archive(tmp_path / "a.tar", {"cat/b.png": png(1), name: png(2)}, "w"))


def test_links_in_archives_are_passed_over(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.tar", {"cat/b.png": png(1), "dog/c.png": png(1)}, "w")
    with tarfile.open(path, "a") as tar:
        link = tarfile.TarInfo("cat/link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    assert len(read_image_folder(path).train) == 2


def test_damage_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"cat/a.png can't be read as an image"):
        read_image_folder(folder(tmp_path / "x", {"cat/a.png": png(1)[:40], "dog/b.png": png(1)}))
    with pytest.raises(DataNotFoundError, match="no image below a class folder"):
        read_image_folder(folder(tmp_path / "y", {"a.png": png(1)}))
    with pytest.raises(DataNotFoundError, match="no folder"):
        read_image_folder(tmp_path / "nowhere")
    (tmp_path / "b.tar.gz").write_bytes(b"no archive")
    with pytest.raises(DataError, match="can't be read as a tar archive"):
        read_image_folder(tmp_path / "b.tar.gz")
    cut = archive(tmp_path / "c.tar.gz", {f"cat/{i}.png": np.random.default_rng(i).bytes(3000) for i in range(9)})
    cut.write_bytes(cut.read_bytes()[:8000])
    with pytest.raises(DataError, match="can't be read as a tar archive"):
        read_image_folder(cut)
    monkeypatch.setattr(image_folder, "MAX_IMAGE_BYTES", 10)
    for source in (tmp_path / "x", archive(tmp_path / "d.tar", FILES, "w")):
        with pytest.raises(DataError, match="at most 10"):
            read_image_folder(source)


def test_a_decompression_bomb_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image, "MAX_IMAGE_PIXELS", 4)
    with pytest.raises(DataError, match="can't be read as an image"):
        read_image_folder(folder(tmp_path, {"a/1.png": png(1), "b/2.png": png(1)}))
