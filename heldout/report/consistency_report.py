"""How consistency scores of a zoo came out: accuracy per ratio, reliability as runs grow, and the scores to compare.

Files in the output folder:

    consistency.json             accuracy per ratio, reliability per number of runs, what was trained and on what
    consistency.md               the same as two tables, with the pictures
    reliability.png, accuracy.png
    cscores.npz                  `scores` and `labels`, the published format (Jiang et al. 2021), in stored order
    cscores.npy                  the scores alone: the published format of MNIST
"""

import dataclasses
import json
import pathlib
from typing import Any

import numpy as np
from scipy import stats

from heldout.report import figures
from heldout.scoring import published_formats, reliability, scores
from zoo import errors, files, run_table

WANTED_RELIABILITY = 0.9
_SCHEMA_VERSION = 1


@dataclasses.dataclass(frozen=True)
class Findings:
    """What `examine` finds.

    Attributes:
        num_runs: of each ratio.
        subset_ratios: ascending, [K].
        accuracy: float64 [K], mean over runs of the accuracy on what each held out.
        accuracy_error: float64 [K], standard error of that mean.
        consistency: scores from all runs.
        reliability: of scores from halves of them.
        runs_needed: of each ratio, at which the linear correlation of two such scores is `WANTED_RELIABILITY`.
        runs_needed_measured: whether so many were measured; otherwise it is what Spearman and Brown predict.
        runs_needed_for_ranks: the same for the rank correlation, which their formula does not describe; None where it
            was not reached.
        share_of_ones: of the examples that no run got wrong when it held them out, whose ranks say nothing.
    """

    num_runs: np.ndarray
    subset_ratios: np.ndarray
    accuracy: np.ndarray
    accuracy_error: np.ndarray
    consistency: scores.Consistency
    reliability: reliability.Reliability
    runs_needed: float
    runs_needed_measured: bool
    runs_needed_for_ranks: int | None
    share_of_ones: float


def examine(table: run_table.RunTable, seed: int = 0) -> Findings:
    """Scores, accuracies and reliability of all runs in a table.

    Args:
        table: at least two runs of each ratio.
        seed: of the halves.

    Raises:
        InvalidValueError: a ratio has a single run.
    """
    ratios = np.array(table.subset_ratios)
    by_ratio = [_heldout_accuracy(table.select(ratio)) for ratio in ratios]
    found = reliability.split_half(table, lambda half: scores.consistency(half).score, seed=seed)
    mean = found.pearson.mean(axis=1)
    reached = np.flatnonzero(mean >= WANTED_RELIABILITY)
    base = reached[0] if reached.size else len(mean) - 1
    reached_by_ranks = np.flatnonzero(found.spearman.mean(axis=1) >= WANTED_RELIABILITY)
    consistency = scores.consistency(table)
    return Findings(
        num_runs=np.array([len(accuracy) for accuracy in by_ratio]),
        subset_ratios=ratios,
        accuracy=np.array([accuracy.mean() for accuracy in by_ratio]),
        accuracy_error=np.array([accuracy.std(ddof=1) / np.sqrt(len(accuracy)) for accuracy in by_ratio]),
        consistency=consistency,
        reliability=found,
        runs_needed=reliability.runs_needed(mean[base], found.num_runs[base], WANTED_RELIABILITY),
        runs_needed_measured=bool(reached.size),
        runs_needed_for_ranks=int(found.num_runs[reached_by_ranks[0]]) if reached_by_ranks.size else None,
        share_of_ones=float(np.mean(consistency.score == 1)),
    )


def _heldout_accuracy(runs: run_table.RunTable) -> np.ndarray:
    """Of each run on the examples that it held out, float64 [T]; bits of padding are 0."""
    num_in, num_right, num_right_in = (
        np.bitwise_count(bits).sum(axis=1, dtype=np.int64)
        for bits in (
            runs.subset_mask_bits,
            runs.train_correctness_bits,
            runs.subset_mask_bits & runs.train_correctness_bits,
        )
    )
    return (num_right - num_right_in) / (runs.num_train - num_in)


def rank_correlation_with(score: np.ndarray, path: files.PathLike, label: np.ndarray | None) -> float:
    """Rank correlation of scores with published ones: an npz with labels, or MNIST's npy.

    Raises:
        MissingFileError, DamagedFileError: the file cannot be read.
        MismatchError: it has scores of other examples.
    """
    published = (
        published_formats.read_mnist_cscores(path)
        if str(path).endswith(".npy")
        else published_formats.read_cscores(path, label=label).score
    )
    if published.shape != score.shape:
        raise errors.MismatchError(
            f"{path}: has scores of {len(published)} examples, the zoo has {len(score)}: scores of another data set"
        )
    both = np.isfinite(published) & np.isfinite(score)
    return float(stats.spearmanr(published[both], score[both])[0])


def write(
    directory: files.PathLike,
    findings: Findings,
    table: run_table.RunTable,
    provenance: dict[str, Any],
    published: float | None = None,
) -> list[pathlib.Path]:
    """Writes all files; returns their paths.

    Args:
        directory: made if it is not there.
        findings: of this table.
        table: with labels, if cscores.npz is to be written.
        provenance: JSON values to be kept with the figures: recipe, commands.
        published: rank correlation with published scores, where there were any to compare with.
    """
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    charts = {
        "reliability.png": figures.split_half_reliability(findings.reliability, WANTED_RELIABILITY),
        "accuracy.png": figures.heldout_accuracy(findings.subset_ratios, findings.accuracy, findings.accuracy_error),
    }
    written = []
    for name, chart in charts.items():
        written.append(_whole(directory / name, chart.png))
    value = to_json(findings) | {"correlation_with_published": published, "provenance": provenance}
    written.append(_whole(directory / "consistency.json", (json.dumps(value, indent=2) + "\n").encode()))
    written.append(_whole(directory / "consistency.md", _as_markdown(findings, table, provenance, published).encode()))
    if table.train_label is not None:
        path = directory / "cscores.npz"
        published_formats.write_cscores(path, published_formats.CScores(table.train_label, findings.consistency.score))
        written.append(path)
    with files.write_whole(directory / "cscores.npy") as temporary, open(temporary, "wb") as stream:
        np.save(stream, findings.consistency.score)
    return [*written, directory / "cscores.npy"]


