"""The key that correlated noise follows from: secret, durable, and told when it is gone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from hanse.core.errors import PrivacyError, StorageError
from hanse.privacy.participation import Participation
from hanse.privacy.tree import TreeAggregation
from hanse.rounds.privacy.noise_key import KeyFile, SimulatedKey
from hanse.rounds.privacy.run_noise import RunNoise


def test_each_round_has_noise_of_its_own_that_is_the_same_again(tmp_path: Path) -> None:
    key = KeyFile(tmp_path / "keys" / "run.json")
    key.prepare(1, begun=False)
    again = KeyFile(tmp_path / "keys" / "run.json")
    again.prepare(1, begun=True)
    np.testing.assert_array_equal(key.source(1).normals(5), again.source(1).normals(5))
    assert not np.array_equal(key.source(1).normals(5), key.source(2).normals(5))
    other = KeyFile(tmp_path / "keys" / "other.json")
    other.prepare(1, begun=False)
    assert not np.array_equal(key.source(1).normals(5), other.source(1).normals(5))
    assert key.source(1).is_secret
    assert not SimulatedKey(3).source(1).is_secret


def test_only_its_owner_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "run.json"
    KeyFile(path).prepare(1, begun=False)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    path.chmod(0o640)
    with pytest.raises(StorageError, match="others may read it"):
        KeyFile(path).prepare(2, begun=True)


def test_no_text_about_it_holds_the_key(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    key = KeyFile(path)
    key.prepare(1, begun=False)
    secret = json.loads(path.read_text())["key"]
    assert secret not in f"{key!r} {key}"
    for damaged in ('{"key": "' + secret, f'{{"version": 1, "newest": "{secret}", "key": "{secret}"}}', "[]"):
        path.write_text(damaged)
        with pytest.raises(StorageError, match="is damaged") as caught:
            KeyFile(path).prepare(1, begun=True)
        assert caught.value.__cause__ is None
        assert secret[:8] not in str(caught.value)


def test_bad_use(tmp_path: Path) -> None:
    with pytest.raises(PrivacyError, match="before its key was prepared"):
        KeyFile(tmp_path / "run.json").source(1)
    with pytest.raises(PrivacyError, match="is not in"):
        KeyFile(tmp_path / "run.json").prepare(3, begun=True)
    path = tmp_path / "newer.json"
    path.write_text('{"version": 9}')
    path.chmod(0o600)
    with pytest.raises(StorageError, match="another version"):
        KeyFile(path).prepare(1, begun=False)


def test_a_run_that_goes_on_finds_the_same_noise() -> None:
    tree = TreeAggregation(participation=Participation(rounds=9), restart_every=4)
    straight = RunNoise(tree, SimulatedKey(5))
    rounds = [straight.of_rounds(number, number, 3) for number in range(1, 10)]
    np.testing.assert_array_equal(RunNoise(tree, SimulatedKey(5)).of_rounds(6, 6, 3), rounds[5])
    np.testing.assert_array_equal(straight.of_rounds(2, 2, 3), rounds[1])  # back, too
    np.testing.assert_array_equal(straight.of_rounds(2, 2, 3), rounds[1])
    np.testing.assert_allclose(straight.of_rounds(2, 4, 3), rounds[1] + rounds[2] + rounds[3])
    with pytest.raises(PrivacyError, match="all of them have had it"):
        straight.of_rounds(10, 10, 3)
    with pytest.raises(PrivacyError, match="has been released already"):
        straight.of_rounds(4, 3, 3)
