"""zlib-ng is taken where it works, else the system's zlib, and both inflate alike."""

import ctypes
import ctypes.util
import dataclasses

import pytest

from tests.zoo.archive import gzips
from zoo import errors
from zoo.archive import gzip_stream, zlib_library


@pytest.fixture(autouse=True)
def _fresh_choice():
    zlib_library.functions.cache_clear()
    yield
    zlib_library.functions.cache_clear()


def without_zlib_ng(monkeypatch):
    monkeypatch.setattr(zlib_library, "_zlib_ng", lambda: None)


def everything(content):
    """Output and boundaries of a gzip file."""
    inflater = gzip_stream.GzipInflater()
    batches = list(inflater.feed(content))
    inflater.finish()
    return b"".join(bytes(batch.data) for batch in batches), [place for batch in batches for place in batch.boundaries]


def test_zlib_ng_is_taken():
    assert zlib_library.functions().name == "zlib-ng"


@pytest.mark.parametrize("level", [0, 1, 6, 9])
def test_both_libraries_inflate_alike(monkeypatch, level):
    content = gzips.member(gzips.mixed(300_000), level)
    expected = everything(content)
    without_zlib_ng(monkeypatch)
    zlib_library.functions.cache_clear()
    assert zlib_library.functions().name == "zlib"
    assert everything(content) == expected


@pytest.mark.parametrize("spoil", ["init", "inflate", "set_dictionary"])
def test_a_library_that_does_something_else_is_passed_over(monkeypatch, spoil):
    right = zlib_library._zlib_ng()
    assert zlib_library._works(right)
    wrong = dataclasses.replace(right, **{spoil: lambda *_: -2})
    assert not zlib_library._works(wrong)
    monkeypatch.setattr(zlib_library, "_zlib_ng", lambda: wrong)
    assert zlib_library.functions().name == "zlib"


def test_a_library_that_ignores_blocks_is_passed_over():
    right = zlib_library._zlib_ng()
    ignoring = dataclasses.replace(right, inflate=lambda stream, flush: right.inflate(stream, 0))
    assert not zlib_library._works(ignoring)


def test_an_extension_without_the_functions_is_passed_over(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: dataclasses.make_dataclass("S", ["origin"])(None))
    assert zlib_library._zlib_ng() is None
    path = ctypes.util.find_library("m")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: dataclasses.make_dataclass("S", ["origin"])(path))
    assert zlib_library._zlib_ng() is None


def test_libraries_without_the_functions_are_passed_over(monkeypatch):
    without_zlib_ng(monkeypatch)
    names = [ctypes.util.find_library("m"), *zlib_library._system_names()]
    monkeypatch.setattr(zlib_library, "_system_names", lambda: names)
    assert zlib_library.functions().name == "zlib"


def test_no_library_is_an_error_with_a_repair(monkeypatch):
    without_zlib_ng(monkeypatch)
    monkeypatch.setattr(zlib_library, "_system_names", lambda: ["/nowhere/libz.so"])
    with pytest.raises(errors.MissingFileError, match=r"pip install zlib-ng.*zlib1g"):
        zlib_library.functions()
