"""What a build of image records will do: which example gets which index, and lies in which shard.

A plan follows from the listed files and the options alone. Nothing is written here, and no image decoded.
"""

from collections.abc import Mapping, Sequence, Set
import dataclasses
import hashlib
import json
import math
import os
import pathlib
from typing import Any

import numpy as np

from heldout import subsets
from heldout.datasets import image_files, image_folders, record_format
from zoo import errors

# Features, lengths and checksums around an image, at most.
_RECORD_BYTES = 512
_SEED_NAME = "heldout-records-1"
# A shard holds no more of either, unless its number is asked for or published.
_SHARD_IMAGES = 1000
_SHARD_BYTES = 100_000_000


@dataclasses.dataclass(frozen=True)
class BuildConfig:
    """What a build is asked for.

    Attributes:
        train_folder, test_folder: one subfolder of images per class.
        output: where the shards go.
        format: imagenet or tiny.
        index_file: npz that gives every file name its original index; None for the rank by class and name.
        synsets: text file with the classes in the order of labels; None for sorted names.
        num_train_shards, num_test_shards: None for at most 1000 images or 100 MB in each shard, and for the published
            number where an index file gives the published number of images.
        shuffle_seed: deals records to shards at random; None for contiguous ranges in original order.
        skip_damaged: leaves out what cannot be decoded, instead of refusing it. Without an index file the others are
            numbered as if it had never been there; with one its index stays without a record.
        num_workers: processes.
    """

    train_folder: str
    test_folder: str
    output: str
    format: str = "imagenet"
    index_file: str | None = None
    synsets: str | None = None
    num_train_shards: int | None = None
    num_test_shards: int | None = None
    shuffle_seed: int | None = None
    skip_damaged: bool = False
    num_workers: int = 1

    @property
    def closes_gaps(self) -> bool:
        """Whether damaged images are left out before the others are numbered."""
        return self.skip_damaged and self.index_file is None

    @property
    def keeps_gaps(self) -> bool:
        """Whether the indices of damaged images, which others have published, stay without a record."""
        return self.skip_damaged and self.index_file is not None


