"""Old command lines and environment variables mean what they meant."""

import pytest

from scripts import old_command_lines
from zoo import errors


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    for variable in old_command_lines.VARIABLES:
        monkeypatch.delenv(variable, raising=False)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("--label-noise=0.1", "--label_noise=0.1"),
        ("--lr-warmup-epochs", "--lr_warmup_epochs"),
        ("-label-noise=1", "-label_noise=1"),
        ("--data_dir=/a-b/c-d", "--data_dir=/a-b/c-d"),
        ("--data-dir=/a-b/c=d-e", "--data_dir=/a-b/c=d-e"),
        ("--no-progress", "--noprogress"),
        ("--noprogress", "--noprogress"),
        ("-1e-3", "-1e-3"),
        ("some-value", "some-value"),
        ('--options={\n"a-b": 1}', '--options={\n"a-b": 1}'),
    ],
)
def test_hyphens_in_names_are_underscores(given, expected):
    assert old_command_lines.with_underscores(["the-program", given]) == ["the-program", expected]


def test_what_follows_two_hyphens_is_no_flag():
    argv = ["program", "--a-b", "--", "--c-d"]
    assert old_command_lines.with_underscores(argv) == ["program", "--a_b", "--", "--c-d"]


def test_variables_are_defaults(monkeypatch):
    assert old_command_lines.defaults_from_environment() == {}
    for variable, value in {"SAVE_DIR": "/tmp/x", "NAME": "n", "DEVICE": "cuda:0", "WORKERS": "4"}.items():
        monkeypatch.setenv(variable, value)
    found = old_command_lines.defaults_from_environment()
    assert found == {"save_dir": "/tmp/x", "name": "n", "device": "gpu", "workers": "4"}
    old_command_lines.check_environment()


@pytest.mark.parametrize(("variable", "value"), [("DEVICE", "abacus"), ("WORKERS", "0"), ("WORKERS", "many")])
def test_a_variable_that_cannot_be_is_no_default_and_is_refused(monkeypatch, variable, value):
    monkeypatch.setenv(variable, value)
    assert old_command_lines.defaults_from_environment() == {}
    with pytest.raises(errors.InvalidValueError, match=f"{variable}={value}"):
        old_command_lines.check_environment()
