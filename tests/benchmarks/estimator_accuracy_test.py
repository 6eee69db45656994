"""The table of accuracies: a small part of it passes, and a wrong estimator fails it."""

from absl import flags
from absl.testing import flagsaver
import numpy as np
import pytest

from benchmarks import estimator_accuracy
from benchmarks.accuracy_checks import rows
from estimators import early_scores, score_matrix, trak_features


@pytest.fixture(autouse=True)
def _parsed():
    flags.FLAGS.mark_as_parsed()


def _run(tmp_path, only):
    """(exit status, the document)."""
    with (
        flagsaver.flagsaver(only=only, outfile=str(tmp_path / "a" / "accuracy.md")),
        pytest.raises(SystemExit) as caught,
    ):
        estimator_accuracy.main([])
    return caught.value.code, (tmp_path / "a" / "accuracy.md").read_text(encoding="utf-8")


def test_a_part_of_the_table_passes_and_comes_out_alike_again(tmp_path, capsys):
    status, text = _run(tmp_path, "^(early|representers)$")
    assert status == 0
    assert "all of 6 rows pass" in capsys.readouterr().out
    lines = [line for line in text.splitlines() if line.startswith("| ") and "| bound |" not in line]
    assert len(lines) == 6
    assert all(line.endswith("| yes |") for line in lines)
    assert "| representer points: ridge regression | closed form | 2 |" in text
    assert "## Other estimators" in text
    assert "numpy " in text
    assert _run(tmp_path, "^(early|representers)$") == (0, text)


def _values(matrix, column):
    """With the sign of a widely used package."""
    return matrix.values[:, column]


@pytest.mark.parametrize(
    ("only", "module", "name", "wrong", "failing"),
    [
        ("early", early_scores, "_ERRORS", {"cross_entropy": lambda f, y: f}, "EL2N"),
        (
            "golden",
            score_matrix.ScoreMatrix,
            "helpfulness",
            _values,
            "effect of removal, intercept alone, pseudo-inverse",
        ),
        ("^trak", trak_features, "_of_margin", lambda f, y: (0.0 * f, 0.0 * f + 0.25), "TRAK, scaling output"),
    ],
)
def test_a_wrong_estimator_fails(only, module, name, wrong, failing, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(module, name, wrong)
    status, text = _run(tmp_path, only)
    assert status == 1
    assert f"fails: {failing}, float64" in capsys.readouterr().out
    assert "| NO |" in next(line for line in text.splitlines() if line.startswith(f"| {failing} "))


def test_a_row_fails_beyond_its_bound_and_by_what_is_no_number():
    def passes(found, true):
        return rows.errors("q", "t", "float64", 1e-3, (np.array(found), np.array(true))).passes

    assert passes([1.0, 2.0], [1.0, 2.0019])
    assert not passes([1.0, 2.0], [1.0, 2.0021])
    assert not passes([1.0, np.nan], [1.0, 2.0])
    assert not passes([1.0, 2.0, 3.0], [1.0, 2.0])
    for figure, expected in ((0.995, True), (0.985, False), (np.nan, False)):
        assert rows.Row("q", "t", 1, figure, "float64", 0.99, is_correlation=True).passes == expected


def test_figures_are_rounded():
    assert estimator_accuracy._number(rows.Row("q", "t", 1, 3.4567e-15, "float64", 1.0)) == "3e-15"
    found = [rows.Row("q", "t", 1, figure, "float64", 0.9, is_correlation=True) for figure in (0.998765, 1.0)]
    assert estimator_accuracy._number(found[0]) == "r = 0.9988"
    assert estimator_accuracy._number(found[1]).startswith("r = 1.0")


def test_an_expression_that_finds_nothing_is_refused(capsys):
    with flagsaver.flagsaver(only="nothing"), pytest.raises(SystemExit) as caught:
        estimator_accuracy.main([])
    assert caught.value.code == 2
    assert "--only='nothing' matches none of the checks layers, network" in capsys.readouterr().err
