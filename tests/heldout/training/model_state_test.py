"""What an interrupted training goes on from."""

import numpy as np
import pytest

from heldout.training import model_files, model_state
from zoo import errors, npz

_VALUES = {"model/b/w": np.arange(6, dtype=np.float32).reshape(2, 3), "model/a": np.array([np.nan, 1.5])}
_RULE = [np.asarray(np.int64(3)), np.ones((2, 3), np.float32)]


def state():
    return model_state.State(4, _VALUES, _RULE, np.full((2, len(model_files.HISTORY_COLUMNS)), np.nan))


def test_it_comes_back_to_the_last_bit_and_is_forgotten(tmp_path):
    assert model_state.read(tmp_path) is None
    model_state.write(tmp_path, state())
    found = model_state.read(tmp_path)
    assert found.epoch == 4
    assert {key: value.tobytes() for key, value in found.values.items()} == {
        key: value.tobytes() for key, value in _VALUES.items()
    }
    for one, other in zip(found.rule, _RULE, strict=True):
        assert (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())
    assert found.history.shape == (2, len(model_files.HISTORY_COLUMNS))
    model_state.check(tmp_path, found, _VALUES)
    model_state.delete(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_that_of_another_network_is_refused(tmp_path):
    other = {"model/a": np.zeros(3)}
    with pytest.raises(errors.DamagedFileError, match=r"state.npz: is of another network"):
        model_state.check(tmp_path, state(), other)


def test_a_damaged_one_is_refused(tmp_path):
    model_state.write(tmp_path, state())
    path = tmp_path / "resume" / "state.npz"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(errors.DamagedFileError, match=r"state\.npz"):
        model_state.read(tmp_path)


def test_another_version_is_refused(tmp_path):
    model_state.write(tmp_path, state())
    path = tmp_path / "resume" / "state.npz"
    stored = npz.read(path, ["epoch", "keys", "num_rule", "history"])
    npz.write(path, stored | {"schema_version": np.asarray(9)})
    with pytest.raises(errors.DamagedFileError, match="schema version 9, this program reads 1; delete it"):
        model_state.read(tmp_path)
