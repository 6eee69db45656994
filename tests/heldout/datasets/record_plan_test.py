"""Plans of builds: numbers of shards, and what is left when images are left out."""

import pytest

from heldout.datasets import image_folders, record_format, record_plan
from tests.heldout.datasets import image_cases
from zoo import errors


@pytest.mark.parametrize(
    ("name", "split", "num_images", "size", "is_indexed", "expected"),
    [
        ("imagenet", "train", 700, 110_000, False, 1),
        ("imagenet", "train", 1000, 1000, False, 1),
        ("imagenet", "train", 1001, 1000, False, 2),
        ("imagenet", "train", 1001, 1000, True, 2),
        ("imagenet", "test", 30, 20_000_000, False, 6),
        ("imagenet", "test", 2, 500_000_000, False, 2),
        ("imagenet", "test", 50_000, 1000, False, 50),
        ("imagenet", "test", 50_000, 1000, True, 128),
        ("imagenet", "train", 50_000, 1000, True, 50),
        ("tiny", "test", 10_000, 1000, True, 8),
        ("tiny", "train", 100_000, 1000, True, 64),
        ("tiny", "train", 100_000, 1000, False, 100),
    ],
)
def test_usual_numbers_of_shards_follow_from_the_size(name, split, num_images, size, is_indexed, expected):
    sources = [image_folders.Source("a/b.png", 0, 0, size, 0)] * num_images
    assert record_plan._num_shards(record_format.FORMATS[name], split, sources, None, is_indexed) == expected


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    image_cases.write_folders(root)
    config = record_plan.BuildConfig(f"{root}/train", f"{root}/test", "records", num_train_shards=4, shuffle_seed=2)
    return record_plan.make_plan(config)


def test_what_is_left_is_numbered_without_gaps_and_dealt_anew(plan):
    before = plan.listings["train"].sources
    rest = plan.without({"train": {before[0].path, before[7].path}})
    after = rest.listings["train"].sources
    assert [source.index for source in after] == list(range(28))
    assert [source.path for source in after] == [before[i].path for i in range(30) if i not in (0, 7)]
    assert rest.listings["test"] == plan.listings["test"]
    assert [shard.name for shard in rest.shards] == [shard.name for shard in plan.shards]
    dealt = [source for shard in rest.shards if shard.split == "train" for source in shard.sources]
    assert sorted(dealt, key=lambda source: source.index) == list(after)
    assert rest.digest() != plan.digest()


def test_nothing_left_of_a_split_is_refused(plan):
    paths = {source.path for source in plan.listings["test"].sources}
    with pytest.raises(errors.DamagedFileError, match="test: none of its 12 images is sound, expected at least one"):
        plan.without({"test": paths})


@pytest.mark.parametrize(("options", "closes", "keeps"), [({}, True, False), ({"index_file": "i.npz"}, False, True)])
def test_gaps_stay_where_the_indices_are_published(options, closes, keeps):
    skips = record_plan.BuildConfig("a", "b", "c", skip_damaged=True, **options)
    assert (skips.closes_gaps, skips.keeps_gaps) == (closes, keeps)
    refuses = record_plan.BuildConfig("a", "b", "c", **options)
    assert not refuses.closes_gaps
    assert not refuses.keeps_gaps


def test_folders_of_different_levels_are_refused(tmp_path):
    image_cases.write_folders(tmp_path)
    with pytest.raises(errors.MismatchError, match="--train_folder="):
        record_plan.make_plan(record_plan.BuildConfig(str(tmp_path), f"{tmp_path}/test", "records"))