def _whole(path: pathlib.Path, content: bytes) -> pathlib.Path:
    with files.write_whole(path) as temporary:
        temporary.write_bytes(content)
    return path


def to_json(findings: Findings) -> dict[str, Any]:
    """The figures as JSON values, scores left out."""
    found = findings.reliability
    return {
        "schema_version": _SCHEMA_VERSION,
        "subset_ratios": findings.subset_ratios.tolist(),
        "num_runs": findings.num_runs.tolist(),
        "heldout_accuracy": findings.accuracy.tolist(),
        "heldout_accuracy_standard_error": findings.accuracy_error.tolist(),
        "mean_score": float(np.nanmean(findings.consistency.score)),
        "reliability": {
            "runs_of_each_ratio": found.num_runs.tolist(),
            "spearman": found.spearman.tolist(),
            "pearson": found.pearson.tolist(),
            "num_examples": found.num_examples.tolist(),
        },
        "wanted_reliability": WANTED_RELIABILITY,
        "runs_needed": findings.runs_needed if np.isfinite(findings.runs_needed) else None,
        "runs_needed_measured": findings.runs_needed_measured,
        "runs_needed_for_ranks": findings.runs_needed_for_ranks,
        "share_of_ones": findings.share_of_ones,
    }


def needed_texts(findings: Findings) -> list[str]:
    """Two sentences on the runs that reliable scores take."""
    most = findings.reliability.num_runs[-1]
    linear = f"linear correlation of {WANTED_RELIABILITY} between scores from disjoint runs"
    if not np.isfinite(findings.runs_needed):
        texts = [f"no number of runs would give a {linear}: halves do not agree at all"]
    elif findings.runs_needed_measured:
        texts = [f"a {linear} takes about {max(1.0, findings.runs_needed):.0f} runs of each ratio (measured)"]
    else:
        texts = [f"a {linear} takes about {findings.runs_needed:.0f} runs of each ratio (by Spearman and Brown)"]
    needed = findings.runs_needed_for_ranks
    ranks = f"is reached with {needed} runs" if needed is not None else f"is not reached with {most} runs"
    texts.append(
        f"a rank correlation of {WANTED_RELIABILITY} {ranks} of each ratio; {findings.share_of_ones:.1%} of the "
        "examples share the score 1, and ranks among those that nearly do are noise"
    )
    return texts


def lines(findings: Findings, published: float | None = None) -> list[str]:
    """The findings for the terminal."""
    columns = (findings.subset_ratios, findings.num_runs, findings.accuracy, findings.accuracy_error)
    texts = [
        f"ratio {ratio:g}, {runs} runs: accuracy {accuracy:.4f} held out (standard error {error:.4f})"
        for ratio, runs, accuracy, error in zip(*columns, strict=True)
    ]
    found = findings.reliability
    for runs, linear, ranked in zip(
        found.num_runs, found.pearson.mean(axis=1), found.spearman.mean(axis=1), strict=True
    ):
        others = f"{runs} runs of each ratio" if runs > 1 else "1 run of each ratio"
        texts.append(f"scores from {others} and {runs} others: correlation {linear:.3f}, of ranks {ranked:.3f}")
    texts += needed_texts(findings)
    if published is not None:
        texts.append(f"rank correlation with the published scores: {published:.3f}")
    return texts


def _as_markdown(
    findings: Findings, table: run_table.RunTable, provenance: dict[str, Any], published: float | None
) -> str:
    found = findings.reliability
    lines = [
        f"# Consistency scores of {table.experiment}",
        "",
        f"{table.num_runs} runs, {table.num_train} training examples; made by `{provenance.get('command', '')}`.",
        "",
        "| subset ratio | runs | held-out accuracy | standard error |",
        "|---|---|---|---|",
    ]
    columns = (findings.subset_ratios, findings.num_runs, findings.accuracy, findings.accuracy_error)
    lines += [f"| {r:g} | {n} | {a:.4f} | {e:.4f} |" for r, n, a, e in zip(*columns, strict=True)]
    lines += [
        "",
        "![held-out accuracy by ratio, with two standard errors](accuracy.png)",
        "",
        "Scores from two disjoint random sets of runs, n of each ratio: mean and standard deviation of their "
        f"correlation over {found.spearman.shape[1]} draws.",
        "",
        "| runs of each ratio | linear correlation | rank correlation |",
        "|---|---|---|",
    ]
    for number, runs in enumerate(found.num_runs):
        texts = [
            f"{values[number].mean():.3f} ± {values[number].std():.3f}" for values in (found.pearson, found.spearman)
        ]
        lines.append(f"| {runs} | {texts[0]} | {texts[1]} |")
    for sentence in needed_texts(findings):
        lines += ["", f"{sentence[0].upper()}{sentence[1:]}."]
    lines += ["", "![split-half reliability](reliability.png)"]
    if published is not None:
        lines += ["", f"Rank correlation with the published scores: {published:.3f}."]
    return "\n".join(lines) + "\n"
