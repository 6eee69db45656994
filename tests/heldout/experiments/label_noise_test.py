"""Wrong labels: exactly as many as asked for, by the stated laws, from a seed that nothing else shares."""

import dataclasses
import hashlib
import json

import numpy as np
import pytest

from heldout import subsets
from heldout.datasets import dataset as dataset_lib
from heldout.experiments import label_noise
from tests import cases
from zoo import errors, npz

_LABEL = np.random.default_rng(0).integers(0, 10, 5000)


def noisy(kind, amount, seed=0, class_map=(), label=_LABEL, num_classes=10):
    size = {"count": amount} if isinstance(amount, int) else {"share": amount}
    return label_noise.noisy_labels(
        label_noise.LabelNoise(kind, seed=seed, class_map=class_map, **size), label, num_classes
    )


@pytest.mark.parametrize("kind", ["symmetric", "pair"])
@pytest.mark.parametrize(("amount", "expected"), [(0.0, 0), (0.2, 1000), (0.33333, 1667), (1.0, 5000), (7, 7), (0, 0)])
def test_exactly_as_many_labels_as_asked_for_are_changed(kind, amount, expected):
    changed = noisy(kind, amount)
    assert changed.dtype == np.int64
    assert np.count_nonzero(changed != _LABEL) == expected
    assert (changed.min(), changed.max()) == (0, 9)


def test_symmetric_noise_goes_to_every_other_class_alike():
    label = np.full(90_000, 4)
    counts = np.bincount(noisy("symmetric", 1.0, label=label), minlength=10)
    assert counts[4] == 0
    # Binomial standard deviation of each of nine classes; 4 of them hold with probability 0.9994.
    assert np.max(np.abs(np.delete(counts, 4) - 10_000)) < 4 * np.sqrt(90_000 * 1 / 9 * 8 / 9)


def test_every_example_is_changed_equally_often():
    counts = sum((noisy("symmetric", 0.3, seed, label=_LABEL[:50]) != _LABEL[:50]).astype(int) for seed in range(2000))
    assert np.max(np.abs(counts - 600)) < 4 * np.sqrt(2000 * 0.3 * 0.7)


def test_pair_noise_goes_to_the_next_class():
    changed = noisy("pair", 0.5)
    where = changed != _LABEL
    np.testing.assert_array_equal(changed[where], (_LABEL[where] + 1) % 10)


@pytest.mark.parametrize("name", ["mnist", "digits", "cifar10"])
def test_asymmetric_noise_follows_the_known_map(name):
    known = {
        "mnist": {7: 1, 2: 7, 5: 6, 6: 5, 3: 8},
        # airplane automobile bird cat deer dog frog horse ship truck
        "cifar10": {9: 1, 2: 0, 4: 7, 3: 5, 5: 3},
    }
    expected = known["cifar10" if name == "cifar10" else "mnist"]
    noise = label_noise.LabelNoise("asymmetric", share=0.3).for_dataset(name)
    changed = label_noise.noisy_labels(noise, _LABEL, 10)
    where = changed != _LABEL
    assert np.count_nonzero(where) == 1500
    assert set(_LABEL[where]) == set(expected)
    assert changed[where].tolist() == [expected[old] for old in _LABEL[where]]


def test_a_map_of_ones_own():
    changed = noisy("asymmetric", 20, class_map=((0, 9),))
    where = changed != _LABEL
    assert np.count_nonzero(where) == 20
    assert set(zip(_LABEL[where], changed[where], strict=True)) == {(0, 9)}


def test_a_map_is_only_filled_in_where_one_is_needed():
    noise = label_noise.LabelNoise("asymmetric", share=0.1, class_map=((0, 1),))
    assert noise.for_dataset("npz:own.npz") == noise
    symmetric = label_noise.LabelNoise("symmetric", share=0.1)
    assert symmetric.for_dataset("mnist") == symmetric
    with pytest.raises(errors.InvalidValueError, match=r"no map of classes is known for npz:own\.npz.*--label_map"):
        dataclasses.replace(noise, class_map=()).for_dataset("npz:own.npz")


def test_more_noise_of_a_seed_contains_less():
    small, large = noisy("symmetric", 0.1), noisy("symmetric", 0.4)
    where = small != _LABEL
    np.testing.assert_array_equal(small[where], large[where])


def test_another_seed_changes_other_examples_and_nothing_else_decides():
    first, again, other = noisy("symmetric", 0.5), noisy("symmetric", 0.5), noisy("symmetric", 0.5, seed=1)
    np.testing.assert_array_equal(first, again)
    # Independent halves: both change an example with probability 1/4.
    both = np.count_nonzero((first != _LABEL) & (other != _LABEL))
    assert abs(both - 1250) < 4 * np.sqrt(5000 * 3 / 16)


