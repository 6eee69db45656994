"""Long work on the terminal: progress bars while it goes, and a few lines when it is done."""

import numpy as np
import tqdm

from heldout import run_results, score_config, score_files, zoo_training


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
            print(f"training {num_pending} runs{kept}", flush=True)
            self._bar = tqdm.tqdm(total=num_pending * num_epochs, unit="epoch", dynamic_ncols=True, mininterval=0.5)

    def run_epochs(self, count: int) -> None:
        """Advances the bar."""
        if self._bar is not None:
            self._bar.update(count)

    def result(self, result: run_results.RunResult) -> None:
        """Shows how many runs are done."""
        self._finished.append(result)
        if self._bar is not None:
            heldout = np.nanmean([r.accuracy_heldout for r in self._finished[-50:]])
            self._bar.set_postfix_str(
                f"runs {len(self._finished)}/{self._num_pending}, held out {heldout:.3f}", refresh=False
            )

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
    print(_closing_line(summary))
    for result in summary.failed:
        print(f"failed: {result.run.directory}: {result.failure}")
    for problem in summary.problems:
        print(f"{problem.state}: {problem.run.directory}: {problem.reason}")
    return summary


def _closing_line(summary: zoo_training.TrainRunsSummary) -> str:
    counts = f"{len(summary.trained)} runs trained, {summary.num_skipped} skipped"
    if not summary.trained:
        return f"{counts}: nothing to do" if not summary.failed else counts
    means = [
        float(np.mean([getattr(result, name) for result in summary.trained]))
        for name in ("accuracy_in", "accuracy_heldout", "accuracy_test")
    ]
    return "{}: accuracy {:.3f} on the subset, {:.3f} held out, {:.3f} on the test set".format(counts, *means)


def compute_scores(config: score_config.ScoreConfig) -> score_files.ScoreSummary:
    """Computes what is missing, with a progress bar for each stage, and says what came out."""
    bars: dict[str, tqdm.tqdm] = {}

    def progress(stage: str, done: int, total: int) -> None:
        if stage not in bars:
            for bar in bars.values():
                bar.close()
            bars[stage] = tqdm.tqdm(desc=stage, total=total, delay=1, leave=False)
        bars[stage].update(done - bars[stage].n)

    try:
        summary = score_files.compute_scores(config, progress)
    finally:
        for bar in bars.values():
            bar.close()
    for problem in summary.problems:
        print(f"left out, {problem.state}: {problem.reason}")
    state = "up to date, nothing to do" if summary.up_to_date else "written"
    print(f"scores of {summary.num_runs} runs {state}: {summary.directory}")
    return summary
