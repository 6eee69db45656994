"""Members are judged by what is in them, wherever the halves of a checkpoint lie, and from any saved state on."""

import json
import pathlib
import re
import zlib

import numpy as np
import pytest

from tests.zoo.archive import archives, passes
from zoo import errors, layout, run_scan
from zoo.archive import contents, names

RECORD = "e/0.5/1/aux_arrays.npz"
INDEX, DATA = (f"e/0.5/1/checkpoints/ckpt-3{suffix}" for suffix in (".index", ".data-00000-of-00001"))


class Results:
    """Takes members one after the other and keeps what is found out about them."""

    def __init__(self, add_row=None):
        self.rows, self.kept, self.ends, self.verdicts = [], [], [], {}
        self._add_row = add_row or self.rows.append
        self.contents = self.fresh()

    def fresh(self):
        return contents.Contents(self._add_row, lambda part, content: self.kept.append((part, content)))

    def pass_by(self, name, content, piece_bytes=None, size=None):
        """Returns what is known at the end of the member; its number is its place."""
        member_id, step = len(self.ends), piece_bytes or len(content) or 1
        self.contents.begin(member_id, names.classify(name), len(content) if size is None else size, "e")
        for start in range(0, len(content), step):
            self.contents.add(memoryview(content)[start : start + step])
            if piece_bytes:
                self.save_and_restore()
        crc32, state, reason = self.contents.end()
        assert crc32 == zlib.crc32(content)
        self.ends.append((state, reason))
        for verdict in self.contents.take_verdicts():
            self.verdicts[verdict.member_id] = verdict.state, verdict.reason
        if piece_bytes:
            self.save_and_restore()
        return state, reason

    def save_and_restore(self):
        """What a kill and another process do."""
        values, blobs = self.contents.state()
        num_held = self.contents.num_held
        self.contents = self.fresh()
        self.contents.restore(json.loads(json.dumps(values)), blobs)
        assert self.contents.num_held == num_held


def test_a_sound_record_gives_its_row():
    results, record = Results(), archives.record(7)
    assert results.pass_by(RECORD, record) == ("sound", "")
    expected = run_scan.row_from_record(layout.Run(pathlib.Path(), "e", 0.5, 1), record)
    (row,) = results.rows
    assert (row.run, row.sizes, row.source_size) == (expected.run, expected.sizes, len(record))
    for field in ("subset_mask_bits", "train_correctness_bits", "test_correctness_bits", "source_sha256"):
        np.testing.assert_array_equal(getattr(row, field), getattr(expected, field))


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (lambda: archives.record(7, ratio=0.9), r"trained on 19 of 21 examples, but lies under 0\.5"),
        (lambda: b"no npz", "not a sound npz file"),
        (lambda: archives.record(7)[:-100], "not a sound npz file"),
        (lambda: archives.npz_bomb(300 << 20), "its arrays declare 314572672 bytes, the limit is 268435456"),
    ],
)
def test_other_records_are_damaged_and_named(record, reason):
    results = Results()
    state, found = results.pass_by(RECORD, record())
    assert state == "damaged"
    assert found.startswith("e/0.5/1/aux_arrays.npz: ")
    assert re.search(reason, found)
    assert results.rows == []


def test_what_is_too_large_is_not_held(monkeypatch):
    for part in contents.LARGEST:
        monkeypatch.setitem(contents.LARGEST, part, 1000)
    results = Results()
    for name, state in ((RECORD, "refused"), ("e/recipe.json", "refused"), (INDEX, "unchecked"), (DATA, "unchecked")):
        results.contents.begin(0, names.classify(name), 1001, "e")
        results.contents.add(memoryview(bytes(1001)))
        assert results.contents.num_held == 0
        assert results.contents.end()[1] == state
    state, reason = results.pass_by(RECORD, bytes(1001))
    assert (state, reason) == ("refused", "0.5/1/aux_arrays.npz: larger than 1.0 kB")


def test_members_of_no_interest_are_not_held():
    results = Results()
    for name in ("e/readme.txt", "e/run_table.npz", "e/0.5/1/model.h5"):
        assert results.pass_by(name, b"content") == ("unchecked", "")
        assert results.pass_by(name, b"") == ("unchecked", "")
    assert results.contents.num_held == 0


def test_a_recipe_is_kept_if_it_is_a_json_object():
    results = Results()
    assert results.pass_by("e/recipe.json", b'{"seed": 1}') == ("unchecked", "")
    for content in (b"[1]", b"{", b"\xff", b"[" * 100_000, b""):
        assert results.pass_by("e/recipe.json", content) == ("damaged", "recipe.json: not a JSON object")
    assert [(name.folder, content) for name, content in results.kept] == [("e", b'{"seed": 1}')]