def test_noise_never_changes():
    # Recorded once; a change would break every zoo that is trained in part.
    digest = hashlib.sha256(noisy("symmetric", 0.2, seed=7, label=np.arange(1000) % 10).astype("<i8").tobytes())
    assert digest.hexdigest() == "159a9553b3e5a4dc040d5f24fb0c37190e6b79b7ae45c9cf53f63607f8c9d9ba"


def test_label_seeds_are_no_seeds_of_runs():
    # Both begin with the order of all examples; a common key would make subset and noise the same examples.
    keys = {label_noise._key(seed, "order") for seed in range(100)}
    assert not keys & {subsets.seed(("e", 0.5, run_id), "subset") for run_id in range(100)}
    changed = noisy("symmetric", 0.5) != _LABEL
    subset = np.zeros(5000, bool)
    subset[subsets.subset_indices("e", 0.5, 0, 5000)] = True
    assert abs(np.count_nonzero(changed & subset) - 1250) < 4 * np.sqrt(5000 * 3 / 16)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "uniform", "share": 0.1}, "--label_noise=uniform: expected one of none, symmetric"),
        ({"kind": "pair"}, "--label_noise=pair:None: expected a share"),
        ({"kind": "pair", "share": 0.1, "count": 3}, "--label_noise=pair:3: expected a share"),
        ({"kind": "pair", "share": 1.5}, "--label_noise=pair:1.5: expected a share"),
        ({"kind": "pair", "share": float("nan")}, "--label_noise=pair:nan"),
        ({"kind": "pair", "share": True}, "--label_noise=pair:True"),
        ({"kind": "pair", "count": -1}, "--label_noise=pair:-1"),
        ({"kind": "pair", "count": 2.0}, "--label_noise=pair:2.0"),
        ({"kind": "pair", "share": 0.1, "seed": -1}, "--label_seed=-1: expected a whole number"),
        ({"kind": "pair", "share": 0.1, "class_map": ((1, 2),)}, "--label_map: pair noise takes none"),
        ({"kind": "asymmetric", "share": 0.1, "class_map": ((1, 1),)}, "--label_map={1: 1}: expected other classes"),
        ({"kind": "asymmetric", "share": 0.1, "class_map": ((1, -2),)}, "--label_map={1: -2}"),
    ],
)
def test_impossible_noise_is_refused(options, message):
    with pytest.raises(errors.InvalidValueError) as caught:
        label_noise.LabelNoise(**options)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("noise", "num_classes", "message"),
    [
        (("pair", 0.5), 1, "the data set has the classes 0 to 0"),
        (("asymmetric", 0.5, 0, ((3, 10),)), 10, "the data set has the classes 0 to 9"),
        (("asymmetric", 0.9, 0, ((3, 4),)), 10, "4500 labels are to change, but only"),
        (("symmetric", 5001), 10, "5001 labels are to change, but only 5000 of 5000"),
    ],
)
def test_noise_that_does_not_fit_the_labels_is_refused(noise, num_classes, message):
    with pytest.raises(errors.InvalidValueError) as caught:
        noisy(*noise, num_classes=num_classes)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("none", None),
        ("symmetric:0.2", label_noise.LabelNoise("symmetric", share=0.2, seed=5)),
        ("pair:1.0", label_noise.LabelNoise("pair", share=1.0, seed=5)),
        ("pair:1", label_noise.LabelNoise("pair", count=1, seed=5)),
        ("asymmetric:.3", label_noise.LabelNoise("asymmetric", share=0.3, seed=5)),
    ],
)
def test_noise_of_a_flag(text, expected):
    assert label_noise.parse(text, 5) == expected


def test_a_map_of_a_flag():
    noise = label_noise.parse("asymmetric:3", 5, {"7": 1, "2": 7})
    assert noise.class_map == ((2, 7), (7, 1))
    assert label_noise.LabelNoise.from_json(noise.to_json()) == noise


@pytest.mark.parametrize(
    ("text", "stored_map", "message"),
    [
        ("symmetric", {}, "--label_noise=symmetric: expected none, or a kind"),
        ("symmetric:a", {}, "--label_noise=symmetric:a: expected none, or a kind"),
        ("symmetric:-0.1", {}, "expected none, or a kind"),
        ("other:0.1", {}, "--label_noise=other: expected one of none"),
        ("none", {"1": 2}, "--label_map: there is no noise to map"),
        ("asymmetric:3", {"a": 2}, "--label_map={'a': 2}: expected classes by class"),
        ("asymmetric:3", {"1": "2"}, "--label_map={'1': '2'}: expected classes by class"),
    ],
)
def test_unreadable_flags_are_refused(text, stored_map, message):
    with pytest.raises(errors.InvalidValueError) as caught:
        label_noise.parse(text, 0, stored_map)
    assert message in str(caught.value)


@pytest.mark.parametrize("value", [{}, {"kind": "pair"}])
def test_json_without_its_members_is_refused(value):
    with pytest.raises(errors.InvalidValueError, match="expected the members"):
        label_noise.LabelNoise.from_json(value)


