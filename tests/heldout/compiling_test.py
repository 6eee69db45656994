"""Functions that compile at their first call: when they do, what they see, where they are kept, and who waits."""

import concurrent.futures
import importlib.util
import os
import pathlib
import subprocess
import sys
import threading
import time

import numba
import numpy as np
import pytest

from heldout import compiling

_ROOT = pathlib.Path(__file__).parents[2]
_SOURCE = """
from heldout import compiling

FACTOR = 3


def plain(value):
    return value


@compiling.later
def total(values, offset=0.5):
    '''Sum of scaled values.'''
    result = offset
    for value in values:
        result += scaled(value)
    return result


@compiling.later
def scaled(value):
    return FACTOR * square(value)


@compiling.later
def square(value):
    return value * value


@compiling.later
def spin(state, steps):
    for _ in range(steps):
        state ^= state << 13
        state ^= state >> 7
        state ^= state << 17
    return state
"""


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "code" / "compiled_later.py"
    path.parent.mkdir()
    path.write_text(_SOURCE, encoding="utf-8")
    return path


@pytest.fixture
def module(source, tmp_path, monkeypatch):
    """A new module of functions in waiting, whose compiled code is kept in the folder `kept`."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "kept"))
    return load(source)


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def is_compiled(function):
    return "compiled" in vars(function)


def python(code, **environment):
    """Output of a new process."""
    found = subprocess.run(
        [sys.executable, "-c", code],
        check=False,
        capture_output=True,
        text=True,
        cwd=_ROOT,
        env={**os.environ, "PYTHONPATH": str(_ROOT), **environment},
    )
    assert found.returncode == 0, found.stderr
    return found.stdout.strip()


def test_nothing_is_compiled_before_the_first_call(module):
    functions = (module.total, module.scaled, module.square)
    assert all(isinstance(function, compiling.Later) for function in functions)
    assert not any(is_compiled(function) for function in functions)
    assert module.square(5) == 25
    assert is_compiled(module.square)
    assert not is_compiled(module.total)


def test_helpers_of_the_module_are_found_and_compiled(module):
    """`total` calls `scaled`, which stands below it and calls `square`; `FACTOR` is no function."""
    values = np.array([1.0, 2.0, 4.0])
    assert module.total(values) == 0.5 + 3 * 21
    assert module.total(values, 2.0) == 2 + 3 * 21
    assert is_compiled(module.scaled)
    assert is_compiled(module.square)
    # Machine code, and not the interpreter behind a name.
    assert len(module.total.compiled.nopython_signatures) == 2
    assert module.total.compiled is module.total.compiled


def test_the_module_itself_keeps_its_functions_in_waiting(module):
    module.total(np.ones(2))
    assert isinstance(module.scaled, compiling.Later)
    assert module.total.py_func.__globals__ is vars(module)


def test_name_and_documentation_are_those_of_the_function(module):
    assert (module.total.__name__, module.total.__doc__) == ("total", "Sum of scaled values.")
    assert module.total.compiled.__name__ == "total"
    assert module.total.py_func(np.array([1.0, 2.0])) == module.total(np.array([1.0, 2.0])) == 15.5


def test_a_new_combination_of_types_compiles_anew(module):
    assert module.square(3) == 9
    assert module.square(0.5) == 0.25
    assert len(module.square.compiled.signatures) == 2


def test_what_is_no_function_is_refused():
    with pytest.raises(AssertionError):
        compiling.later(len)


def test_first_calls_of_several_threads_agree(module):
    barrier = threading.Barrier(4)

    def call(_):
        barrier.wait()
        return module.total(np.array([1.0, 2.0]))

    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        assert list(threads.map(call, range(4))) == [15.5] * 4


@pytest.mark.parametrize("kept", [True, False])
def test_other_threads_go_on_meanwhile(module, source, monkeypatch, kept):
    if not kept:
        without_any_folder(source, monkeypatch)
    module.spin(np.uint64(1), 1)
    seconds, steps = 0.0, 1 << 24
    while seconds < 0.2:
        steps *= 2
        start = time.monotonic()
        module.spin(np.uint64(1), steps)
        seconds = time.monotonic() - start
    worker = threading.Thread(target=module.spin, args=(np.uint64(1), steps))
    worker.start()
    ticks = 0
    while worker.is_alive():
        time.sleep(0.001)
        ticks += 1
    # With the lock held the first tick would be the last or the last but one.
    assert ticks >= 10


def test_compiled_code_is_kept_for_the_next_process(source, tmp_path):
    code = (
        f"import sys; sys.path.insert(0, {str(source.parent)!r})\n"
        "import compiled_later as module\n"
        "assert module.scaled(2.0) == 12\n"
        "print(sum(module.scaled.compiled.stats.cache_hits.values()))"
    )
    kept = tmp_path / "kept"
    assert python(code, NUMBA_CACHE_DIR=str(kept)) == "0"
    found = {path.name.split("-")[0] for path in kept.rglob("*.nbi")}
    assert found == {"compiled_later.scaled", "compiled_later.square"}
    assert python(code, NUMBA_CACHE_DIR=str(kept)) == "1"


_CALLER = """
from heldout import compiling
import compiled_later

