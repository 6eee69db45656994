"""What is handed out again after a loss, and when it is enough."""

import pytest

from heldout.running import dispatch, group_recovery

MEMORY = dispatch.End("a worker process was ended by SIGKILL", lost=True, memory=True)
GONE = dispatch.End("machine m went away", "words", lost=True)


def loss(run_ids, end=MEMORY, answers=()):
    return dispatch.Loss({"subset_ratio": 0.7, "run_ids": list(run_ids), "other": 1}, list(answers), end)


def result(run_id):
    return {"result": {"run": [0.7, run_id]}}


def test_a_lack_of_memory_halves_what_is_left():
    answers = [{"run_epochs": 2}, result(0), {"appeared": 1}, {"run_epochs": 2}, {"run_epochs": 2}]
    recovery = group_recovery.GroupRecovery()(loss(range(5), answers=answers))
    assert recovery.tasks == [
        {"subset_ratio": 0.7, "run_ids": [2, 3], "other": 1},
        {"subset_ratio": 0.7, "run_ids": [4], "other": 1},
    ]
    assert recovery.message == {
        "note": "a worker process was ended by SIGKILL; 3 runs at ratio 0.7 will be done again in groups of 2",
        "run_epochs": -4,
    }


def test_a_lost_machine_leaves_the_group_whole():
    recovery = group_recovery.GroupRecovery()(loss(range(5), GONE, [result(3)]))
    assert [task["run_ids"] for task in recovery.tasks] == [[0, 1, 2, 4]]
    assert recovery.message["note"] == "machine m went away; 4 runs at ratio 0.7 will be done again"


def test_a_worker_lost_after_its_last_result_leaves_nothing_to_do():
    recovery = group_recovery.GroupRecovery()(loss([0], answers=[result(0)]))
    assert recovery.tasks == []
    assert "all done" in recovery.message["note"]


def test_a_single_run_may_be_lost_once():
    recover = group_recovery.GroupRecovery()
    assert [task["run_ids"] for task in recover(loss([3])).tasks] == [[3]]
    recover(loss([4]))
    with pytest.raises(dispatch.WorkerError, match=r"^the run 0\.7/3 lost its worker 2 times: a worker process was"):
        recover(loss([3]))


def test_a_group_may_lose_its_machine_three_times():
    recover = group_recovery.GroupRecovery()
    for _ in range(3):
        recover(loss([3, 4], GONE))
        assert [task["run_ids"] for task in recover(loss([5], GONE)).tasks] == [[5]]
    with pytest.raises(dispatch.WorkerError, match=r"^the run 0\.7/5 lost its worker 4 times: machine m went away"):
        recover(loss([5], GONE))
    with pytest.raises(dispatch.WorkerError, match=r"(?s)^the group of runs 0\.7/3, 0\.7/4 lost .* 4 times.*words"):
        recover(loss([3, 4], GONE))


def test_sizes_that_were_too_large_twice_are_not_formed_again():
    recover = group_recovery.GroupRecovery()
    recover(loss(range(8)))
    recover(loss(range(8), GONE))
    recover(loss(range(10, 18), GONE))
    assert [recover.limit(size) for size in (8, 4, 1)] == [8, 4, 1]
    recover(loss(range(10, 18)))
    assert [recover.limit(size) for size in (8, 5, 4, 1)] == [4, 5, 4, 1]
    for first in (20, 30):
        recover(loss(range(first, first + 4)))
    assert recover.limit(8) == 2


def test_tasks_are_cut_when_they_are_handed_out():
    recover = group_recovery.GroupRecovery()
    tasks = recover.limited([{"subset_ratio": 0.7, "run_ids": list(range(first, first + 4))} for first in (0, 4, 8)])
    assert next(tasks)["run_ids"] == [0, 1, 2, 3]
    recover(loss(range(4)))
    recover(loss(range(20, 24)))
    assert [task["run_ids"] for task in tasks] == [[4, 5], [6, 7], [8, 9], [10, 11]]
