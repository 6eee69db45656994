"""Flag texts to values."""

import pathlib
import subprocess
import sys

import pytest

from scripts import choices
from zoo import errors


@pytest.mark.parametrize(
    ("text", "expected"),
    [("7", (7,)), ("0:3", (0, 1, 2)), ("0:2,5,8:10", (0, 1, 5, 8, 9))],
)
def test_run_ids(text, expected):
    assert choices.run_ids(text) == expected


@pytest.mark.parametrize(
    "text", ["", "a", "-1", "0:", ":3", "0:3:2", "1,,2", "0:3,2", "5,5", "4:4", "²", "9" * 30, "0:999999999999999"]
)
def test_bad_run_ids_are_refused_with_the_text(text):
    with pytest.raises(errors.InvalidValueError, match="--run_ids="):
        choices.run_ids(text)


def test_the_only_experiment_needs_no_name(tmp_path):
    (tmp_path / "one" / "0.5").mkdir(parents=True)
    assert choices.experiment(str(tmp_path), None) == "one"
    with pytest.raises(errors.MissingFileError, match="no experiment two; found: one"):
        choices.experiment(str(tmp_path), "two")
    (tmp_path / "two" / "0.5").mkdir(parents=True)
    with pytest.raises(errors.InvalidValueError, match=r"--experiment=one\|two"):
        choices.experiment(str(tmp_path), None)


def test_an_empty_zoo_says_so(tmp_path):
    with pytest.raises(errors.MissingFileError, match="found: none"):
        choices.experiment(str(tmp_path), None)


def test_programs_for_the_cpu_refuse_other_devices():
    choices.only_cpu("cpu")
    with pytest.raises(errors.InvalidValueError, match="--device=tpu"):
        choices.only_cpu("tpu")


@pytest.mark.parametrize("text", ["{", "[1]", "3", "[" * 100_000])
def test_bad_json_is_refused(text):
    with pytest.raises(errors.InvalidValueError, match="--arch_options"):
        choices.json_object("arch_options", text)


def test_integers():
    assert choices.integers("step_epochs", ["3", "5"]) == (3, 5)
    with pytest.raises(errors.InvalidValueError, match="--step_epochs=3,x"):
        choices.integers("step_epochs", ["3", "x"])


def test_names_of_a_list_with_commas_or_one_by_one():
    known = ("aux_arrays", "checkpoints")
    assert choices.several_of("parts", ["aux_arrays"], known) == ["aux_arrays"]
    assert choices.several_of("parts", ["checkpoints, aux_arrays"], known) == ["checkpoints", "aux_arrays"]
    assert choices.several_of("parts", ["checkpoints", "aux_arrays"], known) == ["checkpoints", "aux_arrays"]
    with pytest.raises(errors.InvalidValueError, match=r"--parts=aux: 'aux' is none of aux_arrays, checkpoints; give"):
        choices.several_of("parts", ["aux"], known)


def test_runs_that_are_not_there_are_told_how_to_list_those_that_are():
    there = [(0.5, 1), (0.5, 2), (0.7, 3)]
    assert choices.runs_of("runs", ["0.5/*"], there) == there[:2]
    with pytest.raises(errors.InvalidValueError) as caught:
        choices.runs_of("runs", ["0.5/9"], there, ". --list tells more of them")
    there_are = "--runs=0.5/9: there is no such run; there are 0.5/1 to 0.5/2 (2 runs), 0.7/3 to 0.7/3 (1 run)"
    assert str(caught.value) == f"{there_are}. --list tells more of them"
    # A flag is named by those programs only that have it.
    with pytest.raises(errors.InvalidValueError) as caught:
        choices.runs_of("runs", ["0.5/9"], there)
    assert str(caught.value) == there_are


def test_ranges_of_runs_may_have_gaps_which_are_told():
    there = [(0.5, 1), (0.5, 2), (0.5, 5), (0.7, 3)]
    texts = ["0.5/0:8", "0.7/*", "0.7/3", "all"]
    assert choices.runs_of("runs", texts[:1], there) == there[:3]
    assert choices.gaps("runs", texts, there) == ["0.5/0", "0.5/3:5", "0.5/6:8"]
    assert choices.gaps("runs", ["0.5/1:3"], there) == []


def test_evaluate_zoo_names_no_flag_that_it_has_not(tmp_path):
    (tmp_path / "e" / "0.5" / "1").mkdir(parents=True)
    command = [sys.executable, "-m", "scripts.evaluate_zoo", f"--zoo={tmp_path}", "--runs=0.5/9"]
    result = subprocess.run(command, cwd=pathlib.Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "there are 0.5/1 to 0.5/1 (1 run); list_zoo tells more of them" in result.stderr
    assert "--list" not in result.stderr


@pytest.mark.parametrize(
    ("run_ids", "expected"),
    [((), []), ((3,), ["3"]), ((0, 1, 2, 7), ["0:3", "7"]), ((1, 3, 4), ["1", "3:5"])],
)
def test_ranges_of_runs_are_those_that_can_be_asked_for(run_ids, expected):
    assert choices.id_ranges(run_ids) == expected
    assert not expected or choices.run_ids(",".join(expected)) == run_ids


def test_a_number_or_auto():
    assert choices.integer_or_auto("runs_per_group", "auto") is None
    assert choices.integer_or_auto("runs_per_group", "12") == 12
    with pytest.raises(errors.InvalidValueError, match="--runs_per_group=many: expected a whole number, or auto"):
        choices.integer_or_auto("runs_per_group", "many")
