"""Promises of every program: help that teaches, two ways to start it, a line in the README, one-line errors."""

import ast
import pathlib
import re
import subprocess
import sys

import pytest

_ROOT = pathlib.Path(__file__).parents[2]
# Other modules of scripts/ are what programs are made of.
_PROGRAMS = sorted(path.stem for path in (_ROOT / "scripts").glob("*.py") if "\nif __name__" in path.read_text())
# Started through the Makefile, not installed.
_NOT_INSTALLED = {"demo"}


def start(program, *arguments):
    return subprocess.run(
        [sys.executable, "-m", f"scripts.{program}", *arguments], capture_output=True, text=True, cwd=_ROOT, check=False
    )


@pytest.fixture(scope="module", params=_PROGRAMS)
def helped(request):
    return request.param, start(request.param, "--help")


def test_help_opens_with_a_command_that_runs_and_lists_every_flag(helped):
    program, result = helped
    assert result.returncode == 0
    assert f"python -m scripts.{program} " in result.stdout or f"python -m scripts.{program}\n" in result.stdout
    source = (_ROOT / "scripts" / f"{program}.py").read_text()
    flags = re.findall(r"flags\.DEFINE_\w+\(\s*\"(\w+)\"", source)
    declared = re.search(r"_SHARED_FLAGS = \(([^)]*)\)", source)
    flags += re.findall(r'"(\w+)"', declared[1]) if declared else []
    assert flags
    for flag in flags:
        assert re.search(rf"^  --(\[no\])?{flag}\b", result.stdout, re.MULTILINE), f"{flag} is not explained"
    for name in re.findall(r"common_flags\.([A-Z_]+)\.value", source):
        assert f'"{name.lower()}"' in declared[1], f"{name} is read but not declared"


def test_flags_of_the_command_in_the_help_exist(helped):
    program, result = helped
    command = next(line for line in result.stdout.splitlines() if f"-m scripts.{program}" in line)
    for flag in re.findall(r"--(\w+)", command):
        assert re.search(rf"^  --(\[no\])?{flag}\b", result.stdout, re.MULTILINE)


def test_unknown_flags_and_arguments_are_refused_in_a_line(helped):
    program, _ = helped
    for argument in ("--no_such_flag=1", "stray"):
        result = start(program, argument)
        assert result.returncode == 2
        assert result.stderr.startswith("error: ")
        assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("program", "argument"),
    [("evaluate_run", "--zoo=z"), ("evaluate_run", "--experiment=e"), ("list_zoo", "--dataset=d")],
)
def test_flags_of_other_programs_are_refused(program, argument):
    result = start(program, argument)
    assert result.returncode == 2
    assert f"{argument.split('=')[0]} is not read by this program" in result.stderr


def test_every_program_is_installed_and_documented():
    packaging = (_ROOT / "setup.py").read_text()
    installed = set(ast.literal_eval(re.search(r"PROGRAMS = (\[.*?\])", packaging, re.DOTALL)[1]))
    assert installed == set(_PROGRAMS) - _NOT_INSTALLED
    readme = (_ROOT / "README.md").read_text()
    for program in installed:
        assert f"`{program}`" in readme or f"{program} " in readme
    assert "make demo" in readme


def test_every_program_has_a_smoke_test():
    smoke = (_ROOT / "tests" / "scripts" / "smoke_test.py").read_text()
    for program in _PROGRAMS:
        assert f'"{program}"' in smoke


@pytest.mark.parametrize(
    "program",
    [
        *("list_zoo", "zoo_status", "compute_scores", "render_report", "train_runs", "evaluate_run", "demo"),
        *("zoo_stream", "zoo_fetch", "zoo_download", "zoo_index", "zoo_verify", "zoo_pack"),
        *("build_indexed_tfrecords", "evaluate_zoo"),
    ],
)
def test_programs_answer_before_tensorflow_is_imported(program):
    code = f"import sys; import scripts.{program}; sys.exit('tensorflow' in sys.modules or 'sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=_ROOT, check=False).returncode == 0