@pytest.mark.parametrize("names_in_order", [(INDEX, DATA), (DATA, INDEX)])
@pytest.mark.parametrize("piece_bytes", [None, 100])
def test_a_checkpoint_is_proved_by_its_second_half(names_in_order, piece_bytes):
    results, halves = Results(), dict(zip((INDEX, DATA), passes.checkpoint(5), strict=True))
    assert results.pass_by(names_in_order[0], halves[names_in_order[0]], piece_bytes) == ("unchecked", "")
    results.pass_by("e/between.txt", b"between", piece_bytes)
    assert results.pass_by(names_in_order[1], halves[names_in_order[1]], piece_bytes) == ("sound", "")
    assert results.verdicts == {0: ("sound", "")}
    assert results.contents.num_held == 0


@pytest.mark.parametrize("data_first", [False, True])
def test_a_damaged_half_is_named_and_the_other_judged_for_itself(data_first):
    index_content, data = passes.checkpoint(5)
    for damaged, expected in (
        (INDEX, {INDEX: "damaged", DATA: "unchecked"}),
        (DATA, {INDEX: "sound", DATA: "damaged"}),
    ):
        results, halves = Results(), {INDEX: bytearray(index_content), DATA: bytearray(data)}
        halves[damaged][20] ^= 1
        order = (DATA, INDEX) if data_first else (INDEX, DATA)
        for name in order:
            results.pass_by(name, bytes(halves[name]))
        found = dict(zip(order, (results.verdicts[0], results.ends[1]), strict=True))
        assert {name: state for name, (state, _) in found.items()} == expected
        assert "0.5/1/checkpoints/ckpt-3" in found[damaged][1]
        assert "again" not in found[damaged][1]  # what is in an archive is not fetched or trained again


def checkpoint_names(run_id):
    return [name.replace("/1/", f"/{run_id}/") for name in (INDEX, DATA)]


def test_halves_far_apart_are_given_up_the_longest_wait_first(monkeypatch):
    halves = {run_id: passes.checkpoint(run_id) for run_id in range(6)}
    index_bytes = len(halves[0][0])
    monkeypatch.setattr(contents, "MAX_WAITING", 4 * index_bytes)
    results = Results()
    for run_id in range(6):
        results.pass_by(checkpoint_names(run_id)[0], halves[run_id][0])
        assert results.contents.num_held == min(run_id + 1, 4) * index_bytes
    for run_id in (5, 2, 0, 3, 4, 1):
        results.pass_by(checkpoint_names(run_id)[1], halves[run_id][1])
        results.save_and_restore()
        assert results.contents.num_held <= 4 * index_bytes
    assert results.verdicts.keys() == {5, 2}
    assert [state for state, _ in results.ends[6:]] == ["sound", "sound", *["unchecked"] * 4], "a data file is larger"


def test_order_of_giving_up_outlives_a_restart(monkeypatch):
    halves = {run_id: passes.checkpoint(run_id) for run_id in range(4)}
    monkeypatch.setattr(contents, "MAX_WAITING", 3 * len(halves[0][0]))
    results = Results()
    for run_id in (2, 0, 1):
        results.pass_by(checkpoint_names(run_id)[0], halves[run_id][0], piece_bytes=50)
    results.pass_by(checkpoint_names(3)[0], halves[3][0], piece_bytes=50)
    results.contents.begin(9, names.classify(checkpoint_names(0)[1]), 1, "e")
    values, _ = results.contents.state()
    assert [run_id for _, run_id, *_ in values["waiting"]] == [0, 1, 3]


def test_the_same_half_twice_counts_once():
    results, (index_content, data) = Results(), passes.checkpoint(5)
    results.pass_by(INDEX, b"another")
    results.pass_by(INDEX, index_content)
    assert results.contents.num_held == len(index_content)
    assert results.pass_by(DATA, data) == ("sound", "")
    assert results.contents.num_held == 0


def test_what_a_journal_raises_is_no_damage_of_the_record():
    def fail(row):
        raise errors.DamagedFileError("journal: cannot be continued")

    with pytest.raises(errors.DamagedFileError, match="journal: cannot be continued"):
        Results(fail).pass_by(RECORD, archives.record(7))


def test_a_member_that_breaks_off_is_forgotten():
    results = Results()
    results.contents.begin(0, names.classify(RECORD), 5000, "e")
    results.contents.add(memoryview(bytes(300)))
    assert results.contents.num_held == 300
    results.contents.abandon()
    assert results.contents.num_held == 0
    results.save_and_restore()
    assert results.pass_by(RECORD, archives.record(7)) == ("sound", "")


def test_any_state_can_be_gone_on_from():
    halves = passes.checkpoint(5, num_values=60)
    for piece_bytes in (1, 37):
        results = Results()
        results.pass_by(INDEX, halves[0], piece_bytes)
        results.pass_by(RECORD, archives.record(7), max(piece_bytes, 11))
        results.pass_by(DATA, halves[1], piece_bytes)
        assert [state for state, _ in results.ends] == ["unchecked", "sound", "sound"]
        assert results.verdicts == {0: ("sound", "")}
        assert len(results.rows) == 1
