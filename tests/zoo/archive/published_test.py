"""Run table and index as their publisher made them, instead of a pass: the same files, or a clear refusal."""

import dataclasses
import json

import pytest

from tests.zoo.archive import packing
from tests.zoo.remote import fault_server
from zoo import errors, registry
from zoo.archive import indexing, lock, pack, published, scan
from zoo.remote import source

FAST = source.Options(num_tries=2, backoff_s=0.01, timeout_s=2.0)


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """A folder as `zoo_pack` leaves it."""
    folder = tmp_path_factory.mktemp("packed")
    zoo = packing.make_zoo(folder / "zoo")
    pack.pack(zoo, "e", folder / "out")
    return folder / "out"


@pytest.fixture
def served(packed, tmp_path):
    """A server with a copy of the packed files."""
    folder = tmp_path / "served"
    folder.mkdir()
    for path in packed.iterdir():
        if not path.name.startswith("."):
            (folder / path.name).write_bytes(path.read_bytes())
    with fault_server.FaultServer(folder) as server:
        yield server


def entry(server):
    return registry.find("e", server.url("e.json"), FAST)


def names(folder):
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


def test_it_is_what_a_pass_gives_and_costs_little(served, tmp_path):
    known = entry(served)
    before, calls = served.bytes_sent, []
    places = indexing.places_in_zoo(tmp_path / "zoo", "e")
    facts = published.take(known, places, FAST, lambda *numbers: calls.append(numbers))
    sent = served.bytes_sent - before
    assert sent < known.run_table.size + known.index.size + 2000
    assert calls[-1] == (known.run_table.size + known.index.size,) * 2
    assert places.run_table.read_bytes() == (served.root / "e.run_table.npz").read_bytes()
    assert names(places.index.parent) == ["archive.index.sqlite", "recipe.json", "run_table.npz"]
    assert list(places.index.parent.glob(".*")) == [places.lock]
    assert json.loads(places.recipe.read_text()) == packing.RECIPE
    assert indexing.existing(places, scan.Expected(known.md5, "e", known.size)) == facts
    passed = indexing.places_in_zoo(tmp_path / "passed", "e")
    indexing.make(known.url, passed, scan.Expected(known.md5, "e", known.size), FAST)
    assert passed.index.read_bytes() == places.index.read_bytes()


def test_a_server_without_ranges_gives_all_but_the_recipe(served, tmp_path):
    known = entry(served)
    served.faults = fault_server.Faults(ignore_range=True)
    places = indexing.places_in_zoo(tmp_path / "zoo", "e")
    published.take(known, places, FAST)
    assert names(places.index.parent) == ["archive.index.sqlite", "run_table.npz"]
    assert published.lacks_recipe(places)
    places.recipe.write_text("{}")
    assert not published.lacks_recipe(places)


@pytest.mark.parametrize(
    ("field", "missing"),
    [
        (("run_table",), "no run table of e is known"),
        (("index",), "no seek index of e"),
        (("run_table", "index"), "no run table and no seek index of e"),
    ],
)
def test_what_is_not_published_is_named(served, tmp_path, field, missing):
    known = dataclasses.replace(entry(served), **dict.fromkeys(field))
    with pytest.raises(errors.UsageError, match=f"--published: {missing}"):
        published.take(known, indexing.places_in_zoo(tmp_path / "zoo", "e"), FAST)
    assert not (tmp_path / "zoo").exists()


@pytest.mark.parametrize("name", ["e.run_table.npz", "e.tar.gz.index.sqlite"])
def test_other_bytes_than_the_manifest_says_are_deleted(served, tmp_path, name):
    known, places = entry(served), indexing.places_in_zoo(tmp_path / "zoo", "e")
    sound = (served.root / name).read_bytes()
    (served.root / name).write_bytes(sound[:-1] + bytes([sound[-1] ^ 1]))
    with pytest.raises(errors.IntegrityError, match=rf"{name}: its SHA-256 is .* according to the manifest"):
        published.take(known, places, FAST)
    (served.root / name).write_bytes(sound + b"more")
    with pytest.raises(errors.IntegrityError, match=rf"{name}: has \d+ bytes, \d+ according to the manifest"):
        published.take(known, places, FAST)
    assert not places.index.exists()
    assert not places.run_table.exists()
    (served.root / name).write_bytes(sound)
    published.take(known, places, FAST)
    assert places.index.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"md5": "0" * 32}, "e: the MD5 of the archive is [0-9a-f]{32} in what is published, expected 0{32}"),
        ({"size": 5}, "e: the size of the archive is [0-9]+ in what is published, expected 5"),
        ({"name": "f"}, "f: the experiment of the run table is e in what is published, expected f"),
    ],
)
def test_what_does_not_belong_together_is_refused(served, tmp_path, change, message):
    places = indexing.places_in_zoo(tmp_path / "zoo", "e")
    with pytest.raises(errors.IntegrityError, match=message):
        published.take(dataclasses.replace(entry(served), **change), places, FAST)
    assert not places.index.exists()
    assert not places.run_table.exists()


def test_what_is_there_is_not_replaced(served, tmp_path):
    places = indexing.places_in_zoo(tmp_path / "zoo", "e")
    places.run_table.parent.mkdir(parents=True)
    places.run_table.write_bytes(b"mine")
    with pytest.raises(errors.MismatchError, match=r"run_table\.npz: is there already, and not the one that is publ"):
        published.take(entry(served), places, FAST)
    assert places.run_table.read_bytes() == b"mine"
    places.run_table.write_bytes((served.root / "e.run_table.npz").read_bytes())
    published.take(entry(served), places, FAST)
    assert places.index.exists()


def test_one_process_at_a_time(served, tmp_path):
    places = indexing.places_in_zoo(tmp_path / "zoo", "e")
    with lock.held(places.lock), pytest.raises(errors.BusyError):
        published.take(entry(served), places, FAST)
