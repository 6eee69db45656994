"""Training on records read from disk gives what training on the same batches in memory gives."""

import numpy as np
import pytest
import tensorflow as tf

from heldout import subsets
from heldout.datasets import indexed_records, records_in_memory
from heldout.experiments import recipes, training_config
from heldout.models import registry
from heldout.training import batches, learners, run_training, streamed_training
from tests.heldout.datasets import image_cases, record_cases
from tests.reference import plain_sgd
from zoo import aux_arrays, checkpoints, errors, layout

NUM_TRAIN, NUM_TEST = 60, 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Tiny records of digits in three shards."""
    folder = tmp_path_factory.mktemp("records")
    for split, prefix, count in (("train", "train", NUM_TRAIN), ("test", "validation", NUM_TEST)):
        rows = [image_cases.digit(number, split) for number in range(count)]
        for shard, part in enumerate(np.array_split(np.arange(count), 3)):
            path = folder / f"{prefix}-{shard:05d}-of-00003"
            record_cases.write_shard(
                path,
                [
                    record_cases.tiny_example(
                        image_cases.encoded(image_cases.coloured(rows[i][0]), "png", (64, 64)), rows[i][1], int(i)
                    )
                    for i in part
                ],
            )
    return folder


@pytest.fixture(scope="module")
def records(folder):
    return indexed_records.open_records(folder)


def draw(run_id=0):
    return batches.RunDraw(("e", 0.5, run_id), subsets.subset_indices("e", 0.5, run_id, NUM_TRAIN))


def test_steps_agree_with_hand_written_sgd_on_the_batches_that_were_read(records):
    config = training_config.TrainingConfig(num_epochs=2, batch_size=6, learning_rate=0.01, dtype="float64")
    module = registry.build("mlp", 10, records.image_shape, {"hidden_sizes": [5]}, dtype=tf.float64)
    values = learners.read_values(module)
    trainer = streamed_training.StreamedTrainer(learners.SingleLearner(module), records, config)
    losses = trainer.train([draw()], [values])
    assert losses.shape == (2, 1)
    assert trainer.num_traces() == 1
    mask = np.zeros(NUM_TRAIN, bool)
    mask[draw().subset_indices] = True
    read = [
        (image.astype(np.float64).reshape(6, -1), label)
        for epoch in range(2)
        for _, label, image in records.train_batches(
            mask, 6, subsets.seed(draw().name, "records"), epoch
        ).as_numpy_iterator()
    ]
    assert len(read) == 10
    parameters = [(values[f"model/layers/{i}/w"], values[f"model/layers/{i}/b"]) for i in (1, 3)]
    expected = plain_sgd.train(parameters, read, np.full(10, 0.01), 0.9, False, 0.0)
    trained = learners.read_values(module)
    for i, (weights, bias) in zip((1, 3), expected, strict=True):
        np.testing.assert_allclose(trained[f"model/layers/{i}/w"], weights, rtol=0, atol=1e-8)
        np.testing.assert_allclose(trained[f"model/layers/{i}/b"], bias, rtol=0, atol=1e-8)


def recipe_of(records, **training):
    config = training_config.TrainingConfig(**({"num_epochs": 20, "batch_size": 10, "learning_rate": 0.001} | training))
    return recipes.Recipe("e", records.fingerprint(), "mlp", {"hidden_sizes": [16]}, config, "records:gone")


def test_a_run_is_written_as_from_memory(records, tmp_path):
    runs = [layout.Run(tmp_path, "e", 0.5, run_id) for run_id in range(2)]
    trainer = run_training.RunTrainer(recipe_of(records), records, margins=True)
    results = trainer.train_group(runs)  # both as one batched computation
    for run, result in zip(runs, results, strict=True):
        assert result.failure is None
        assert result.accuracy_in > 0.5
        aux = aux_arrays.read(run.aux_arrays_path)
        assert (aux.num_train, aux.num_test) == (NUM_TRAIN, NUM_TEST)
        # Its evaluation, in batches and any order, is that of the restored model on all images at once.
        data = records_in_memory.hold(records)
        module = registry.build("mlp", 10, records.image_shape, {"hidden_sizes": [16]})
        checkpoints.restore(module, run.checkpoint_prefix(20))
        logits = module(tf.cast(data.train.images, tf.float32) / 255, is_training=False).numpy()
        np.testing.assert_array_equal(aux.train_correctness(), logits.argmax(axis=1) == data.train.label)
    first, second = (aux_arrays.read(run.aux_arrays_path) for run in runs)
    assert not np.array_equal(first.subset_mask(), second.subset_mask())


def test_the_same_name_gives_the_same_run(records, tmp_path):
    for name in ("a", "b"):
        trainer = run_training.RunTrainer(recipe_of(records, num_epochs=2), records)
        trainer.train_group([layout.Run(tmp_path / name, "e", 0.5, 3)])
    first, second = (layout.Run(tmp_path / name, "e", 0.5, 3).aux_arrays_path.read_bytes() for name in ("a", "b"))
    assert first == second


def test_records_bring_their_own_augmentation(records, tmp_path):
    trainer = run_training.RunTrainer(recipe_of(records, augmentation=("flip",)), records)
    with pytest.raises(errors.InvalidValueError, match=r"--augmentation=flip: image records .* leave the flag out"):
        trainer.train_group([layout.Run(tmp_path, "e", 0.5, 0)])
