"""What decides networks without some examples, their data, and their files: round trips, draws, refusals."""

import dataclasses
import json

import numpy as np
import pytest

from heldout.datasets import digits
from heldout.experiments import label_noise
from heldout.training import leave_out_config, leave_out_data, leave_out_draw, leave_out_files
from zoo import errors, npz

_NOISE = label_noise.LabelNoise("symmetric", share=0.1, seed=4)


def config(**members):
    defaults = {"classes": (3, 8), "num_train": 60, "num_val": 30, "record_steps": (0, 20), "noise": _NOISE}
    return leave_out_config.LeaveOutConfig("digits", **(defaults | members))


@pytest.fixture(scope="module")
def dataset():
    return digits.load()


def test_a_config_returns_from_json_and_its_digest_tells_what_decides():
    one = config(architecture_options={"hidden_sizes": [16]})
    again = leave_out_config.LeaveOutConfig.from_json(json.loads(json.dumps(one.to_json())))
    assert again == one
    assert again.sha256 == one.sha256 == one.to_json()["sha256"]
    # Where a file lies decides nothing; all else does.
    begun = config(init_checkpoint="x", init_sha256="0")
    assert dataclasses.replace(begun, dataset="npz:x", init_checkpoint="y").sha256 == begun.sha256 != one.sha256
    others = [
        {"classes": (8, 3)},
        {"noise": None},
        {"seed": 1},
        {"init_sha256": "0"},
        {"l2": 0.5},
        {"dtype": "float64"},
        {"fingerprint": {"name": "digits"}},
    ]
    assert len({config(**other).sha256 for other in [{}, *others]}) == len(others) + 1


def test_settings_that_came_later_count_only_where_they_are_used():
    # As it was before coarse labels and counts of labels could be asked for.
    known = "b717770aeeda3a1f3fc850eab89df55376c0b02bd725b6ca62ea8a8c260385f5"
    assert config().sha256 == known
    assert not {"coarse_labels", "class_counts"} & set(config().to_json())
    used = [
        config(classes=(), coarse_labels=((0, 2), (1, 3))),
        config(classes=(), coarse_labels=((0, 1), (2, 3))),
        config(class_counts=((3, 50), (8, 10))),
    ]
    assert len({known, *(one.sha256 for one in used)}) == 4
    for one in used:
        assert leave_out_config.LeaveOutConfig.from_json(json.loads(json.dumps(one.to_json()))) == one


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"coarse_labels": ((1, 2),)}, r"--coarse_labels=\[\[1, 2\]\]: expected at least two classes"),
        ({"coarse_labels": ((1, 2), ())}, "each of at least one label"),
        ({"class_counts": ((1, 2), (1, 3))}, "--class_counts=1:2,1:3: expected each label once"),
        ({"class_counts": ((1, -2),)}, "--class_counts=1:-2"),
        ({"num_train": 1}, "--num_train=1: expected a whole number from 2"),
        ({"num_steps": 0}, "--num_steps=0: expected a whole number from 1"),
        ({"seed": True}, "--seed=True"),
        ({"learning_rate": 0.0}, "--learning_rate=0.0: expected a number above 0"),
        ({"learning_rate": float("nan")}, "--learning_rate=nan"),
        ({"l2": -1.0}, "--l2=-1.0: expected a number, 0 or more"),
        ({"dtype": "float16"}, "--dtype=float16: expected one of float32, float64"),
        ({"val_split": "heldout"}, "--val_split=heldout: expected one of train, test"),
        ({"record_steps": (5, 5)}, "--record_steps=5,5: expected ascending steps from 0 to 2000"),
        ({"record_steps": (0, 2001)}, "--record_steps=0,2001"),
        ({"init_checkpoint": "x"}, "--init_checkpoint=x: expected init_sha256 beside it"),
    ],
)
def test_values_out_of_range_are_refused(members, message):
    with pytest.raises(errors.InvalidValueError, match=message):
        config(**members)


def test_a_damaged_config_is_refused():
    stored = config().to_json()
    for change in (
        {"schema_version": 9},
        {"more": 1},
        {"classes": 3},
        {"num_val": 0},
        {"noise": {"kind": "odd"}},
        {"class_counts": [[1, 2, 3]]},
    ):
        with pytest.raises(errors.DamagedFileError, match="delete the folder"):
            leave_out_config.LeaveOutConfig.from_json(stored | change)


def test_a_folder_holds_one_experiment(tmp_path):
    with pytest.raises(errors.MissingFileError, match=r"config.json: no such file; expected a folder"):
        leave_out_config.read(tmp_path)
    leave_out_config.adopt(tmp_path, config())
    leave_out_config.adopt(tmp_path, config())
    assert leave_out_config.read(tmp_path) == config()
    with pytest.raises(errors.MismatchError, match=r"(?s)seed: stored 0, asked for 7.*choose another --outdir"):
        leave_out_config.adopt(tmp_path, config(seed=7))


