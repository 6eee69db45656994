"""Image records with an index, read from disk as training and evaluation need them: for data larger than memory.

    records = indexed_records.open_records("imagenet")
    for index, label, image in records.train_batches(mask, batch_size=256, seed=7, epoch=0):
        ...

Folders are those of build_indexed_tfrecords, or of anybody whose records carry the features that record_format.py
lists. Opening reads labels and checks that each index is there once; the first time in a folder without a manifest
all shards are scanned, and what is found is kept in labels.npz.

Membership of a subset is one look-up per record in a table of N booleans. The batches of an epoch follow from seed and
epoch alone, not from the number of threads.
"""

import dataclasses
import hashlib
import pathlib
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from heldout import subsets
from heldout.datasets import dataset, image_decoding, record_format, record_labels, record_manifest, record_scan
from zoo import errors, files

if TYPE_CHECKING:
    import tensorflow as tf

PREFIX = "records:"
SHUFFLE_RECORDS = 8192
# Shards read at the same time. Part of the order of an epoch: another number gives other batches.
_CYCLE_LENGTH = 16
_BLOCK_LENGTH = 4
_PARSE_BATCH = 64
_BUFFER_BYTES = 1 << 20
_SEED_NAME = "heldout-records-1"
# What TensorFlow takes where no global seed is set.
_GRAPH_SEED = 87654321
BYTE_SCALE = 255.0


