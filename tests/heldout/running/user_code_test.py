"""Functions of the user's own: found by name, or refused with the reason."""

import json

import pytest

from heldout.running import user_code
from zoo import errors


def test_a_function_is_found_by_its_name():
    assert user_code.load("json:dumps", "--model=json:dumps") is json.dumps


@pytest.mark.parametrize(("name", "expected"), [("json:dumps", True), ("json", False), (":x", False), ("x:", False)])
def test_names_have_a_module_and_an_attribute(name, expected):
    assert user_code.is_name(name) is expected


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("json", r"--flag: expected package\.module:callable"),
        ("no_such_package:f", "--flag: cannot be imported .*no_such_package.*PYTHONPATH"),
        ("json:nothing", "--flag: cannot be imported .*nothing"),
        ("json:__name__", "--flag: is a str; expected a callable"),
    ],
)
def test_other_names_are_refused(name, reason):
    with pytest.raises(errors.InvalidValueError, match=reason):
        user_code.load(name, "--flag")