def test_the_draw_is_of_the_classes_without_overlap(dataset):
    drawn = leave_out_draw.draw(dataset, (8, 3), 100, 50, 0, "train")
    label = dataset.train.label
    assert set(label[drawn.train_index]) == set(label[drawn.val_index]) == {3, 8}
    assert not np.intersect1d(drawn.train_index, drawn.val_index).size
    assert (len(drawn.train_index), len(drawn.val_index)) == (100, 50)
    assert (np.diff(drawn.train_index) > 0).all()
    np.testing.assert_array_equal(drawn.numbered(np.array([3, 8, 5])), [1, 0, -1])
    again, other = (leave_out_draw.draw(dataset, (8, 3), 100, 50, seed, "train") for seed in (0, 1))
    np.testing.assert_array_equal(again.train_index, drawn.train_index)
    assert (other.train_index != drawn.train_index).any()
    of_test = leave_out_draw.draw(dataset, (3, 8), 100, 40, 0, "test")
    assert set(dataset.test.label[of_test.val_index]) == {3, 8}
    assert leave_out_draw.draw(dataset, (), 100, 50, 0, "train").classes == tuple(range(10))


def test_some_labels_are_as_frequent_as_asked_for_and_validation_is_as_ever(dataset):
    label = dataset.train.label
    plain = leave_out_draw.draw(dataset, (4, 9), 100, 80, 0, "train")
    rare = leave_out_draw.draw(dataset, (4, 9), 100, 80, 0, "train", class_counts={9: 10})
    assert np.bincount(label[rare.train_index], minlength=10)[[4, 9]].tolist() == [90, 10]
    assert not np.intersect1d(rare.train_index, rare.val_index).size
    assert (np.diff(rare.train_index) > 0).all()
    np.testing.assert_array_equal(rare.val_index, plain.val_index)
    # Each label gives the first ones of the draw: rare is a part of less rare, and of the plain draw.
    more = leave_out_draw.draw(dataset, (4, 9), 100, 80, 0, "train", class_counts={4: 70, 9: 30})
    of_nine = [one.train_index[label[one.train_index] == 9] for one in (rare, more, plain)]
    assert set(of_nine[0]) < set(of_nine[1]) < set(of_nine[2])
    of_test = leave_out_draw.draw(dataset, (4, 9), 100, 40, 0, "test", class_counts={9: 0})
    assert (len(of_test.train_index), set(label[of_test.train_index])) == (100, {4})


def test_classes_of_several_labels_keep_them_in_the_draw(dataset):
    coarse = ((0, 2, 4), (3, 1))
    drawn = leave_out_draw.draw(dataset, (), 100, 50, 0, "train", coarse_labels=coarse, class_counts={4: 5})
    assert (drawn.classes, drawn.num_classes) == ((0, 2, 4, 3, 1), 2)
    np.testing.assert_array_equal(drawn.numbered(np.arange(6)), [0, 1, 0, 1, 0, -1])
    assert np.sum(dataset.train.label[drawn.train_index] == 4) == 5
    asked = config(classes=(), coarse_labels=coarse, class_counts=((4, 5),))
    data = leave_out_data.of_dataset(asked, dataset)
    fine = dataset.train.label[data.train_index]
    np.testing.assert_array_equal(data.clean_train_label, np.isin(fine, coarse[1]))
    assert (data.num_outputs, np.sum(fine == 4)) == (1, 5)
    assert np.sum(data.train_label != data.clean_train_label) == 6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": (1, 2), "coarse_labels": ((1,), (2,))}, "--classes=1,2 with --coarse_labels: both say"),
        ({"coarse_labels": ((1, 2), (2,))}, "--coarse_labels=1,2,2: expected at least two of the classes 0 to 9"),
        (
            {"classes": (1, 2), "class_counts": {3: 1}},
            "--class_counts=3:1: expected numbers of some of the labels 1, 2",
        ),
        ({"classes": (1, 2), "class_counts": {1: 5, 2: 4}}, "with --num_train=10 as their sum"),
        ({"classes": (1, 2), "class_counts": {1: 11}}, "with --num_train=10 as their sum"),
        ({"classes": (1, 2), "class_counts": {1: 900}, "num_train": 200}, "expected numbers of some"),
        (
            {"classes": (1, 2), "class_counts": {1: 150}, "num_train": 150, "num_val": 100},
            r"\d+ examples of 1 are left beside those",
        ),
    ],
)
def test_numbers_of_labels_that_cannot_be_are_refused(dataset, options, message):
    defaults = {"classes": (), "num_train": 10, "num_val": 10, "seed": 0, "val_split": "train"}
    with pytest.raises(errors.InvalidValueError, match=message):
        leave_out_draw.draw(dataset, **(defaults | options))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((3, 3), 10, 10, 0, "train"), "--classes=3,3: expected at least two of the classes 0 to 9"),
        (((3,), 10, 10, 0, "train"), "--classes=3:"),
        (((3, 10), 10, 10, 0, "train"), "--classes=3,10"),
        (((3, 8), 10, 10, 0, "val"), "--val_split=val: expected one of train, test"),
        (
            ((3, 8), 200, 100, 0, "train"),
            r"has \d+ examples of the classes 3, 8, expected at least 300",
        ),
        (((3, 8), 10, 100, 0, "test"), r"the test split has \d+ examples"),
    ],
)
def test_what_cannot_be_drawn_is_refused(dataset, arguments, message):
    with pytest.raises(errors.InvalidValueError, match=message):
        leave_out_draw.draw(dataset, *arguments)


