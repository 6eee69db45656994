"""Long work on the terminal: progress bars while it goes, and a few lines when it is done."""

import os
import sys

import numpy as np
import tqdm

from heldout import run_results, score_config, score_files, zoo_training
from zoo import layout


class _ProgressBar(zoo_training.Progress):
    """A bar over epochs of runs, with the latest accuracies."""

    def __init__(self) -> None:
        self._bar: tqdm.tqdm | None = None
        self._finished: list[run_results.RunResult] = []
        self._num_pending = 0

    def starting(self, num_pending: int, num_skipped: int, num_epochs: int) -> None:
        """Opens the bar."""
        self._num_pending = num_pending
        if num_pending:
            kept = f" ({num_skipped} complete)" if num_skipped else ""
            print(f"training {_runs(num_pending)}{kept}", flush=True)
            self._bar = tqdm.tqdm(
                total=num_pending * num_epochs, unit="epoch", dynamic_ncols=True, mininterval=_seconds_between_updates()
            )

    def run_epochs(self, count: int) -> None:
        """Advances the bar."""
        if self._bar is not None:
            self._bar.update(count)

    def result(self, result: run_results.RunResult) -> None:
        """Shows how many runs are done."""
        self._finished.append(result)
        if self._bar is not None:
            text = f"runs {len(self._finished)}/{self._num_pending}"
            if result.failure is None:
                text += f", held out {result.accuracy_heldout:.3f} at {layout.ratio_name(result.run.subset_ratio)}"
            self._bar.set_postfix_str(text, refresh=False)

    def close(self) -> None:
        """Ends the bar."""
        if self._bar is not None:
            self._bar.close()


def train_runs(config: zoo_training.TrainRunsConfig) -> zoo_training.TrainRunsSummary:
    """Trains what is missing, with a progress bar and a closing line on the terminal."""
    progress = _ProgressBar()
    try:
        summary = zoo_training.train_runs(config, progress)
    finally:
        progress.close()
    print("\n".join(_closing_lines(summary)))
    for result in summary.failed:
        print(f"failed: {result.run.directory}: {result.failure}")
    for problem in summary.problems:
        print(f"{problem.state}: {problem.run.directory}: {problem.reason}")
    return summary


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
    text = "accuracy {:.3f} on the subset, {:.3f} held out, {:.3f} on the test set".format(*means)
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
