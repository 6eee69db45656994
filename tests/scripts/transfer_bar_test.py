"""Progress of long work: on a terminal at once, with rate and time left; in a log file a line now and then."""

import io
import os
import pty
import sys
import time

import pytest

from scripts import transfer_bar


class Stream(io.StringIO):
    def __init__(self, live):
        super().__init__()
        self._live = live

    def isatty(self):
        return self._live


def test_rate_and_time_left_are_shown_on_a_terminal(monkeypatch):
    stream = Stream(live=True)
    monkeypatch.setattr(sys, "stderr", stream)
    with transfer_bar.shown("e", "run") as progress:
        for done in range(120):
            progress(done, 240)
            time.sleep(0.01)
    assert "e:   0%" in stream.getvalue()
    assert "/240 [00:01<00:" in stream.getvalue()
    assert "run/s]" in stream.getvalue()


def test_bytes_are_shown_in_units_of_their_size(monkeypatch):
    with transfer_bar.shown("e.tar.gz") as progress:
        stream = Stream(True)
        monkeypatch.setattr(sys, "stderr", stream)
        progress(10**9, 239 * 10**9)
    assert "1.00G/239G [" in stream.getvalue()


@pytest.mark.parametrize("num_stages", [1, 2])
def test_a_log_file_is_spared(monkeypatch, num_stages):
    stream = Stream(live=False)
    monkeypatch.setattr(sys, "stderr", stream)
    with transfer_bar.stages(lambda stage: f"e, {stage}", lambda stage: "file") as report:
        for stage in range(num_stages):
            for done in range(160):
                report(str(stage), done, 320)
                time.sleep(0.01)
    # tqdm's own habit is ten times a second.
    assert stream.getvalue().count("file/s]") <= 2 * num_stages


def test_every_stage_has_a_bar_of_its_name_and_unit(monkeypatch):
    stream = Stream(live=True)
    monkeypatch.setattr(sys, "stderr", stream)
    units = {"records": "run", "packing": "B"}
    with transfer_bar.stages(lambda stage: f"e, {stage}", units.__getitem__) as report:
        report("records", 1, 3)
        report("packing", 1000, 3000)
    assert "e, records:  33%" in stream.getvalue()
    assert "| 1/3 [" in stream.getvalue()
    assert "e, packing:  33%" in stream.getvalue()
    assert "| 1.00k/3.00k [" in stream.getvalue()


def test_a_terminal_that_hides_its_size_shows_a_bar_too(monkeypatch):
    master, slave = pty.openpty()
    os.set_blocking(master, False)
    with open(slave, "w") as terminal:
        assert os.get_terminal_size(slave).columns == 0
        monkeypatch.setattr(sys, "stderr", terminal)
        with transfer_bar.shown("e.tar.gz") as progress:
            progress(1000, 4000)
        shown = os.read(master, 10_000).decode()
    os.close(master)
    assert "e.tar.gz:  25%|" in shown
    assert "| 1.00k/4.00k [" in shown
