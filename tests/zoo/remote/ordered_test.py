"""Chunks made by several threads come in order, few at a time, and end with their reader."""

import threading
import time

import pytest

from zoo.remote import ordered, tries


@pytest.mark.parametrize("num_threads", [1, 3, 20])
@pytest.mark.parametrize("num_chunks", [0, 1, 7])
def test_order(num_threads, num_chunks):
    def make(index):
        time.sleep(0.01 * (index % 3))
        return bytes([index])

    assert b"".join(ordered.chunks(make, num_chunks, num_threads, threading.Event())) == bytes(range(num_chunks))


def test_errors_come_in_their_turn():
    def make(index):
        if index >= 2:
            raise ValueError(index)
        time.sleep(0.05)
        return b"x"

    stopped = threading.Event()
    found = []
    with pytest.raises(ValueError, match=r"^2$"):
        found.extend(ordered.chunks(make, 10, 4, stopped))
    assert stopped.is_set()


def test_few_chunks_wait():
    made = []

    def make(index):
        made.append(index)
        return b"x"

    stream = ordered.chunks(make, 100, 3, threading.Event())
    for taken in range(1, 20):
        next(stream)
        time.sleep(0.01)
        assert len(made) <= taken + 4
    stream.close()


def test_closing_ends_the_threads():
    stopped = threading.Event()

    def make(index):
        if index and stopped.wait(10):
            raise tries.StoppedError
        return b"x"

    before = set(threading.enumerate())
    stream = ordered.chunks(make, 100, 3, stopped)
    next(stream)
    working = set(threading.enumerate()) - before
    assert working
    stream.close()
    for thread in working:
        thread.join(2)
        assert not thread.is_alive()
