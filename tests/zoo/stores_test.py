"""A store against the emulator on loopback: whole runs, records last, sizes, errors that name the object."""

import pytest

from tests.zoo.remote import emulator
from zoo import errors, layout, stores


@pytest.fixture(scope="module")
def bucket():
    with emulator.serving({}) as (_, address):
        yield address


def make_run(folder):
    run = layout.Run(folder, "e", 0.7, 4)
    run.checkpoints_directory.mkdir(parents=True)
    for suffix in (".index", ".data-00000-of-00001"):
        (run.checkpoints_directory / f"ckpt-2{suffix}").write_bytes(suffix.encode())
    (run.checkpoints_directory / "stray").write_bytes(b"")
    run.aux_arrays_path.write_bytes(b"record")
    return run


class Recording(stores.Store):
    """A store that remembers what was put."""

    def __init__(self, address):
        super().__init__(address)
        self.names = []

    def put(self, source, name):
        super().put(source, name)
        self.names.append(name)


def test_a_run_is_put_whole_with_its_record_last_and_once(bucket, tmp_path):
    store, run = Recording(f"{bucket}/zoo/"), make_run(tmp_path)
    stores.put_run(store, run)
    names = ["e/0.7/4/checkpoints/ckpt-2.data-00000-of-00001", "e/0.7/4/checkpoints/ckpt-2.index"]
    assert store.names == [*names, "e/0.7/4/aux_arrays.npz"]
    assert store.sizes("e") == dict(zip(store.names, (20, 6, 6), strict=True))
    stores.put_run(store, run)
    assert len(store.names) == 3
    assert stores.recorded_runs(tmp_path, "e", store.sizes("e")) == [run]
    assert store.sizes("other") == {}
    store.fetch("e/0.7/4/aux_arrays.npz", tmp_path / "fetched")
    assert (tmp_path / "fetched").read_bytes() == b"record"


def test_only_names_of_runs_are_runs(tmp_path):
    names = ["e/0.70/4/aux_arrays.npz", "e/0.7/04/aux_arrays.npz", "e/0.7/4/other.npz", "f/0.7/4/aux_arrays.npz"]
    assert stores.recorded_runs(tmp_path, "e", dict.fromkeys(names, 1)) == []


def test_what_is_not_there_is_named(bucket, tmp_path):
    store = stores.Store(f"{bucket}/zoo")
    assert not store.has("e/none")
    with pytest.raises(errors.NetworkError, match=r"^gs://zoos/zoo/e/none: cannot be read \(.*credentials"):
        store.fetch("e/none", tmp_path / "none")
    assert not list(tmp_path.iterdir())


def test_a_bucket_that_is_not_there_is_named(bucket, tmp_path):
    (tmp_path / "a").write_bytes(b"a")
    with pytest.raises(errors.NetworkError, match=r"^gs://no-such-bucket/zoo/e/a: cannot be written"):
        stores.Store("gs://no-such-bucket/zoo").put(tmp_path / "a", "e/a")


def test_a_file_that_grows_while_it_is_put_is_noticed(bucket, tmp_path):
    store, path = stores.Store(f"{bucket}/zoo"), tmp_path / "growing"
    path.write_bytes(b"12345")
    before = store._system.put_file

    def put_half(source, target):
        before(source, target)
        path.write_bytes(b"1234567")

    store._system.put_file = put_half
    with pytest.raises(errors.NetworkError, match=r"e/growing: 7 bytes were sent and 5 are there"):
        store.put(path, "e/growing")


@pytest.mark.parametrize("address", ["memory://zoo", "https://example.org/zoo", "nothing://zoo"])
def test_addresses_where_nothing_can_be_kept_are_refused(address):
    with pytest.raises(errors.InvalidValueError, match=rf"--zoo={address}: n.*expected a folder"):
        stores.Store(address)


def test_a_server_that_does_not_answer_is_named():
    with pytest.raises(errors.NetworkError, match=r"^ftp://127\.0\.0\.1:9/zoo: cannot be opened \(.*refused"):
        stores.Store("ftp://127.0.0.1:9/zoo")


def test_folders_are_no_stores(tmp_path):
    assert not stores.is_store(tmp_path)
    assert not stores.is_store("file:///tmp/zoo")
    assert stores.is_store("gs://bucket/zoo")