@dataclasses.dataclass(frozen=True, eq=False)
class IndexedRecords:
    """Training and test split of a folder of image records.

    Attributes:
        name: "records:" and the name of the folder.
        version: changes with the content of any record, not with the way in which records lie in shards.
        format: features and normaliser.
        shards: training first.
        label: by split, int64 [n] by original index.
        missing: by split, indices without a record, int64, ascending; their labels are known all the same.
        class_names: by label.
        image_shape: (H, W, C) of every image that reading gives.
    """

    name: str
    version: str
    format: record_format.Format
    shards: tuple[record_format.Shard, ...]
    label: dict[str, np.ndarray]
    missing: dict[str, np.ndarray]
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]

    @property
    def train_label(self) -> np.ndarray:
        """Labels of the training split, int64 [N], by original index."""
        return self.label[record_format.TRAIN]

    @property
    def test_label(self) -> np.ndarray:
        """Labels of the test split, int64 [M], by original index."""
        return self.label[record_format.TEST]

    @property
    def train(self) -> dataset.LabelledSplit:
        """The training split."""
        return dataset.LabelledSplit(self.train_label)

    @property
    def test(self) -> dataset.LabelledSplit:
        """The test split."""
        return dataset.LabelledSplit(self.test_label)

    @property
    def folder(self) -> pathlib.Path:
        """Where the shards lie."""
        return self.shards[0].path.parent

    @property
    def num_train(self) -> int:
        """N."""
        return len(self.train_label)

    @property
    def num_test(self) -> int:
        """M."""
        return len(self.test_label)

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.class_names)

    def fingerprint(self) -> dict[str, Any]:
        """What identifies content and order, with the members of `Dataset.fingerprint`."""
        return {
            "name": self.name,
            "version": self.version,
            "num_train": self.num_train,
            "num_test": self.num_test,
            "num_classes": self.num_classes,
            "image_shape": list(self.image_shape),
            "train_label_sha256": dataset.label_sha256(self.train_label),
            "test_label_sha256": dataset.label_sha256(self.test_label),
        }

    def train_batches(
        self,
        mask: np.ndarray,
        batch_size: int,
        seed: int,
        epoch: int,
        shuffle_records: int = SHUFFLE_RECORDS,
        augment: bool = True,
    ) -> "tf.data.Dataset":
        """One epoch over a subset: batches (index int64 [B], label int64 [B], image float32 [B, H, W, C]).

        Every record with mask[index] comes once, but for the incomplete last batch, which is left out. Shards come in
        random order, 16 at a time, and records pass through a buffer of random access. Batches are mixed no further
        than this reaches: records that lie class by class are better built with --shuffle_seed.

        Args:
            mask: bool [N], the examples to train on.
            batch_size: B.
            seed: any whole number; with `epoch` the source of all randomness, whatever the number of threads.
            epoch: from 0.
            shuffle_records: size of the buffer, in encoded images (0.9 GB for 8192 of ImageNet); 1 for none.
            augment: random windows and mirror images for imagenet records; False for the images of evaluation. Tiny
                records are never augmented.

        Raises:
            InvalidValueError: the mask has another shape or dtype, selects fewer than a batch or a missing example;
                or a size is below 1.
        """
        self._check_mask(mask, batch_size, shuffle_records)
        import tensorflow as tf  # seconds; programs that only read labels do without

        paths = self._paths(record_format.TRAIN)
        order = subsets.permutation(_key(seed, epoch, "shards"), len(paths))
        image_seed, _ = _numbers(_key(seed, epoch, "images"))
        augmented = augment and self.format.name == "imagenet"

        labels = tf.constant(self.train_label)  # they may be others than the records have

        def decode(index: "tf.Tensor", _: "tf.Tensor", content: "tf.Tensor") -> tuple["tf.Tensor", ...]:
            label = tf.gather(labels, index)
            if not augmented:
                return index, label, self._evaluation_image(content)
            of_example = tf.stack([tf.constant(image_seed, tf.int64), index])
            image = image_decoding.random_crop(content, self.image_shape, of_example)
            return index, label, image_decoding.normalised(image, self.format)

        selected = self._records([paths[i] for i in order], mask, deterministic=True)
        if shuffle_records > 1:
            buffer_seed, _ = _numbers(_key(seed, epoch, "buffer"))
            selected = _shuffled(selected, shuffle_records, buffer_seed)
        decoded = selected.map(decode, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        return decoded.batch(batch_size, drop_remainder=True).prefetch(2)

    def evaluation_batches(self, split: str, batch_size: int, *, normalised: bool = True) -> "tf.data.Dataset":
        """All examples of a split once: batches (index int64 [B], label int64 [B], image [B, H, W, C]).

        They come in no particular order; the last batch may be smaller. Missing examples are left out.

        Args:
            split: "train" or "test".
            batch_size: B.
            normalised: images float32 as a model takes them; False for what normalising begins with, tiny ones uint8,
                those of imagenet float32 in [0, 1].

        Raises:
            InvalidValueError: the split is neither "train" nor "test", or batch_size is below 1.
        """
        if split not in record_format.SPLITS:
            raise errors.InvalidValueError(f"split {split!r} is unknown; use 'train' or 'test'")
        if batch_size < 1:
            raise errors.InvalidValueError(f"batch_size {batch_size}: must be at least 1")
        import tensorflow as tf  # see train_batches

        decode = self._evaluation_image if normalised else self._plain_image

        def decode_record(index: "tf.Tensor", label: "tf.Tensor", content: "tf.Tensor") -> tuple["tf.Tensor", ...]:
            return index, label, decode(content)

        records = self._records(self._paths(split), None, deterministic=False)
        decoded = records.map(decode_record, num_parallel_calls=tf.data.AUTOTUNE, deterministic=False)
        return decoded.batch(batch_size).prefetch(2)

    def with_train_label(self, label: np.ndarray) -> Self:
        """The same images to be trained with other labels, int64 [N] by original index."""
        return dataclasses.replace(self, label=self.label | {record_format.TRAIN: label})

    def check_complete(self) -> None:
        """Refuses records of which some are missing: what is said of every example needs every image.

        Raises:
            InvalidValueError: an example has none.
        """
        for split, missing in self.missing.items():
            if len(missing):
                raise errors.InvalidValueError(
                    f"{self.name}: {record_format.missing_text(split, missing)}, expected one for each: such records "
                    "can be read, but programs neither train nor evaluate on them. Replace the damaged images and "
                    "build the records in another folder; or build them there with --skip_damaged and without "
                    "--index_file, which numbers the others without gaps"
                )

    def _plain_image(self, content: "tf.Tensor") -> "tf.Tensor":
        decode = image_decoding.stored_image if self.format.name == "tiny" else image_decoding.centre_square
        return decode(content, self.image_shape)

    def _evaluation_image(self, content: "tf.Tensor") -> "tf.Tensor":
        """The normalised image float32 [H, W, C] of stored bytes."""
        import tensorflow as tf  # see train_batches

        scale = BYTE_SCALE if self.format.name == "tiny" else 1.0
        return image_decoding.normalised(tf.cast(self._plain_image(content), tf.float32) / scale, self.format)

    def _records(self, paths: list[str], mask: np.ndarray | None, deterministic: bool) -> "tf.data.Dataset":
        """(index, label, encoded image) of the records of some shards, those only that are in the mask."""
        import tensorflow as tf  # see train_batches

        known = self.format
        specification = {
            known.index: tf.io.FixedLenFeature([], tf.int64),
            known.label: tf.io.FixedLenFeature([], tf.int64),
            known.image: tf.io.FixedLenFeature([], tf.string),
        }
        table = None if mask is None else tf.constant(mask)

        def parse(records: "tf.Tensor") -> tuple["tf.Tensor", ...]:
            parsed = tf.io.parse_example(records, specification)
            columns = (parsed[known.index], parsed[known.label] - known.label_offset, parsed[known.image])
            if table is None:
                return columns
            rows = tf.where(tf.gather(table, parsed[known.index]))[:, 0]
            return tuple(tf.gather(column, rows) for column in columns)

        records = tf.data.Dataset.from_tensor_slices(paths).interleave(
            lambda path: tf.data.TFRecordDataset(path, buffer_size=_BUFFER_BYTES),
            cycle_length=min(_CYCLE_LENGTH, len(paths)),
            block_length=_BLOCK_LENGTH,
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=deterministic,
        )
        # Many records are parsed at once, which takes a fraction of the time of one by one.
        parsed = records.batch(_PARSE_BATCH).map(
            parse, num_parallel_calls=tf.data.AUTOTUNE, deterministic=deterministic
        )
        return parsed.unbatch()

    def _paths(self, split: str) -> list[str]:
        return [str(shard.path) for shard in self.shards if shard.split == split]

    def _check_mask(self, mask: np.ndarray, batch_size: int, shuffle_records: int) -> None:
        if mask.shape != (self.num_train,) or mask.dtype != np.bool_:
            raise errors.InvalidValueError(
                f"mask: found shape {mask.shape} and dtype {mask.dtype}, expected ({self.num_train},) and bool"
            )
        if batch_size < 1 or shuffle_records < 1:
            raise errors.InvalidValueError(
                f"batch_size {batch_size} and shuffle_records {shuffle_records}: must be at least 1"
            )
        missing = self.missing[record_format.TRAIN]
        selected = missing[mask[missing]]
        if len(selected):
            raise errors.InvalidValueError(
                f"{self.name}: the mask selects {files.count_text(len(selected), 'example')} without a record: "
                f"{record_format.named(selected)}; clear them in the mask, or build the records with sound images"
            )
        if mask.sum() < batch_size:
            raise errors.InvalidValueError(
                f"the mask selects {mask.sum()} examples, fewer than a batch of {batch_size}; lower the batch size"
            )


def _shuffled(records: "tf.data.Dataset", buffer_size: int, seed: int) -> "tf.data.Dataset":
    """`records.shuffle(buffer_size, seed)`, whose order would follow from the global seed of the process as well."""
    import tensorflow as tf  # see train_batches

    variant = tf.raw_ops.ShuffleDatasetV3(
        input_dataset=tf.data.experimental.to_variant(records),
        buffer_size=tf.constant(buffer_size, tf.int64),
        seed=tf.constant(_GRAPH_SEED, tf.int64),
        seed2=tf.constant(seed, tf.int64),
        seed_generator=tf.raw_ops.DummySeedGenerator(),
        output_types=tf.nest.flatten(tf.nest.map_structure(lambda spec: spec.dtype, records.element_spec)),
        output_shapes=tf.nest.flatten(tf.nest.map_structure(lambda spec: spec.shape, records.element_spec)),
        reshuffle_each_iteration=False,
    )
    return tf.data.experimental.from_variant(variant, records.element_spec)


def open_records(
    folder: files.PathLike,
    format: str | None = None,
    cache: files.PathLike | None = None,
    progress: record_scan.Progress | None = None,
) -> IndexedRecords:
    """Opens a folder of image records.

    Args:
        folder: where the shards lie.
        format: imagenet or tiny; None for what the first record shows.
        cache: folder for labels.npz where `folder` may not be written to; without it such a folder is scanned at each
            opening.
        progress: hears of a scan.

    Returns:
        The records. Without a manifest classes are named by their numbers, and tiny images are 64 x 64 x 3.

    Raises:
        MissingFileError: there is no such folder, or a shard or labels.npz is missing.
        DamagedFileError: a shard or a file beside it is damaged, an index is missing, there twice or out of range, or
            the shards are not those of the manifest.
        MismatchError: the records are of another format.
        InvalidValueError: the format is unknown.
    """
    folder = pathlib.Path(folder).expanduser()
    asked = None if format is None else record_format.format_of(format)
    shards = record_format.shards(folder)
    manifest = record_manifest.read_manifest(folder)
    if manifest is None:
        known = record_scan.detect_format(shards[0])
        _check_format(folder, asked, known)
        labels = record_labels.cached(folder, shards, known, cache, progress)
        num_classes = 1 + max(int(label.max()) for label in labels.label.values())
        class_names, shape = tuple(str(number) for number in range(num_classes)), known.image_shape
    else:
        known = record_format.format_of(manifest["format"])
        _check_format(folder, asked, known)
        labels = record_labels.of_manifest(folder, shards, manifest)
        height, width, channels = manifest["image_shape"]
        class_names, shape = tuple(manifest["class_names"]), (height, width, channels)
    return IndexedRecords(
        name=f"{PREFIX}{folder.resolve().name}",
        version=labels.version,
        format=known,
        shards=tuple(shards),
        label=labels.label,
        missing=labels.missing,
        class_names=class_names,
        image_shape=shape,
    )


def identify(folder: files.PathLike) -> tuple[str, str]:
    """Name and version of the records in a folder, which is opened for it."""
    records = open_records(folder)
    return records.name, records.version


def _check_format(folder: pathlib.Path, asked: record_format.Format | None, found: record_format.Format) -> None:
    if asked is not None and asked != found:
        raise errors.MismatchError(
            f"{folder}: its records are of the format {found.name}, asked for was {asked.name}; leave the format out"
        )


def _key(seed: int, epoch: int, purpose: str) -> int:
    """128 bits that follow from seed, epoch and purpose alone."""
    digest = hashlib.sha256(f"{_SEED_NAME}/{seed}/{epoch}/{purpose}".encode()).digest()
    return int.from_bytes(digest[:16], "little")


def _numbers(key: int) -> tuple[int, int]:
    """The same as two numbers in [0, 2^63)."""
    return key & (1 << 63) - 1, key >> 65