def test_data_are_in_0_to_1_with_targets_and_wrong_labels(dataset):
    data = leave_out_data.of_dataset(config(), dataset)
    np.testing.assert_array_equal(data.train_inputs, dataset.train.images[data.train_index] / np.float32(16))
    assert data.train_inputs.dtype == np.float32
    np.testing.assert_array_equal(data.clean_train_label, dataset.train.label[data.train_index] == 8)
    np.testing.assert_array_equal(data.val_label, dataset.train.label[data.val_index] == 8)
    changed = data.train_label != data.clean_train_label
    assert changed.sum() == 6
    assert data.num_outputs == 1
    np.testing.assert_array_equal(data.targets(data.train_label), data.train_label[:, None].astype(np.float32))
    other = leave_out_data.of_dataset(config(noise=dataclasses.replace(_NOISE, seed=5)), dataset)
    assert ((other.train_label != other.clean_train_label) != changed).any()
    np.testing.assert_array_equal(other.train_index, data.train_index)
    three = leave_out_data.of_dataset(config(classes=(3, 8, 5), noise=None), dataset)
    assert three.num_outputs == 3
    np.testing.assert_array_equal(three.targets(np.array([2, 0])), [[0, 0, 1], [1, 0, 0]])
    assert data.fingerprint()["num_changed_labels"] == 6


def test_other_data_than_those_of_the_fingerprint_are_refused(dataset):
    fingerprint = leave_out_data.of_dataset(config(), dataset).fingerprint()
    leave_out_data.of_dataset(config(fingerprint=fingerprint), dataset)
    with pytest.raises(errors.MismatchError, match="--dataset=digits: not the data of the experiment"):
        leave_out_data.of_dataset(config(fingerprint=fingerprint, data_seed=1), dataset)
    asymmetric = label_noise.LabelNoise("asymmetric", share=0.1)
    with pytest.raises(errors.InvalidValueError, match="no map of classes is known"):
        leave_out_data.of_dataset(config(noise=asymmetric), dataset)


def effects(*groups):
    generator = np.random.default_rng(len(groups))
    arrays = [generator.normal(size=shape) for shape in ((len(groups),),) * 3]
    own, change = (generator.normal(size=(len(groups), *rest)).astype(np.float32) for rest in ((1,), (4, 1)))
    return leave_out_files.Effects(tuple(groups), *arrays, own, change)


def test_effects_return_from_their_file_and_are_joined_in_order(tmp_path):
    first, second = effects((7,), (2, 9)), effects((3,))
    leave_out_files.write_effects(tmp_path / "a.npz", first, "x")
    again = leave_out_files.read_effects(tmp_path / "a.npz", "x")
    assert again.groups == first.groups
    np.testing.assert_array_equal(again.prediction_change, first.prediction_change)
    assert first.train_index is None
    np.testing.assert_array_equal(second.train_index, [3])
    whole = leave_out_files.joined([first, second])
    assert whole.groups == ((2, 9), (3,), (7,))
    values = [effect for one in (first, second) for effect in one.squared_weight_change]
    np.testing.assert_array_equal(whole.squared_weight_change, [values[1], values[2], values[0]])


def test_files_of_another_experiment_or_without_sense_are_refused(tmp_path):
    leave_out_files.write_effects(leave_out_files.block_path(tmp_path, [(3,)]), effects((3,)), "x")
    assert leave_out_files.read_blocks(tmp_path, "x")[0].groups == ((3,),)
    with pytest.raises(errors.DamagedFileError, match="of the experiment x, expected version 1 of y"):
        leave_out_files.read_blocks(tmp_path, "y")
    with pytest.raises(errors.MissingFileError, match=r"ground_truth\.npz: no such file"):
        leave_out_files.read_ground_truth(tmp_path)
    assert leave_out_files.read_full_run(tmp_path) is None
    path = tmp_path / "short.npz"
    leave_out_files.write_effects(path, effects((3,)), "x")
    stored = dict(np.load(path)) | {"squared_weight_change": np.zeros(2)}
    npz.write(path, stored)
    with pytest.raises(errors.DamagedFileError, match="not of one number of groups"):
        leave_out_files.read_effects(path)