square = compiled_later.square


@compiling.later
def fourth(value):
    return twice(value)


@compiling.later
def twice(value):
    return square(square(value))
"""


def test_code_that_calls_into_another_module_follows_its_source(source, tmp_path):
    (source.parent / "caller.py").write_text(_CALLER, encoding="utf-8")
    code = (
        f"import sys; sys.path.insert(0, {str(source.parent)!r})\n"
        "import caller\n"
        "print(caller.fourth(2.0), sum(caller.fourth.compiled.stats.cache_hits.values()))"
    )
    kept = {"NUMBA_CACHE_DIR": str(tmp_path / "kept"), "PYTHONDONTWRITEBYTECODE": "1"}
    assert python(code, **kept) == "16.0 0"
    assert python(code, **kept) == "16.0 1"
    source.write_text(_SOURCE.replace("return value * value", "return value * value + 1"), encoding="utf-8")
    assert python(code, **kept) == "26.0 0"


def without_any_folder(source, monkeypatch):
    """Files stand where folders would have to be made, which stops even the superuser."""
    (source.parent / "__pycache__").write_bytes(b"")
    home = source.parent / "home"
    home.write_bytes(b"")
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))


def test_no_folder_to_keep_it_in_does_no_harm(source, monkeypatch):
    without_any_folder(source, monkeypatch)
    module = load(source)
    with pytest.raises(RuntimeError, match="cannot cache function"):
        numba.njit(cache=True)(module.square.py_func)
    assert module.total(np.array([1.0, 2.0])) == 15.5
    assert is_compiled(module.square)
    assert {path.name for path in source.parent.iterdir()} == {"__pycache__", "home", source.name}


def test_numba_waits_for_the_first_call():
    """Programs that compute nothing import the scores, all of their kernels among them, and pay nothing for numba."""
    code = (
        "import sys\n"
        "import heldout.scoring.score_files\n"
        "from heldout.scoring import device_counts, influence_extremes, influence_summary, joint_counts, run_words\n"
        "early = {'numba', 'llvmlite', 'tensorflow'} & set(sys.modules)\n"
        "run_words.ones.compiled\n"
        "print(sorted(early), 'numba' in sys.modules)"
    )
    assert python(code) == "[] True"


@pytest.mark.parametrize("suffix", ["nbi", "nbc"])
def test_a_damaged_cache_is_compiled_anew(source, tmp_path, suffix):
    """An empty file, as a full disk or a power cut leaves it."""
    code = (
        f"import sys; sys.path.insert(0, {str(source.parent)!r})\n"
        "import compiled_later as module\n"
        "print(module.scaled(2.0))"
    )
    kept = tmp_path / "kept"
    assert python(code, NUMBA_CACHE_DIR=str(kept)) == "12.0"
    for path in kept.rglob(f"*.{suffix}"):
        path.write_bytes(b"")
    assert python(code, NUMBA_CACHE_DIR=str(kept)) == "12.0"


def test_a_full_disk_does_no_harm(source, tmp_path):
    code = (
        f"import resource, sys; sys.path.insert(0, {str(source.parent)!r})\n"
        "import compiled_later as module\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\n"
        "print(module.scaled(2.0))"
    )
    assert python(code, NUMBA_CACHE_DIR=str(tmp_path / "kept"), PYTHONDONTWRITEBYTECODE="1") == "12.0"
