"""Command lines of networks: forms of older programs, and texts that become settings."""

import pytest

from heldout.experiments import label_noise
from scripts.model_training import command_lines
from zoo import errors


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["--label-noise=0.1"], ["--label_noise=0.1"]),
        (["--label-noise", "0.1"], ["--label_noise", "0.1"]),
        (["--augmentation"], ["--augmentation=crop,flip"]),
        (["--augmentation", "--seed=1"], ["--augmentation=crop,flip", "--seed=1"]),
        (["--augmentation", "flip"], ["--augmentation", "flip"]),
        (["--no-augmentation"], ["--augmentation=none"]),
        (["--no-progress"], ["--noprogress"]),
        (["--data-dir=/a-b/c"], ["--data_dir=/a-b/c"]),
    ],
)
def test_forms_of_older_programs(given, expected):
    assert command_lines.rewritten(["program-name", *given]) == ["program-name", *expected]


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([], ()),
        (["none"], ()),
        (["False"], ()),
        (["true"], ("crop", "flip")),
        (["flip", "crop"], ("crop", "flip")),
        (["flip"], ("flip",)),
        (["blur"], ("blur",)),
        (["flip", "flip"], ("flip", "flip")),
    ],
)
def test_augmentation(parts, expected):
    assert command_lines.augmentation(parts) == expected


@pytest.mark.parametrize(
    ("text", "kind", "amount"),
    [
        ("0.2", "symmetric", 0.2),
        (".15", "symmetric", 0.15),
        ("1.0", "symmetric", 1.0),
        ("1.", "symmetric", 1.0),
        ("pair:0.1", "pair", 0.1),
        ("symmetric:300", "symmetric", 300),
    ],
)
def test_a_share_alone_is_symmetric_noise(text, kind, amount):
    found = command_lines.noise(text, 5, {})
    assert (found.kind, found.seed) == (kind, 5)
    assert amount in (found.share, found.count)


@pytest.mark.parametrize("text", ["none", "0", "0.0", ".0", "0.", "00"])
def test_no_noise_has_several_names(text):
    assert command_lines.noise(text, 5, {}) is None


def test_a_map_goes_with_asymmetric_noise_only():
    assert command_lines.noise("asymmetric:0.1", 0, {"1": 2}).class_map == ((1, 2),)
    assert command_lines.noise("pair:0.1", 0, {"1": 2}) == label_noise.LabelNoise("pair", share=0.1)


@pytest.mark.parametrize("text", ["5", "1.5", "loud:0.1", "symmetric"])
def test_other_noises_are_refused(text):
    with pytest.raises(errors.InvalidValueError, match="--label_noise="):
        command_lines.noise(text, 0, {})


def test_what_validates_where_nothing_is_said():
    assert command_lines.val_split("auto", "cifar10") == 1000
    assert command_lines.val_split("auto", "digits") == 0
    assert command_lines.val_split("0.1", "cifar10") == 0.1
    assert command_lines.val_split("rest", "digits") is None


def test_widths_stay_in_order():
    assert command_lines.widths("4,1, 16") == (4, 1, 16)


@pytest.mark.parametrize("text", ["", "0", "1,x", "2,2", "-1", "1:4"])
def test_other_widths_are_refused(text):
    with pytest.raises(errors.InvalidValueError, match=r"--widths=.*expected widths above 0, each once"):
        command_lines.widths(text)
