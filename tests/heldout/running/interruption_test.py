"""Signals that really come: to this process, which a handler of its own turns into exceptions."""

import os
import signal
import threading
import time

import pytest

from heldout.running import interruption


class Ended(KeyboardInterrupt):
    """What the handler of a program raises."""


@pytest.fixture(autouse=True)
def handler():
    def end(number, frame):
        del number, frame
        raise Ended

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    yield end
    for number, old in before.items():
        signal.signal(number, old)


def send(number=signal.SIGTERM):
    os.kill(os.getpid(), number)
    time.sleep(0)  # handlers run between two instructions of the main thread


def sleep_for(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.02)


def interrupted(grace_s, *numbers):
    """Seconds until the end of a block that hears signals and waits."""

    def work():
        with interruption.Interruption(grace_s):
            for number in numbers:
                send(number)
            sleep_for(10)

    begin = time.monotonic()
    with pytest.raises(Ended):
        work()
    return time.monotonic() - begin


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_without_grace_the_programs_handler_ends_at_once(number):
    assert interrupted(0, number) < 5


def test_outside_the_block_everything_is_as_before(handler):
    alarm = signal.getsignal(signal.SIGALRM)
    with interruption.Interruption(5):
        assert signal.getsignal(signal.SIGTERM) is not handler
    assert signal.getsignal(signal.SIGTERM) is handler
    assert signal.getsignal(signal.SIGALRM) is alarm
    interrupted(0, signal.SIGTERM)
    assert signal.getsignal(signal.SIGINT) is handler
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_with_grace_no_further_task_is_handed_out_and_the_end_raises(capfd):
    done = []

    def work():
        with interruption.Interruption(60) as stop:
            for task in stop.until_requested(range(5)):
                if task == 2:
                    send()
                assert stop.requested == (task == 2)
                done.append(task)
            stop.end()

    with pytest.raises(Ended):
        work()
    assert done == [0, 1, 2]
    assert "SIGTERM: what is being trained has 60 s to be finished" in capfd.readouterr().err


def test_the_end_raises_nothing_where_no_signal_has_come():
    with interruption.Interruption(1) as stop:
        assert list(stop.until_requested("ab")) == ["a", "b"]
        stop.end()


@pytest.mark.parametrize("grace_s", [0.0, 0.3])  # what is held need not be done in the time that tasks have
def test_what_is_held_is_finished_before_the_first_signal_ends(capfd, grace_s):
    done = []

    def work():
        with interruption.Interruption(grace_s) as stop, stop.held("the table is being written"):
            send()
            sleep_for(1.5)
            done.append(True)

    with pytest.raises(Ended):
        work()
    assert done == [True]
    assert "SIGTERM: the table is being written; the same signal again ends at once" in capfd.readouterr().err


def test_a_second_signal_ends_what_is_held():
    def work():
        with interruption.Interruption() as stop, stop.held("the table is being written"):
            send()
            send()
            pytest.fail("was not ended")

    with pytest.raises(Ended):
        work()


def test_what_was_held_holds_no_longer():
    with interruption.Interruption() as stop:
        with stop.held("something"):
            pass
        with pytest.raises(Ended):
            send()


def test_grace_is_over_after_its_time():
    assert 0.4 < interrupted(0.5, signal.SIGTERM) < 5


def test_a_second_signal_ends_the_grace():
    assert interrupted(60, signal.SIGINT, signal.SIGINT) < 5


def test_an_end_that_has_been_raised_is_not_raised_again_when_the_grace_is_over():
    done = []
    with interruption.Interruption(0.3) as stop:
        send()
        with pytest.raises(Ended):
            stop.end()
        sleep_for(0.8)
        done.append(True)
    assert done == [True]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("grace_s", [0.0, 0.1])
def test_an_exception_that_a_destructor_has_dropped_is_raised_again(grace_s):
    class Dropped:
        def __del__(self):
            send()
            sleep_for(0.1 + 3 * grace_s)

    dropped = []

    def work():
        with interruption.Interruption(grace_s):
            Dropped()
            dropped.append(True)
            sleep_for(10)

    begin = time.monotonic()
    with pytest.raises(Ended):
        work()
    assert dropped
    assert time.monotonic() - begin < 5


def test_cleaning_up_is_not_interrupted_by_what_it_cleans_up_after():
    cleaned = []

    def work():
        with interruption.Interruption():
            try:
                send()
                sleep_for(5)
            finally:
                try:
                    raise ValueError
                except ValueError:
                    sleep_for(2.2)
                cleaned.append(True)

    with pytest.raises(Ended):
        work()
    assert cleaned == [True]


def test_ignored_signals_stay_ignored():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with interruption.Interruption(5) as stop:
        send(signal.SIGINT)
        assert not stop.requested
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN


def test_other_threads_change_nothing(handler):
    seen = []

    def enter():
        with interruption.Interruption(5) as stop:
            seen.append(signal.getsignal(signal.SIGTERM))
            stop.end()

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [handler]
