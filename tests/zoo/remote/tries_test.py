"""Waits between tries: how long they are, when the tries end, and what ends a wait."""

import threading
import time

import pytest

from zoo import errors
from zoo.remote import tries


class Clock:
    """Stands in for the event that ends waits, and takes down how long they would have been."""

    def __init__(self, answer=False):
        self.waits = []
        self.answer = answer

    def wait(self, seconds):
        self.waits.append(seconds)
        return self.answer


def test_waits_double_up_to_half_a_minute():
    clock = Clock()
    attempts = tries.Tries("gs://x/y", tries.Options(num_tries=20), clock)
    for _ in range(19):
        attempts.failed(tries.TransientError("of this"))
    for index, wait in enumerate(clock.waits):
        longest = min(2.0**index, 32.0)
        assert longest / 2 <= wait <= longest
    assert len(set(clock.waits)) == 19
    with pytest.raises(
        errors.NetworkError, match=r"^gs://x/y: failed 20 times in a row, the last time because of this; check"
    ):
        attempts.failed(tries.TransientError("of this"))


def test_progress_begins_the_count_anew():
    clock = Clock()
    attempts = tries.Tries("gs://x/y", tries.Options(num_tries=3), clock)
    for _ in range(10):
        attempts.failed(tries.TransientError("of this"))
        attempts.failed(tries.TransientError("of this"))
        attempts.failed(tries.TransientError("of this"), progressed=True)
    assert max(clock.waits) <= 2
    assert min(clock.waits) > 0


def test_one_try():
    with pytest.raises(errors.NetworkError, match="failed once, because of this"):
        tries.Tries("gs://x/y", tries.Options(num_tries=1), Clock()).failed(tries.TransientError("of this"))


def test_the_server_may_ask_for_a_longer_wait():
    clock = Clock()
    tries.Tries("gs://x/y", tries.Options(), clock).failed(tries.TransientError("", retry_after_s=45.0))
    assert clock.waits == [45.0]


def test_a_wait_ends_when_the_reader_goes():
    stopped = threading.Event()
    threading.Timer(0.1, stopped.set).start()
    start = time.monotonic()
    with pytest.raises(tries.StoppedError):
        tries.Tries("gs://x/y", tries.Options(backoff_s=30), stopped).failed(tries.TransientError("of this"))
    assert time.monotonic() - start < 5


@pytest.mark.parametrize(("text", "seconds"), [("3", 3), ("-3", 0), ("1e9", 600), ("", 0), (None, 0), ("soon", 0)])
def test_retry_after(text, seconds):
    assert tries.status_error("http://x/y", 503, "", text).retry_after_s == seconds


def test_retry_after_as_a_date():
    date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 100))
    assert 90 < tries.status_error("http://x/y", 503, "", date).retry_after_s <= 100
    assert tries.status_error("http://x/y", 503, "", "Wed, 01 Jan 2020 00:00:00 GMT").retry_after_s == 0
