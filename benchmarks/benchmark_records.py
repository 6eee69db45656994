"""How fast a subset of image records is read for training, beside a plain tf.data pipeline.

    python -m benchmarks.benchmark_records

Writes records of the published ImageNet form (1000 crops of 400 x 350 pixels from scikit-learn's two photographs) and
of Tiny-ImageNet's (5000 crops of 64 x 64, plain bytes), chooses 70 % of them, and reads epochs in turn with

    ours    IndexedRecords.train_batches: many records parsed at once, membership by one look-up in a table of booleans
    plain   parse each record, keep it if its index is in a list of indices, which is scanned; decode as ours does

Table and list are as long as for all of ImageNet (1281167 examples): what is looked for among the records here is the
same on both sides. Prints images per second (median over epochs) and the ratio. Writes benchmarks/results/records.json.
"""

import dataclasses
import pathlib
import statistics
import tempfile
import time

from absl import app, flags
import numpy as np
from PIL import Image
from sklearn import datasets as sklearn_datasets
import tensorflow as tf

from benchmarks import environment
from heldout.datasets import image_decoding, indexed_records, record_format

_REPEATS = flags.DEFINE_integer("repeats", 5, "Epochs of each side.")
_NUM_RECORDS = flags.DEFINE_list("num_records", ["1000", "5000"], "Records in imagenet and tiny form.")

_NUM_IMAGENET = 1281167
_NUM_SHARDS = 8
_BATCH_SIZE = 50
_SHUFFLE_RECORDS = 500


def main(argv: list[str]) -> None:
    """Times both sides in turn, for both forms."""
    del argv
    figures = {}
    for name, count in zip(("imagenet", "tiny"), map(int, _NUM_RECORDS.value), strict=True):
        with tempfile.TemporaryDirectory() as folder:
            write_records(pathlib.Path(folder), record_format.FORMATS[name], count)
            figures[name] = _measure(folder, count)
        text = "   ".join(f"{side} {figures[name][side]:8.0f} images/s" for side in ("ours", "plain"))
        print(f"{name:<10} {text}   {figures[name]['ratio']:.2f} times")
    print(environment.save("records", figures | {"length_of_list": _NUM_IMAGENET, "repeats": _REPEATS.value}))


def write_records(folder: pathlib.Path, known: record_format.Format, count: int) -> None:
    """Records of crops of photographs."""
    photos, generator = sklearn_datasets.load_sample_images().images, np.random.default_rng(0)
    height, width = (350, 400) if known.name == "imagenet" else (64, 64)
    for split, size, num_shards in (("train", count, _NUM_SHARDS), ("test", 10, 1)):
        for number, part in enumerate(np.array_split(np.arange(size), num_shards)):
            with open(folder / record_format.shard_name(known, split, number, num_shards), "wb") as stream:
                for index in part.tolist():
                    photo = photos[index % 2]
                    top, left = (int(generator.integers(photo.shape[i] - n)) for i, n in ((0, height), (1, width)))
                    crop = photo[top : top + height, left : left + width]
                    record = record_format.encode(known, _encoded(crop, known), 0, index, f"{index}.JPEG")
                    stream.write(record_format.framed(record))


def _encoded(crop: np.ndarray, known: record_format.Format) -> bytes:
    if known.name == "tiny":
        return crop.tobytes()
    with tempfile.TemporaryFile() as stream:
        Image.fromarray(crop).save(stream, "JPEG", quality=90)
        stream.seek(0)
        return stream.read()


def _measure(folder: str, count: int) -> dict[str, float]:
    stored = indexed_records.open_records(folder)
    # As long as for all of ImageNet; the further examples have no records here and are not chosen.
    label = np.zeros(_NUM_IMAGENET, np.int64)
    records = dataclasses.replace(stored, label=stored.label | {"train": label})
    generator = np.random.default_rng(1)
    mask = np.zeros(_NUM_IMAGENET, bool)
    mask[generator.permutation(count)[: round(0.7 * count)]] = True
    further = count + generator.permutation(_NUM_IMAGENET - count)[: round(0.7 * _NUM_IMAGENET) - int(mask.sum())]
    indices = np.sort(np.concatenate([np.flatnonzero(mask), further]))
    rates: dict[str, list[float]] = {"ours": [], "plain": []}
    for repeat in range(_REPEATS.value + 1):
        sides = {
            "ours": records.train_batches(mask, _BATCH_SIZE, 0, repeat, _SHUFFLE_RECORDS),
            "plain": plain_batches(records, indices),
        }
        for side, pipeline in sides.items():
            start = time.perf_counter()
            num_images = sum(len(index) for index, _, _ in pipeline)
            if repeat:  # the first epoch warms up
                rates[side].append(num_images / (time.perf_counter() - start))
    medians = {side: statistics.median(values) for side, values in rates.items()}
    return medians | {"ratio": medians["ours"] / medians["plain"]}


def plain_batches(records: indexed_records.IndexedRecords, indices: np.ndarray) -> tf.data.Dataset:
    """The obvious pipeline: one record at a time, found by scanning a list."""
    known, chosen = records.format, tf.constant(indices)
    specification = {
        known.index: tf.io.FixedLenFeature([], tf.int64),
        known.label: tf.io.FixedLenFeature([], tf.int64),
        known.image: tf.io.FixedLenFeature([], tf.string),
    }

    def decode(parsed):
        if known.name == "tiny":
            image = image_decoding.stored_image(parsed[known.image], records.image_shape)
            return parsed[known.index], parsed[known.label], tf.cast(image, tf.float32) / 255
        seed = tf.random.uniform([2], maxval=2**62, dtype=tf.int64)
        image = image_decoding.random_crop(parsed[known.image], records.image_shape, seed)
        return parsed[known.index], parsed[known.label], image_decoding.normalised(image, known)

    paths = tf.data.Dataset.from_tensor_slices(
        [str(shard.path) for shard in records.shards if shard.split == record_format.TRAIN]
    )
    dataset = paths.interleave(tf.data.TFRecordDataset, cycle_length=_NUM_SHARDS, num_parallel_calls=tf.data.AUTOTUNE)
    dataset = dataset.map(
        lambda record: tf.io.parse_single_example(record, specification), num_parallel_calls=tf.data.AUTOTUNE
    )
    dataset = dataset.filter(lambda parsed: tf.reduce_any(tf.equal(parsed[known.index], chosen)))
    dataset = dataset.shuffle(_SHUFFLE_RECORDS).map(decode, num_parallel_calls=tf.data.AUTOTUNE)
    return dataset.batch(_BATCH_SIZE, drop_remainder=True).prefetch(tf.data.AUTOTUNE)


if __name__ == "__main__":
    app.run(main)
