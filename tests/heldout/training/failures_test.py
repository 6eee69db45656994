"""Records of failed runs: one line each, whatever happened to the line before."""

import dataclasses
import json
import shlex

import pytest

import heldout
from heldout import subsets
from heldout.experiments import label_noise
from heldout.training import failures, run_results
from tests import cases
from zoo import aux_arrays, errors, layout


@pytest.fixture
def recipe():
    return cases.tiny_recipe(cases.tiny_digits(), learning_rate=1e30)


def result(zoo, run_id=3, loss=float("nan")):
    return run_results.RunResult(layout.Run(zoo, "e", 0.7, run_id), "the training loss is nan", loss, epoch=2)


def test_a_failure_says_what_is_needed_to_look_into_it(tmp_path, recipe):
    failure = failures.describe(recipe, result(tmp_path))
    assert (failure.subset_ratio, failure.run_id, failure.epoch, failure.loss) == (0.7, 3, 2, None)
    assert failure.reason == "the training loss is nan"
    assert int(failure.seed, 16) == subsets.seed(("e", 0.7, 3), "initialisation")
    assert failure.code_version == heldout.__version__
    assert failure.time.endswith("+00:00")
    assert failures.describe(recipe, result(tmp_path, loss=2.5)).loss == 2.5


def test_the_retry_command_names_everything_that_is_not_the_default(tmp_path, recipe):
    noise = label_noise.LabelNoise("asymmetric", share=0.00001, seed=4, class_map=((1, 2),))
    recipe = dataclasses.replace(recipe, noise=noise, clean_label_sha256="0", subset_sampling="class_balanced")
    words = shlex.split(failures.describe(recipe, result(tmp_path), "data").retry)
    assert words[0] == "train_runs"
    assert set(words[1:]) == {
        f"--zoo={tmp_path}",
        "--experiment=e",
        "--dataset=npz:gone.npz",
        "--arch=mlp",
        '--arch_options={"hidden_sizes": [8]}',
        "--subset_ratio=0.7",
        "--run_ids=3",
        "--num_epochs=2",
        "--batch_size=10",
        "--learning_rate=1e+30",
        "--label_noise=asymmetric:0.00001",
        "--label_seed=4",
        '--label_map={"1": 2}',
        "--subset_sampling=class_balanced",
        next(word for word in words if word.startswith("--data_dir=/")),
    }
    counted = dataclasses.replace(recipe, noise=label_noise.LabelNoise("pair", count=3))
    assert "--label_noise=pair:3" in failures.describe(counted, result(tmp_path)).retry


def test_lists_in_the_retry_command_are_written_as_flags_take_them(tmp_path):
    recipe = cases.tiny_recipe(
        cases.tiny_digits(), num_epochs=9, schedule="step", step_epochs=(3, 6), augmentation=("crop", "flip")
    )
    words = failures.retry_flags(recipe, layout.Run(tmp_path, "e", 0.7, 3))
    assert {"--schedule=step", "--step_epochs=3,6", "--augmentation=crop,flip"} < set(words)


def test_failures_are_appended_and_read_in_order(tmp_path, recipe):
    assert failures.read(tmp_path, "e") == []
    written = [failures.describe(recipe, result(tmp_path, run_id)) for run_id in (3, 1, 3)]
    for failure in written:
        failures.append(tmp_path, "e", failure)
    assert failures.read(tmp_path, "e") == written
    lines = layout.failures_path(tmp_path, "e").read_text().splitlines()
    assert [json.loads(line)["run_id"] for line in lines] == [3, 1, 3]
    assert all("NaN" not in line for line in lines)


def test_a_line_that_was_cut_off_is_passed_by(tmp_path, recipe):
    failure = failures.describe(recipe, result(tmp_path))
    failures.append(tmp_path, "e", failure)
    path = layout.failures_path(tmp_path, "e")
    whole = path.read_bytes()
    for size in range(1, len(whole) - 1):
        path.write_bytes(whole + whole[:size])
        assert failures.read(tmp_path, "e") == [failure]
    failures.append(tmp_path, "e", failure)
    assert failures.read(tmp_path, "e") == [failure, failure]


def test_only_runs_that_have_still_no_record_have_failed(tmp_path, recipe):
    for run_id in (3, 1, 3):
        failures.append(tmp_path, "e", failures.describe(recipe, result(tmp_path, run_id)))
    last = dataclasses.replace(failures.describe(recipe, result(tmp_path, 3)), reason="the last word")
    failures.append(tmp_path, "e", last)
    assert [failure.run_id for failure in failures.current(tmp_path, "e")] == [1, 3]
    assert failures.current(tmp_path, "e")[1] == last
    data = cases.tiny_digits()
    mask = data.train.label > 2
    aux = aux_arrays.from_masks(mask, mask, data.test.label > 2)
    aux_arrays.write(layout.Run(tmp_path, "e", 0.7, 1).aux_arrays_path, aux)
    assert [failure.run_id for failure in failures.current(tmp_path, "e")] == [3]


@pytest.mark.parametrize(
    "changes",
    [{"schema_version": 2}, {"run_id": "3"}, {"loss": "nan"}, {"epoch": 1.5}, {"reason": None}, {"seed": ...}],
)
def test_a_line_that_is_no_failure_is_named(tmp_path, recipe, changes):
    sound = failures.describe(recipe, result(tmp_path))
    failures.append(tmp_path, "e", sound)
    stored = {name: value for name, value in (sound.to_json() | changes).items() if value is not ...}
    with open(layout.failures_path(tmp_path, "e"), "a") as stream:
        stream.write(json.dumps(stored) + "\n")
    with pytest.raises(
        errors.DamagedFileError, match=r"failures\.jsonl, line 2: expected an object of schema version 1"
    ):
        failures.read(tmp_path, "e")
