"""Long work on the terminal: progress bars while it goes, and a few lines when it is done."""

import os
import shutil
import sys
import time
from typing import TextIO

import numpy as np
import tqdm

from heldout.scoring import score_config, score_files
from heldout.training import run_results, store_training, train_runs_config, zoo_training
from heldout.watching import training_events, training_log
from scripts import training_texts
from zoo import errors, layout, stores

_ERASE_LINE = "\r\033[K"
# Between two looks at a training: on a terminal, and in a log file.
_LIVE_SECONDS = 0.5
_LOG_SECONDS = 60.0


class TrainingLine(zoo_training.Progress):
    """A line that tells how far a training is: it stays in its place on a terminal, and comes once a minute elsewhere.

    Args:
        stream: where to write.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._live = stream.isatty()
        self._tally: training_texts.Tally | None = None
        self._shown = 0.0

    def starting(self, num_pending: int, num_skipped: int, num_epochs: int) -> None:
        """Says how much there is to do."""
        if num_pending:
            kept = f" ({num_skipped} complete)" if num_skipped else ""
            print(f"training {_runs(num_pending)}{kept}", flush=True)
            self._tally = training_texts.Tally(num_pending, num_epochs)
            self._shown = time.monotonic()

    def run_epochs(self, count: int) -> None:
        """Counts them."""
        if self._tally is not None:
            self._tally.run_epochs(count)
            self._show_now_and_then()

    def appeared(self) -> None:
        """Counts the run."""
        if self._tally is not None:
            self._tally.appeared()

    def result(self, result: run_results.RunResult) -> None:
        """Counts the run."""
        if self._tally is not None:
            self._tally.result(result)
            self._show_now_and_then()

    def note(self, text: str) -> None:
        """Prints a line above."""
        print(f"{_ERASE_LINE}{text}" if self._live else text, file=self._stream, flush=True)

    def close(self) -> None:
        """Shows how it ended, and ends the line."""
        if self._tally is not None:
            self._show()
            if self._live:
                print(file=self._stream, flush=True)

    def _show_now_and_then(self) -> None:
        if time.monotonic() - self._shown >= (_LIVE_SECONDS if self._live else _LOG_SECONDS):
            self._show()

    def _show(self) -> None:
        assert self._tally is not None
        self._shown = time.monotonic()
        text = self._tally.text()
        if self._live:
            width = shutil.get_terminal_size().columns - 1
            print(f"{_ERASE_LINE}{text[:width]}", end="", file=self._stream, flush=True)
        else:
            print(text, file=self._stream, flush=True)


def train_runs(
    config: train_runs_config.TrainRunsConfig, *, tensorboard: bool = False
) -> zoo_training.TrainRunsSummary:
    """Trains what is missing, with a line of progress and a closing one on the terminal, and a file for zoo_status.

    Args:
        config: what to train.
        tensorboard: whether to write event files for TensorBoard, too.

    Raises:
        InvalidValueError: event files are asked for, and the zoo is in a store, whose objects cannot grow.
        As `zoo_training.train_runs`.
    """
    if tensorboard and stores.is_store(config.zoo):
        raise errors.InvalidValueError(
            f"--tensorboard: event files grow, objects of {config.zoo} cannot; leave it out, or give a folder as --zoo"
        )
    line = TrainingLine(sys.stderr)
    try:
        if stores.is_store(config.zoo):
            summary = store_training.train_runs(config, line)
        else:
            summary = _train_in_folder(config, line, tensorboard)
    finally:
        line.close()
    print("\n".join(_closing_lines(summary)))
    for result in summary.failed:
        print(f"failed: {result.run.directory}: {result.failure}")
    for problem in summary.problems:
        print(f"{problem.state}: {problem.run.directory}: {problem.reason}")
    return summary


def _train_in_folder(
    config: train_runs_config.TrainRunsConfig, line: "TrainingLine", tensorboard: bool
) -> zoo_training.TrainRunsSummary:
    with training_log.TrainingLog(config) as log, training_events.TrainingEvents(config) as events:
        listeners = [log, line, *([events] if tensorboard else [])]
        return zoo_training.train_runs(config, training_log.Several(listeners))


def _closing_lines(summary: zoo_training.TrainRunsSummary) -> list[str]:
    counts = f"{_runs(len(summary.trained))} trained, {summary.num_skipped} skipped"
    if not summary.trained:
        return [f"{counts}: nothing to do" if not summary.failed else counts]
    return [
        counts,
        *(_accuracy_line(ratio, summary) for ratio in sorted({r.run.subset_ratio for r in summary.trained})),
    ]


def _accuracy_line(ratio: float, summary: zoo_training.TrainRunsSummary) -> str:
    """Mean accuracies of one ratio: those of several are never pooled."""
    trained = [result for result in summary.trained if result.run.subset_ratio == ratio]
    names = ("accuracy_in", "accuracy_heldout", "accuracy_test")
    means = [float(np.mean([getattr(result, name) for result in trained])) for name in names]
    # A run on all examples holds none out.
    held_out = "none held out" if np.isnan(means[1]) else f"{means[1]:.3f} held out"
    text = f"accuracy {means[0]:.3f} on the subset, {held_out}, {means[2]:.3f} on the test set"
    return f"  ratio {layout.ratio_name(ratio)}, {_runs(len(trained))}: {text}"


def _runs(count: int) -> str:
    return "1 run" if count == 1 else f"{count} runs"


def quiet_tensorflow(dataset: str | None) -> None:
    """Imports TensorFlow without its start-up messages, if a data set is going to need it in this process.

    They come from native code before any logging can be set up, so the error stream itself is put aside meanwhile.
    The process only reads data: it leaves the accelerators to the workers.
    """
    if dataset is None or dataset == "digits" or dataset.startswith("npz:"):
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
        try:
            import tensorflow as tf  # heavy, and not needed for the bundled data

            tf.config.set_visible_devices([], "GPU")
            tf.constant(0)  # makes it look for devices now
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def _seconds_between_updates() -> float:
    """A live bar on a terminal; now and then a line in a log file."""
    return 0.5 if sys.stderr.isatty() else 30


def compute_scores(config: score_config.ScoreConfig) -> score_files.ScoreSummary:
    """Computes what is missing, with a progress bar for each stage, and says what came out."""
    bars: dict[str, tqdm.tqdm] = {}

    def progress(stage: str, done: int, total: int) -> None:
        if stage not in bars:
            for bar in bars.values():
                bar.close()
            bars[stage] = tqdm.tqdm(
                desc=stage, total=total, delay=1, leave=False, mininterval=_seconds_between_updates()
            )
        bars[stage].update(done - bars[stage].n)

    try:
        summary = score_files.compute_scores(config, progress)
    finally:
        for bar in bars.values():
            bar.close()
    for note in summary.notes:
        print(note)
    for problem in summary.problems:
        print(f"left out, {problem.state}: {problem.reason}")
    state = "up to date, nothing to do" if summary.up_to_date else "written"
    print(f"scores of {_runs(summary.num_runs)} {state}: {summary.directory}")
    return summary