def test_a_data_set_keeps_all_but_its_training_labels():
    clean = cases.tiny_digits()
    changed = label_noise.apply(label_noise.LabelNoise("pair", count=11), clean)
    assert np.count_nonzero(changed.train.label != clean.train.label) == 11
    assert changed.train.images is clean.train.images
    assert changed.test is clean.test
    assert dataset_lib.label_sha256(clean.train.label) == dataset_lib.label_sha256(cases.tiny_digits().train.label)


def test_labels_are_written_once_with_the_mask_of_the_changed(tmp_path):
    clean = cases.tiny_digits()
    changed = label_noise.apply(label_noise.LabelNoise("pair", count=11), clean)
    path = tmp_path / "labels.npz"
    label_noise.write_labels(path, clean, changed)
    before = path.stat().st_mtime_ns
    label_noise.write_labels(path, clean, changed)
    assert path.stat().st_mtime_ns == before
    with np.load(path) as stored:
        np.testing.assert_array_equal(stored["train_label"], changed.train.label)
        np.testing.assert_array_equal(stored["clean_train_label"], clean.train.label)
        np.testing.assert_array_equal(stored["is_changed"], changed.train.label != clean.train.label)
        np.testing.assert_array_equal(stored["test_label"], clean.test.label)
        arrays = dict(stored)
    arrays["train_label"][3] += 1
    npz.write(path, arrays)
    with pytest.raises(errors.MismatchError, match=r"labels\.npz: holds other labels.*delete it"):
        label_noise.write_labels(path, clean, changed)


_BY_CLASS = np.repeat(np.arange(4), (100, 50, 7, 20))


def _conditional(seed=0, **rows):
    stored = {name.strip("_"): row for name, row in rows.items()}
    return label_noise.parse("class_conditional", seed, stored)


def test_class_conditional_noise_changes_exact_shares_of_each_class():
    noise = _conditional(_0={"1": 0.3, "3": 0.125}, _2={"0": 0.5}, _3={"2": 1})
    changed = label_noise.noisy_labels(noise, _BY_CLASS, 4)
    counts = np.zeros((4, 4), int)
    np.add.at(counts, (_BY_CLASS, changed), 1)
    # Shares of a class are added up and then rounded: 30 and 42.5 of 100, 3.5 of 7.
    assert counts.tolist() == [[58, 30, 0, 12], [0, 50, 0, 0], [4, 0, 3, 0], [0, 0, 20, 0]]
    assert noise.num_changed(_BY_CLASS) == np.sum(changed != _BY_CLASS) == 66


def test_class_conditional_noise_follows_its_seed_and_larger_shares_change_the_same_examples():
    few = label_noise.noisy_labels(_conditional(_0={"1": 0.2}), _BY_CLASS, 4)
    many = label_noise.noisy_labels(_conditional(_0={"1": 0.4}), _BY_CLASS, 4)
    other = label_noise.noisy_labels(_conditional(1, _0={"1": 0.2}), _BY_CLASS, 4)
    assert np.all(many[few != _BY_CLASS] == 1)
    assert np.any(other != few)


def test_class_conditional_noise_is_stored_and_read_again():
    noise = _conditional(3, _0={"1": 0.3, "3": 0.1})
    stored = json.loads(json.dumps(noise.to_json()))
    assert stored["transitions"] == {"0": {"1": 0.3, "3": 0.1}}
    assert label_noise.LabelNoise.from_json(stored) == noise
    assert (noise.amount(), noise.map_json()) == ("", stored["transitions"])
    assert "transitions" not in label_noise.parse("pair:3", 0).to_json()


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({}, "expected shares above 0 of each class"),
        ({"0": {"0": 0.1}}, "expected shares above 0 of each class"),
        ({"0": {"1": 0}}, "expected shares above 0 of each class"),
        ({"0": {"1": 0.6, "2": 0.6}}, "together 1 at most"),
        ({"0": 1}, "expected shares by new class by class"),
        ({"0": {}}, "expected shares by new class by class"),
        ({"x": {"1": 0.5}}, "expected shares by new class by class"),
        ({"0": {"1": 2}}, "expected shares by new class by class"),
    ],
)
def test_shares_between_classes_that_cannot_be(given, reason):
    with pytest.raises(errors.InvalidValueError, match=reason):
        label_noise.parse("class_conditional", 0, given)


def test_shares_between_classes_are_of_their_own_kind_and_of_classes_that_are_there():
    with pytest.raises(errors.InvalidValueError, match="go with --label_noise=class_conditional"):
        label_noise.LabelNoise("pair", share=0.1, transitions=((0, 1, 0.1),))
    with pytest.raises(errors.InvalidValueError, match="no share or number behind the kind"):
        label_noise.LabelNoise("class_conditional", share=0.1, transitions=((0, 1, 0.1),))
    with pytest.raises(errors.InvalidValueError, match="the data set has the classes 0 to 3"):
        label_noise.noisy_labels(_conditional(_0={"4": 0.1}), _BY_CLASS, 4)
