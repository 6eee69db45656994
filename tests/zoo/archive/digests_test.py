"""Digests whose state goes through JSON are those of hashlib and google_crc32c."""

import hashlib
import json

import google_crc32c
import pytest

from zoo import errors
from zoo.archive import digests

DATA = bytes(range(256)) * 1001


@pytest.mark.parametrize("cut", [0, 1, 63, 64, 65, 100_000, len(DATA)])
def test_a_restart_changes_nothing(cut):
    sums = digests.StreamDigests()
    sums.update(DATA[:cut])
    sums = digests.StreamDigests.from_state(json.loads(json.dumps(sums.state())))
    sums.update(DATA[cut:])
    assert sums.num_bytes == len(DATA)
    assert sums.md5_hex() == hashlib.md5(DATA).hexdigest()
    assert sums.crc32c == google_crc32c.value(DATA)


def test_the_state_is_a_copy():
    sums = digests.StreamDigests()
    state = sums.state()
    sums.update(b"more")
    assert digests.StreamDigests.from_state(state).md5_hex() == hashlib.md5(b"").hexdigest()


def test_asking_for_the_digest_does_not_end_it():
    sums = digests.StreamDigests()
    sums.update(b"a")
    assert sums.md5_hex() == hashlib.md5(b"a").hexdigest()
    sums.update(b"b")
    assert sums.md5_hex() == hashlib.md5(b"ab").hexdigest()


class TestWithoutLibcrypto:
    @pytest.fixture(autouse=True)
    def _no_library(self, monkeypatch):
        digests._library.cache_clear()
        monkeypatch.setattr("ctypes.util.find_library", lambda name: None)
        yield
        digests._library.cache_clear()

    def test_md5_is_that_of_hashlib_as_long_as_the_process_lives(self):
        sums = digests.StreamDigests()
        sums.update(DATA)
        assert sums.md5_hex() == hashlib.md5(DATA).hexdigest()

    def test_after_a_restart_md5_is_not_known_and_crc32c_is(self):
        sums = digests.StreamDigests()
        sums.update(DATA)
        sums = digests.StreamDigests.from_state(json.loads(json.dumps(sums.state())))
        sums.update(b"x")
        assert sums.md5_hex() is None
        assert sums.crc32c == google_crc32c.value(DATA + b"x")

    def test_a_restart_before_the_first_byte_loses_nothing(self):
        sums = digests.StreamDigests.from_state(digests.StreamDigests().state())
        sums.update(b"x")
        assert sums.md5_hex() == hashlib.md5(b"x").hexdigest()


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"num_bytes": 1, "crc32c": 0, "md5": "not base64!"},
        {"num_bytes": 1, "crc32c": 0, "md5": "AAAA"},
        {"num_bytes": -1, "crc32c": 0, "md5": None},
        {"num_bytes": 1, "crc32c": "0", "md5": None},
        [],
    ],
    ids=str,
)
def test_what_is_no_state_is_refused(state):
    with pytest.raises(errors.DamagedFileError, match="not the saved state of a digest"):
        digests.StreamDigests.from_state(state)
