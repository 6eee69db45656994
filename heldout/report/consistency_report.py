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

from heldout.report import reliability_figures
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
        accuracy_error: float64 [K], standard error of that mean; NaN of a single run.
        consistency: scores from all runs.
        reliability: of scores from halves of them; None where a ratio has a single run.
        runs_needed: of each ratio, at which the linear correlation of two such scores is `WANTED_RELIABILITY`; NaN
            where there are too few runs to say.
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
    reliability: reliability.Reliability | None
    runs_needed: float
    runs_needed_measured: bool
    runs_needed_for_ranks: int | None
    share_of_ones: float


def examine(table: run_table.RunTable, seed: int = 0) -> Findings:
    """Scores, accuracies and reliability of all runs in a table.

    Args:
        table: runs of each ratio; with a single one of any ratio there is no reliability.
        seed: of the halves.
    """
    ratios = np.array(table.subset_ratios)
    by_ratio = [reliability.heldout_accuracy(table.select(ratio)) for ratio in ratios]
    num_runs = np.array([len(accuracy) for accuracy in by_ratio])
    found = None
    if not reliability.too_few_runs(ratios, num_runs):
        found = reliability.split_half(table, lambda half: scores.consistency(half).score, seed=seed)
    needed, measured = _runs_needed(found)
    consistency = scores.consistency(table)
    return Findings(
        num_runs=num_runs,
        subset_ratios=ratios,
        accuracy=np.array([accuracy.mean() for accuracy in by_ratio]),
        accuracy_error=np.array([reliability.standard_error_of_mean(accuracy) for accuracy in by_ratio]),
        consistency=consistency,
        reliability=found,
        runs_needed=needed,
        runs_needed_measured=measured,
        runs_needed_for_ranks=_runs_needed_for_ranks(found),
        share_of_ones=float(np.mean(consistency.score == 1)),
    )


def _runs_needed(found: reliability.Reliability | None) -> tuple[float, bool]:
    """Runs of each ratio for the wanted linear correlation, NaN where nobody can say; whether they were measured."""
    if found is None:
        return float("nan"), False
    mean = found.pearson.mean(axis=1)
    reached = np.flatnonzero(mean >= WANTED_RELIABILITY)
    row = int(reached[0]) if reached.size else len(mean) - 1
    if not reached.size and not found.is_telling(row):
        return float("nan"), False
    return reliability.runs_needed(mean[row], found.num_runs[row], WANTED_RELIABILITY), bool(reached.size)


def _runs_needed_for_ranks(found: reliability.Reliability | None) -> int | None:
    if found is None:
        return None
    reached = np.flatnonzero(found.spearman.mean(axis=1) >= WANTED_RELIABILITY)
    return int(found.num_runs[reached[0]]) if reached.size else None


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
    """Writes all files, reliability.png where there is a reliability; returns their paths.

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
        "accuracy.png": reliability_figures.heldout_accuracy(
            findings.subset_ratios, findings.accuracy, findings.accuracy_error
        )
    }
    if findings.reliability is not None:
        charts["reliability.png"] = reliability_figures.split_half_reliability(
            findings.reliability, wanted=WANTED_RELIABILITY
        )
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
        "heldout_accuracy_standard_error": reliability.with_null(findings.accuracy_error),
        "mean_score": float(np.nanmean(findings.consistency.score)),
        "reliability": None if found is None else reliability.to_json(found),
        "wanted_reliability": WANTED_RELIABILITY,
        "runs_needed": findings.runs_needed if np.isfinite(findings.runs_needed) else None,
        "runs_needed_measured": findings.runs_needed_measured,
        "runs_needed_for_ranks": findings.runs_needed_for_ranks,
        "share_of_ones": findings.share_of_ones,
    }


def needed_texts(findings: Findings) -> list[str]:
    """What is to be said of the runs that reliable scores take: two sentences, or one that there are too few to say."""
    found = findings.reliability
    if found is None:
        return [reliability.too_few_runs(findings.subset_ratios, findings.num_runs)]
    most = files.count_text(int(found.num_runs[-1]), "run")
    linear = f"linear correlation of {WANTED_RELIABILITY} between scores from disjoint runs"
    if np.isnan(findings.runs_needed):
        mean, spread = found.pearson[-1].mean(), found.spread(-1)
        texts = [
            f"too few runs to say how many a {linear} takes: between scores from {most} of each ratio it is {mean:.3f} "
            f"(standard error {spread:.3f} or more)"
        ]
    else:
        number = files.count_text(max(1, round(findings.runs_needed)), "run")
        source = "measured" if findings.runs_needed_measured else "by Spearman and Brown"
        texts = [f"a {linear} takes about {number} of each ratio ({source})"]
    needed = findings.runs_needed_for_ranks
    ranks = f"is not reached with {most}" if needed is None else f"is reached with {files.count_text(needed, 'run')}"
    texts.append(
        f"a rank correlation of {WANTED_RELIABILITY} {ranks} of each ratio; {findings.share_of_ones:.1%} of the "
        "examples share the score 1, and ranks among those that nearly do are noise"
    )
    return texts


def lines(findings: Findings, published: float | None = None) -> list[str]:
    """The findings for the terminal."""
    columns = (findings.subset_ratios, findings.num_runs, findings.accuracy, findings.accuracy_error)
    texts = [
        f"ratio {ratio:g}, {files.count_text(int(runs), 'run')}: accuracy {accuracy:.4f} held out "
        f"({_error_text(error)})"
        for ratio, runs, accuracy, error in zip(*columns, strict=True)
    ]
    if (found := findings.reliability) is not None:
        rows = zip(found.num_runs.tolist(), found.pearson.mean(axis=1), found.spearman.mean(axis=1), strict=True)
        for runs, linear, ranked in rows:
            halves = f"{files.count_text(runs, 'run')} of each ratio and {files.count_text(runs, 'other')}"
            texts.append(f"scores from {halves}: correlation {linear:.3f}, of ranks {ranked:.3f}")
    texts += needed_texts(findings)
    if published is not None:
        texts.append(f"rank correlation with the published scores: {published:.3f}")
    return texts


def _error_text(error: float) -> str:
    return "no standard error" if np.isnan(error) else f"standard error {error:.4f}"


def _as_markdown(
    findings: Findings, table: run_table.RunTable, provenance: dict[str, Any], published: float | None
) -> str:
    found, num_runs = findings.reliability, files.count_text(table.num_runs, "run")
    lines = [
        f"# Consistency scores of {table.experiment}",
        "",
        f"{num_runs}, {table.num_train} training examples; made by `{provenance.get('command', '')}`.",
        "",
        "| subset ratio | runs | held-out accuracy | standard error |",
        "|---|---|---|---|",
    ]
    columns = (findings.subset_ratios, findings.num_runs, findings.accuracy, findings.accuracy_error)
    lines += [f"| {r:g} | {n} | {a:.4f} | {_cell(e)} |" for r, n, a, e in zip(*columns, strict=True)]
    lines += ["", "![held-out accuracy by ratio, with two standard errors](accuracy.png)"]
    if found is not None:
        lines += _reliability_table(found)
    for sentence in needed_texts(findings):
        lines += ["", f"{sentence[0].upper()}{sentence[1:]}."]
    if found is not None:
        lines += ["", "![split-half reliability](reliability.png)"]
    if published is not None:
        lines += ["", f"Rank correlation with the published scores: {published:.3f}."]
    return "\n".join(lines) + "\n"


def _cell(error: float) -> str:
    return "" if np.isnan(error) else f"{error:.4f}"


def _reliability_table(found: reliability.Reliability) -> list[str]:
    lines = [
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
    return lines
