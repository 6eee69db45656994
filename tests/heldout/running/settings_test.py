"""Differences of settings name every value that changed, and nothing else."""

from heldout.running import settings


def test_each_changed_value_has_a_line_under_its_nested_name():
    stored = {"a": 1, "training": {"rate": 0.1, "steps": [1, 2]}, "gone": "x"}
    asked = {"a": 1, "training": {"rate": 0.2, "steps": [1, 2]}, "new": None, "other": 3}
    assert settings.differences(stored, asked).split("\n") == [
        "  training.rate: stored 0.1, asked for 0.2",
        "  gone: stored 'x', asked for None",
        "  other: stored None, asked for 3",
    ]


def test_ignored_names_and_equal_settings_give_nothing():
    assert settings.differences({"a": 1, "b": 2}, {"a": 1, "b": 3}, ignored=("b",)) == ""


def test_what_is_no_mapping_has_no_values_and_long_lists_are_cut():
    assert settings.differences(None, {"a": 1}) == "  a: stored None, asked for 1"
    line = settings.differences({}, {"ids": list(range(1000))})
    assert line.endswith("...")
    assert len(line) < 200


def test_digests_are_not_shown():
    stored, asked = "0123456789abcdef" * 4, "fedcba9876543210" * 4
    expected = "  weights: other content than what was stored, by its digest"
    assert settings.differences({"weights": stored}, {"weights": asked}) == expected
    assert "stored None" in settings.differences({}, {"weights": asked})
