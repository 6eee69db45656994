"""A lost task is handed out again, and not for ever."""

import pytest

from heldout.running import dispatch, retries


def loss(tile):
    return dispatch.Loss({"tile": tile}, [], dispatch.End("worker 1 was killed", "", True))


def test_a_task_that_loses_its_workers_ends_the_computation():
    again = retries.Retries("tile", "the tile of row")
    for _ in range(2):
        recovery = again(loss(16384))
        assert recovery.tasks == [{"tile": 16384}]
        assert recovery.message["note"] == "worker 1 was killed; the tile of row 16384 will be done again"
    assert again(loss(0)).tasks == [{"tile": 0}]
    with pytest.raises(dispatch.WorkerError, match="tile of row 16384 lost its worker 3 times"):
        again(loss(16384))
