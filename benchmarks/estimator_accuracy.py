"""Holds every estimator against truth, and writes what came out as a table.

    python -m benchmarks.estimator_accuracy                                  # docs/estimator_accuracy.md
    python -m benchmarks.estimator_accuracy --only=curvature --outfile=/tmp/accuracy.md

Truth is a closed form, a published value, a matrix written out in float64 by nested tapes or in NumPy (see
tests/reference), or a model that was fitted again without the example; it uses nothing of what it judges. Reads
nothing, takes some three minutes on two cores, and gives the same file each time but for the last digit of rounding
errors. A healthy run ends with "all of N rows pass" and status 0; a row that fails gives status 1.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import metadata
import pathlib
import platform
import re
import sys
import time

from absl import app, flags
import tensorflow as tf

from benchmarks.accuracy_checks import derivatives, leaving_out, rows, scores, solving

_ONLY = flags.DEFINE_string("only", "", "Regular expression of the checks to run, by name; empty for all.")
_OUTFILE = flags.DEFINE_string("outfile", "docs/estimator_accuracy.md", "Where the table goes.")

# Title of a part -> its checks by name.
CHECKS: dict[str, dict[str, Callable[[], Iterator[rows.Row]]]] = {
    "Gradients of single examples": {
        "layers": derivatives.of_single_examples,
        "network": derivatives.of_the_network,
    },
    "Curvature": {"curvature": derivatives.of_curvature},
    "Influence functions": {"solvers": solving.of_solvers, "golden": solving.golden},
    "Other estimators": {
        "groups": scores.groups,
        "similarities": scores.similarities,
        "trak": scores.traks,
        "projections": scores.projections,
        "representers": scores.representers,
        "early": scores.early,
    },
    "Models fitted again": {
        "refit_influence": leaving_out.influence,
        "refit_trak": leaving_out.traks,
        "refit_groups": leaving_out.groups,
    },
}


def main(argv: Sequence[str]) -> None:
    """Runs the checks and writes the table."""
    del argv
    tf.get_logger().setLevel("ERROR")  # every small model is traced anew, of which it would warn
    found = run(_ONLY.value)
    if not found:
        known = ", ".join(name for checks in CHECKS.values() for name in checks)
        print(f"--only={_ONLY.value!r} matches none of the checks {known}; change the expression", file=sys.stderr)
        sys.exit(2)
    path = pathlib.Path(_OUTFILE.value)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(table(found), encoding="utf-8")
    every = [row for some in found.values() for row in some]
    failed = [row for row in every if not row.passes]
    for row in failed:
        print(f"fails: {row.quantity}, {row.dtype}: {_number(row)}, bound {row.bound:g}")
    print(f"{len(failed)} of {len(every)} rows fail" if failed else f"all of {len(every)} rows pass")
    sys.exit(1 if failed else 0)


def run(only: str = "") -> dict[str, list[rows.Row]]:
    """Rows by part, of the checks in whose name a regular expression is found."""
    found: dict[str, list[rows.Row]] = {}
    for part, checks in CHECKS.items():
        for name, check in checks.items():
            if re.search(only, name):
                started = time.perf_counter()
                found.setdefault(part, []).extend(check())
                print(f"{name}: {time.perf_counter() - started:.0f} s", flush=True)
    return found


def table(found: dict[str, Iterable[rows.Row]]) -> str:
    """The document: parts with their rows."""
    packages = ("tensorflow", "numpy", "scipy", "dm-sonnet", "keras")
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in packages)
    lines = [
        "# Accuracy of the estimators",
        "",
        "    python -m benchmarks.estimator_accuracy",
        "",
        f"Written by this command under Python {platform.python_version()} with {versions}.",
        "Every estimator is held against truth that uses nothing of it: closed forms, published values, matrices that",
        "are written out in float64 by nested tapes or in NumPy (`tests/reference`), and models that are fitted again.",
        "",
        "An *error* is the largest difference from the truth over all numbers compared, relative to the largest true",
        "number of its case, to one digit; *r* is a Pearson correlation. *Cases* are models, settings or refits. A row",
        "passes where its error is at most the bound, or its correlation at least. Batches are uneven on purpose.",
    ]
    for part, some in found.items():
        lines += ["", f"## {part}", "", "| quantity | truth | cases | error or r | dtype | bound | pass |"]
        lines.append("|---|---|---|---|---|---|---|")
        lines += [_line(row) for row in some]
    return "\n".join(lines) + "\n"


def _line(row: rows.Row) -> str:
    bound = f"r >= {row.bound:g}" if row.is_correlation else f"{row.bound:g}"
    cells = [row.quantity, row.truth, str(row.num_cases), _number(row), row.dtype, bound, "yes" if row.passes else "NO"]
    return f"| {' | '.join(cells)} |"


def _number(row: rows.Row) -> str:
    """One digit of an error; of a correlation two digits of what it lacks to 1."""
    if not row.is_correlation:
        return "0" if row.figure == 0 else f"{row.figure:.1g}"
    missing = f"{max(1 - row.figure, 1e-12):.1e}"
    return f"r = {row.figure:.{1 - int(missing.partition('e')[2])}f}"


if __name__ == "__main__":
    app.run(main)
