"""Files appear whole or not at all, and damaged JSON is refused."""

import hashlib

import pytest

from zoo import errors, files


def test_write_whole_replaces_and_creates_folders(tmp_path):
    target = tmp_path / "new" / "file.txt"
    files.write_text(target, "one")
    files.write_text(target, "two")
    assert target.read_text() == "two"
    assert [path.name for path in target.parent.iterdir()] == ["file.txt"]


def test_write_whole_keeps_the_old_file_on_failure(tmp_path):
    target = tmp_path / "file.txt"
    target.write_text("old")

    def interrupted():
        with files.write_whole(target) as path:
            path.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert target.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_nothing_appears_before_the_end(tmp_path):
    with files.write_whole(tmp_path / "file.txt") as path:
        path.write_text("half")
        names = [entry.name for entry in tmp_path.iterdir()]
        assert len(names) == 1
        assert files.is_temporary(names[0])


def test_temporary_names_are_fresh_and_recognised(tmp_path):
    first, second = (files.temporary_beside(tmp_path / "ckpt-3") for _ in range(2))
    assert first != second
    assert first.parent == tmp_path
    assert not first.exists()
    assert files.is_temporary(first.name)
    assert not files.is_temporary("ckpt-3")
    assert not files.is_temporary("a.tmp-b")
    assert not files.is_temporary(".hidden")


def test_json_round_trip(tmp_path):
    value = {"name": "Ω", "ratios": [0.1, 0.7], "none": None}
    files.write_json(tmp_path / "a.json", value)
    assert files.read_json(tmp_path / "a.json") == value
    assert (tmp_path / "a.json").read_bytes().endswith(b"}\n")


def test_write_json_refuses_nan(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(tmp_path / "a.json", {"x": float("nan")})
    assert not list(tmp_path.iterdir())


def test_read_json_of_nothing(tmp_path):
    with pytest.raises(errors.MissingFileError, match="no such file"):
        files.read_json(tmp_path / "none.json")


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b"[" * 100_000])
def test_read_json_refuses_what_is_no_json(tmp_path, data):
    (tmp_path / "a.json").write_bytes(data)
    with pytest.raises(errors.DamagedFileError, match=r"a\.json: not valid JSON"):
        files.read_json(tmp_path / "a.json")


def test_read_json_refuses_what_is_no_object(tmp_path):
    (tmp_path / "a.json").write_text("[1]")
    with pytest.raises(errors.DamagedFileError, match="expected a JSON object, found list"):
        files.read_json(tmp_path / "a.json")


def test_sha256(tmp_path):
    data = bytes(range(256)) * 1000
    (tmp_path / "a").write_bytes(data)
    assert files.sha256_of_file(tmp_path / "a") == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (168_000, "168 kB"), (999_600, "1.0 MB"), (239 * 10**9, "239 GB")],
)
def test_sizes_for_people(num_bytes, text):
    assert files.size_text(num_bytes) == text
