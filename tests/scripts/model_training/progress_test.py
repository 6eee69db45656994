"""Lines of progress."""

import io

from scripts.model_training import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def network(**members):
    defaults = {"epoch": 3, "seed": 0, "done": False, "train_loss": 0.25, "train_error": 0.1}
    defaults |= {"train_clean_error": 0.1, "val_error": None, "test_error": 0.2}
    return defaults | members


def test_an_epoch_in_a_line():
    told = {"epoch": 3, "num_epochs": 9, "networks": [network()]}
    assert progress.epoch_text(told) == "epoch 3 of 9, train loss 0.25 error 0.1000, test error 0.2000"


def test_the_last_evaluation_may_be_an_earlier_one():
    told = {"epoch": 4, "num_epochs": 9, "networks": [network(val_error=0.5)]}
    assert progress.epoch_text(told).endswith("validation error 0.5000, test error 0.2000 (epoch 3)")


def test_of_several_networks_the_first_that_is_not_done_is_shown():
    networks = [network(done=True), network(seed=1, train_clean_error=0.05), network(seed=2)]
    text = progress.epoch_text({"epoch": 3, "num_epochs": 9, "networks": networks})
    assert text.startswith("epoch 3 of 9, 2 networks, seed 1, train loss 0.25 error 0.1000 (0.0500 on clean labels)")
    networks = [network(done=True, seed=0), network(done=True, seed=1)]
    text = progress.epoch_text({"epoch": 3, "num_epochs": 9, "networks": networks})
    assert text.startswith("epoch 3 of 9, 0 networks, seed 1")


def test_a_result_in_a_line():
    result = network(outcome="stopped_early", reason="why")
    assert progress.result_text(result).startswith("stopped early: why, train loss 0.25")
    nothing = dict.fromkeys(("train_error", "train_loss", "val_error", "test_error"))
    assert progress.result_text(network(outcome="diverged", reason="why", **nothing)) == "diverged: why"


def test_on_a_terminal_the_line_stays_in_its_place(monkeypatch):
    stream, now = Terminal(), [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    line = progress.Line(stream)
    line.show("one")
    line.show("too soon")
    now[0] = 1.0
    line.show("two")
    line.note("done")
    line.close()
    assert stream.getvalue() == "\r\033[Kone\r\033[Ktwo\r\033[Kdone\n"


def test_in_a_file_a_line_comes_now_and_then(monkeypatch):
    stream, now = io.StringIO(), [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    line = progress.Line(stream)
    for now[0] in range(60):
        line.show(f"second {now[0]}")
    line.close()
    assert stream.getvalue().splitlines() == ["second 1", "second 21", "second 41"]


def test_without_a_stream_nothing_is_said():
    line = progress.Line(None)
    line.show("one")
    line.note("two")
    line.close()
