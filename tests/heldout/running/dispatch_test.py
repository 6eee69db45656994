"""Who is handed what when workers are lost; workers here do what a test says, in an order that is always the same."""

import pytest

from heldout.running import dispatch

READY = {"done": True}
LOST = None


class Worker:
    """Answers its start and each task with the next messages of its life; with "did" and "done" when that is over."""

    def __init__(self, number, answers, life):
        self._number, self._answers, self._life = number, answers, iter(life)
        self.has_ended = False
        self._say(next(self._life, [READY]))

    def _say(self, messages):
        for message in messages:
            self._answers.put((self._number, message))

    def send(self, task):
        self._say(next(self._life, [{"did": task["name"], "worker": self._number}, READY]))

    def how_it_ended(self):
        return dispatch.End(f"worker {self._number} was lost", lost=True)

    def end(self):
        self.has_ended = True


class Pool:
    """Starts workers with the given lives, and sound ones after them."""

    def __init__(self, *lives):
        self._lives = lives
        self.workers = []
        self.is_tidy = False

    @property
    def num_started(self):
        return len(self.workers)

    def start(self, number, answers):
        self.workers.append(Worker(number, answers, self._lives[number] if number < len(self._lives) else []))
        self.is_tidy = False
        return self.workers[-1]

    def all_started(self):
        self.is_tidy = True


def done(pool, names, num_workers=1, recover=None):
    """What was done by whom, in order."""
    again = recover or (lambda loss: dispatch.Recovery([loss.task], {"note": loss.end.cause}))
    messages = dispatch.run(pool, [{"name": name} for name in names], num_workers, again)
    return [(message["did"], message["worker"]) for message in messages if "did" in message]


def test_tasks_in_place_of_a_lost_one_come_next_and_in_their_order():
    def in_parts(loss):
        return dispatch.Recovery([{"name": loss.task["name"] + part} for part in "xyz"], {"note": "in parts"})

    found = done(Pool([[READY], [LOST]]), "ab", recover=in_parts)
    assert [name for name, _ in found] == ["ax", "ay", "az", "b"]


def test_they_come_before_one_that_has_been_taken_up_already():
    # The first worker leaves nothing to do again, so that "c" is taken up; then the second one is lost.
    again = {"a": [], "b": [{"name": "bx"}, {"name": "by"}]}
    pool = Pool([[READY], [LOST]], [[READY], [LOST]])
    found = done(
        pool, "abc", num_workers=2, recover=lambda loss: dispatch.Recovery(again[loss.task["name"]], {"note": ""})
    )
    assert [name for name, _ in found] == ["bx", "by", "c"]


def test_nobody_waits_for_workers_that_are_not_needed():
    never_ready = [[]]
    assert done(Pool([[READY]], never_ready), "ab", num_workers=2) == [("a", 0), ("b", 0)]


def test_one_worker_is_started_even_where_there_is_nothing_to_do():
    """Its facts may be wanted; a start that is lost is tried again."""
    pool = Pool([[LOST]])
    assert done(pool, "") == []
    assert pool.num_started == 2


def test_a_worker_that_was_lost_idle_is_handed_nothing():
    # The first has done its task and goes; then the second loses its own, which a third takes over.
    pool = Pool([[READY], [{"did": "a", "worker": 0}, READY, LOST]], [[READY], [LOST]])
    assert done(pool, "ab", num_workers=2) == [("a", 0), ("b", 2)]
    assert pool.num_started == 3


def test_only_starts_lost_in_a_row_are_counted():
    two_lost = [[LOST]], [[LOST]]
    pool = Pool(*two_lost, [[READY], [LOST]], *two_lost)
    assert done(pool, "a") == [("a", 5)]
    with pytest.raises(dispatch.WorkerError, match="worker 2 was lost"):
        done(Pool(*two_lost, [[LOST]]), "a")


def test_what_a_lost_worker_said_last_is_not_heard():
    pool = Pool([[READY], [LOST, {"did": "a", "worker": 0}, READY]])
    assert done(pool, "ab") == [("a", 1), ("b", 1)]


def test_a_caller_that_stops_listening_leaves_nothing():
    pool = Pool([[READY]], [[]])  # the second is starting still
    messages = dispatch.run(pool, [{"name": "a"}], 2)
    assert next(messages) == READY
    assert not pool.is_tidy
    messages.close()
    assert pool.is_tidy
    assert [worker.has_ended for worker in pool.workers] == [True, True]