@dataclasses.dataclass(frozen=True)
class ShardPlan:
    """One shard to write.

    Attributes:
        split: train or test.
        name: of its file.
        sources: its images, in the order in which they are written.
    """

    split: str
    name: str
    sources: tuple[image_folders.Source, ...]

    @property
    def source_sha256(self) -> str:
        """Digest of the files that go in, by name, size and time."""
        return hashlib.sha256(repr([dataclasses.astuple(source) for source in self.sources]).encode()).hexdigest()


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a build will do.

    Attributes:
        config: what was asked for.
        format: of the records.
        class_names: by label.
        listings: images by split, those that a build has left out not among them.
        shards: training first.
        image_shape: of the images that reading gives.
    """

    config: BuildConfig
    format: record_format.Format
    class_names: tuple[str, ...]
    listings: dict[str, image_folders.Listing]
    shards: tuple[ShardPlan, ...]
    image_shape: tuple[int, int, int]

    @property
    def output(self) -> pathlib.Path:
        """The folder of the shards."""
        return pathlib.Path(self.config.output)

    @property
    def num_images(self) -> int:
        """Of both splits."""
        return sum(len(shard.sources) for shard in self.shards)

    def digest(self, with_sizes: bool = True) -> str:
        """Changes with names, labels or indices of the files, with what decides about shards, and with sizes of files.

        A build that goes on looks at sizes shard by shard, so that files may be replaced meanwhile.
        """
        parts: list[Any] = [self.format.name, self.class_names, self.image_shape]
        for shard in self.shards:
            parts.append(shard.name)
            parts += [(s.path, s.label, s.index, s.size if with_sizes else None) for s in shard.sources]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def without(self, damaged: Mapping[str, Set[str]]) -> "Plan":
        """The plan of the other images, numbered from 0 without gaps and dealt to as many shards.

        Args:
            damaged: paths of images by split.

        Raises:
            DamagedFileError: no image is left of a split.
        """
        listings, shards = {}, []
        for split, listing in self.listings.items():
            rest = [source for source in listing.sources if source.path not in damaged.get(split, ())]
            if not rest:
                raise errors.DamagedFileError(
                    f"{listing.folder}: none of its {len(listing.sources)} images is sound, expected at least one; "
                    "restore them from where they come from"
                )
            sources = tuple(dataclasses.replace(source, index=index) for index, source in enumerate(rest))
            listings[split] = dataclasses.replace(listing, sources=sources)
            count = sum(shard.split == split for shard in self.shards)
            shards += _deal(self.format, split, sources, count, self.config.shuffle_seed)
        return dataclasses.replace(self, listings=listings, shards=tuple(shards))

    def num_bytes(self, shards: Sequence[ShardPlan]) -> int:
        """Room that some of the shards take: the images as they are, and not less than plain pixels for tiny ones."""
        least = int(np.prod(self.image_shape)) if self.format.name == "tiny" else 0
        return sum(max(source.size, least) + _RECORD_BYTES for shard in shards for source in shard.sources)


def make_plan(config: BuildConfig) -> Plan:
    """Lists the images and deals them to shards; writes nothing.

    Raises:
        MissingFileError: a folder or file is not there, or holds no images.
        MismatchError: the images are not those of the index file, or the classes not those of the list.
        DamagedFileError: the index file cannot be read, or the image that gives tiny records their size.
        InvalidValueError: the format is unknown, or a split has fewer images than shards, or a number is below 1.
    """
    known = record_format.format_of(config.format)
    names = image_folders.class_names(config.train_folder, config.synsets)
    image_folders.check_levels(config.train_folder, config.test_folder, names)
    listings, shards = {}, []
    folders = (config.train_folder, config.test_folder)
    asked = (config.num_train_shards, config.num_test_shards)
    for number, split in enumerate(record_format.SPLITS):
        found = image_folders.listing(folders[number], names)
        if config.index_file is not None:
            found = image_folders.indexed(found, split, config.index_file)
        listings[split] = found
        count = _num_shards(known, split, found.sources, asked[number], config.index_file is not None)
        shards += _deal(known, split, found.sources, count, config.shuffle_seed)
    shape = known.image_shape
    if known.name == "tiny":
        shape = _common_shape(listings[record_format.TRAIN], config.skip_damaged)
    return Plan(config, known, names, listings, tuple(shards), shape)


def _common_shape(listing: image_folders.Listing, skip_damaged: bool) -> tuple[int, int, int]:
    """Of the first image; of the first sound one where damaged ones may be left out."""
    for number, source in enumerate(listing.sources):
        try:
            return image_files.image_shape(os.path.join(listing.folder, source.path))
        except errors.DamagedFileError:
            if not skip_damaged or number == len(listing.sources) - 1:
                raise
    raise AssertionError("a listing holds an image")


def _num_shards(
    known: record_format.Format,
    split: str,
    sources: Sequence[image_folders.Source],
    asked: int | None,
    is_indexed: bool,
) -> int:
    num_images = len(sources)
    if asked is None:
        number = record_format.SPLITS.index(split)
        if is_indexed and num_images == known.num_published[number]:
            return known.num_shards[number]
        num_bytes = sum(source.size for source in sources)
        return min(num_images, max(math.ceil(num_images / _SHARD_IMAGES), math.ceil(num_bytes / _SHARD_BYTES)))
    if not 1 <= asked <= num_images:
        raise errors.InvalidValueError(
            f"--num_{split}_shards={asked}: expected 1 to {num_images}, the number of {split} images"
        )
    return asked


def _deal(
    known: record_format.Format,
    split: str,
    sources: Sequence[image_folders.Source],
    count: int,
    shuffle_seed: int | None,
) -> list[ShardPlan]:
    order = np.arange(len(sources))
    if shuffle_seed is not None:
        key = hashlib.sha256(f"{_SEED_NAME}/{shuffle_seed}/{split}".encode()).digest()[:16]
        order = subsets.permutation(int.from_bytes(key, "little"), len(sources))
    return [
        ShardPlan(split, record_format.shard_name(known, split, number, count), tuple(sources[i] for i in part))
        for number, part in enumerate(np.array_split(order, count))
    ]
