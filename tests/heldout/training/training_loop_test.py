"""The training loop against hand-written SGD, and its batched form against the single one."""

import numpy as np
import pytest
import sonnet as snt
import tensorflow as tf

from heldout import subsets
from heldout.experiments import training_config
from heldout.models import registry, sequential
from heldout.training import batches, ensemble, ensemble_rules, learners, schedules, training_loop
from tests.reference import plain_sgd

_SHAPE = (8, 8, 1)
_CLASSES = 5


def examples(count=60, seed=0):
    generator = np.random.default_rng(seed)
    return generator.normal(size=(count, *_SHAPE)), generator.integers(0, _CLASSES, count)


def draws(count, num_train=60):
    return [batches.RunDraw(("e", 0.5, i), subsets.subset_indices("e", 0.5, i, num_train)) for i in range(count)]


def initial_values(architecture, dtype, seed):
    tf.random.set_seed(seed)
    return learners.read_values(registry.build(architecture, _CLASSES, _SHAPE, dtype=tf.as_dtype(dtype)))


def initial_values_of(options, seed):
    tf.random.set_seed(seed)
    return learners.read_values(registry.build("mlp", _CLASSES, _SHAPE, options, dtype=tf.float64))


def train(learner, config, runs, values, images=None, labels=None):
    if images is None:
        images, labels = examples()
    trainer = training_loop.Trainer(learner, images, labels, lambda x: tf.cast(x, config.dtype), config)
    losses = trainer.train(runs, values)
    return losses, trainer


def values_after(learner, position, module):
    learner.copy_to(position, module)
    return learners.read_values(module)


@pytest.mark.parametrize(
    "options",
    [{}, {"nesterov": True}, {"weight_decay": 0.1}, {"schedule": "cosine", "warmup_epochs": 1.0}, {"momentum": 0.0}],
)
def test_twenty_steps_agree_with_hand_written_sgd(options):
    config = training_config.TrainingConfig(num_epochs=4, batch_size=6, dtype="float64", **options)
    module = registry.build("mlp", _CLASSES, _SHAPE, {"hidden_sizes": [7, 6]}, dtype=tf.float64)
    values = learners.read_values(module)
    images, labels = examples()
    runs = draws(1)
    learner = learners.SingleLearner(module)
    train(learner, config, runs, [values], images, labels)
    indices = np.concatenate([batches.epoch_batches(config, runs, epoch).indices[:, 0] for epoch in range(4)])
    assert len(indices) == 20
    parameters = [(values[f"model/layers/{i}/w"], values[f"model/layers/{i}/b"]) for i in (1, 3, 5)]
    expected = plain_sgd.train(
        parameters,
        [(images[batch].reshape(len(batch), -1), labels[batch]) for batch in indices],
        np.concatenate([schedules.learning_rates(config, 5, epoch) for epoch in range(4)]),
        config.momentum,
        config.nesterov,
        config.weight_decay,
    )
    trained = learners.read_values(module)
    for i, (weights, bias) in zip((1, 3, 5), expected, strict=True):
        np.testing.assert_allclose(trained[f"model/layers/{i}/w"], weights, rtol=0, atol=1e-10)
        np.testing.assert_allclose(trained[f"model/layers/{i}/b"], bias, rtol=0, atol=1e-10)


def test_twenty_steps_agree_with_hand_written_adam():
    config = training_config.TrainingConfig(
        num_epochs=4, batch_size=6, dtype="float64", optimizer="adam", learning_rate=0.01, l1=0.02, adam_beta2=0.9
    )
    module = registry.build("mlp", _CLASSES, _SHAPE, {"hidden_sizes": [7, 6]}, dtype=tf.float64)
    values = learners.read_values(module)
    images, labels = examples()
    runs = draws(1)
    train(learners.SingleLearner(module), config, runs, [values], images, labels)
    indices = np.concatenate([batches.epoch_batches(config, runs, epoch).indices[:, 0] for epoch in range(4)])
    expected = plain_sgd.train_with_adam(
        [(values[f"model/layers/{i}/w"], values[f"model/layers/{i}/b"]) for i in (1, 3, 5)],
        [(images[batch].reshape(len(batch), -1), labels[batch]) for batch in indices],
        np.full(20, 0.01),
        (0.9, 0.9),
        config.adam_epsilon,
        config.l1,
    )
    trained = learners.read_values(module)
    for i, (weights, bias) in zip((1, 3, 5), expected, strict=True):
        np.testing.assert_allclose(trained[f"model/layers/{i}/w"], weights, rtol=0, atol=1e-10)
        np.testing.assert_allclose(trained[f"model/layers/{i}/b"], bias, rtol=0, atol=1e-10)


@pytest.mark.parametrize("optimizer", training_config.OPTIMIZERS)
def test_a_training_goes_on_as_if_it_had_not_been_interrupted(optimizer):
    config = training_config.TrainingConfig(num_epochs=5, batch_size=6, dtype="float64", optimizer=optimizer)
    module = registry.build("mlp", _CLASSES, _SHAPE, {"hidden_sizes": [7]}, dtype=tf.float64)
    values, runs = learners.read_values(module), draws(2)
    images, labels = examples()
    others = initial_values_of({"hidden_sizes": [7]}, 3)
    learner = ensemble.EnsembleLearner(module, 2)
    trainer = training_loop.Trainer(learner, images, labels, lambda x: tf.cast(x, tf.float64), config)
    losses = trainer.train(runs, [values, others])
    whole = [values_after(learner, position, module) for position in range(2)]
    begun = trainer.train(runs, [values, others], lambda epoch, _: epoch == 1)
    halfway, state = [dict(values_after(learner, position, module)) for position in range(2)], trainer.rule_state()
    rest = trainer.train(runs, halfway, num_done=2, rule_state=state)
    np.testing.assert_array_equal(np.concatenate([begun, rest]), losses)
    for position in range(2):
        for key, value in values_after(learner, position, module).items():
            np.testing.assert_array_equal(value, whole[position][key])


@pytest.mark.parametrize("architecture", ["mlp", "lenet"])
def test_batched_and_single_agree_after_twenty_steps_in_float64(architecture):
    config = training_config.TrainingConfig(
        num_epochs=4, batch_size=6, dtype="float64", augmentation=("crop", "flip"), crop_padding=1, weight_decay=1e-3
    )
    module = registry.build(architecture, _CLASSES, _SHAPE, dtype=tf.float64)
    values = [initial_values(architecture, "float64", seed) for seed in range(3)]
    group = ensemble.EnsembleLearner(module, 3)
    group_losses, _ = train(group, config, draws(3), values)
    for position in range(3):
        single = learners.SingleLearner(registry.build(architecture, _CLASSES, _SHAPE, dtype=tf.float64))
        losses, _ = train(single, config, [draws(3)[position]], [values[position]])
        np.testing.assert_allclose(group_losses[:, position], losses[:, 0], rtol=0, atol=1e-9)
        alone = values_after(single, 0, module)
        together = values_after(group, position, module)
        assert alone.keys() == together.keys()
        for key, value in alone.items():
            assert not np.array_equal(value, values[position][key])
            np.testing.assert_allclose(together[key], value, rtol=0, atol=1e-9)


def test_float32_lenet_keeps_runs_apart_in_the_grouped_convolution():
    # Float64 takes the loop on a CPU; this is the path that trains.
    config = training_config.TrainingConfig(num_epochs=1, batch_size=10)
    module = registry.build("lenet", _CLASSES, _SHAPE)
    values = [initial_values("lenet", "float32", seed) for seed in range(3)]
    group = ensemble.EnsembleLearner(module, 3)
    train(group, config, draws(3), values)
    for position in range(3):
        single = learners.SingleLearner(registry.build("lenet", _CLASSES, _SHAPE))
        train(single, config, [draws(3)[position]], [values[position]])
        together, alone = values_after(group, position, module), values_after(single, 0, module)
        for key, value in alone.items():
            np.testing.assert_allclose(together[key], value, rtol=0, atol=1e-5)


def test_small_inception_keeps_runs_and_their_batch_statistics_apart():
    config = training_config.TrainingConfig(num_epochs=1, batch_size=10, learning_rate=0.01)
    module = registry.build("small_inception", _CLASSES, _SHAPE)
    values = [initial_values("small_inception", "float32", seed) for seed in range(2)]
    group = ensemble.EnsembleLearner(module, 2)
    group_losses, _ = train(group, config, draws(2), values)
    images = tf.cast(examples()[0][:7], tf.float32)
    single = learners.SingleLearner(registry.build("small_inception", _CLASSES, _SHAPE))
    trainer = training_loop.Trainer(single, *examples(), lambda x: tf.cast(x, "float32"), config)
    for position in range(2):
        losses = trainer.train([draws(2)[position]], [values[position]])
        np.testing.assert_allclose(group_losses[:, position], losses[:, 0], rtol=1e-4)
        alone, together = values_after(single, 0, module), values_after(group, position, module)
        assert alone.keys() == together.keys()
        assert together["model/conv1/bn/moving_variance/_counter"] == 3
        for key, value in alone.items():
            scale = np.abs(value).max() + 1e-3
            np.testing.assert_allclose(together[key] / scale, value / scale, rtol=0, atol=2e-3, err_msg=key)
    # Evaluation uses the moving averages, each run its own.
    logits = group.logits(tf.stack([images, images]), is_training=False)
    for position in range(2):
        group.copy_to(position, module)
        np.testing.assert_allclose(logits[position], module(images, is_training=False), rtol=0, atol=1e-4)
    assert not np.allclose(logits[0], logits[1], atol=1e-2)


def test_one_compiled_epoch_serves_all_groups_and_subset_sizes():
    module = registry.build("mlp", _CLASSES, _SHAPE)
    group = ensemble.EnsembleLearner(module, 2)
    config = training_config.TrainingConfig(num_epochs=2, batch_size=6)
    images, labels = examples()
    trainer = training_loop.Trainer(group, images, labels, lambda x: tf.cast(x, "float32"), config)
    values = [initial_values("mlp", "float32", seed) for seed in range(2)]
    for ratio in (0.3, 0.7):
        runs = [batches.RunDraw(("e", ratio, i), subsets.subset_indices("e", ratio, i, 60)) for i in range(2)]
        trainer.train(runs, values)
    assert trainer.num_traces() == 1


@pytest.mark.parametrize("num_runs", [1, 2])
def test_xla_trains_the_same_models(num_runs):
    module = registry.build("mlp", _CLASSES, _SHAPE, {"hidden_sizes": [7]})
    config = training_config.TrainingConfig(num_epochs=2, batch_size=6, augmentation=("crop", "flip"))
    values = [learners.read_values(module)] * num_runs
    losses = []
    for jit_compile in (False, True):
        learner = ensemble.EnsembleLearner(module, num_runs) if num_runs > 1 else learners.SingleLearner(module)
        trainer = training_loop.Trainer(
            learner, *examples(), lambda x: tf.cast(x, "float32"), config, jit_compile=jit_compile
        )
        losses.append(trainer.train(draws(num_runs), values))
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)


def test_the_same_trainer_gives_the_same_model_again():
    # Velocities of an earlier group must not leak into the next.
    module = registry.build("mlp", _CLASSES, _SHAPE)
    learner = learners.SingleLearner(module)
    config = training_config.TrainingConfig(num_epochs=2, batch_size=6)
    values = [initial_values("mlp", "float32", 0)]
    losses, trainer = train(learner, config, draws(1), values)
    np.testing.assert_array_equal(trainer.train(draws(1), values), losses)


def test_batch_norm_statistics_move_and_are_not_decayed():
    module = registry.build("small_inception", _CLASSES, _SHAPE)
    learner = learners.SingleLearner(module)
    before = learners.read_values(module)
    train(learner, training_config.TrainingConfig(num_epochs=1, batch_size=10), draws(1), [before])
    after = learners.read_values(module)
    assert not np.array_equal(after["model/conv1/bn/moving_mean/average"], before["model/conv1/bn/moving_mean/average"])
    assert after["model/conv1/bn/moving_mean/_counter"] == 3


def test_loss_falls_and_training_can_be_ended_early():
    module = registry.build("mlp", _CLASSES, _SHAPE)
    config = training_config.TrainingConfig(num_epochs=10, batch_size=10)
    images, labels = examples()
    learner = learners.SingleLearner(module)
    trainer = training_loop.Trainer(learner, images, labels, lambda x: tf.cast(x, "float32"), config)
    losses = trainer.train(draws(1), [learners.read_values(module)], on_epoch=lambda epoch, loss: epoch == 4)
    assert losses.shape == (5, 1)
    assert losses[-1, 0] < 0.5 * losses[0, 0]


def test_only_models_made_of_known_layers_are_batched():
    assert ensemble_rules.supports(registry.build("lenet", _CLASSES, _SHAPE))
    assert ensemble_rules.supports(registry.build("small_inception", _CLASSES, _SHAPE))
    assert ensemble_rules.supports(snt.nets.ResNet50(_CLASSES))
    assert not ensemble_rules.supports(snt.nets.ResNet50(_CLASSES, resnet_v2=True))
    assert not ensemble_rules.supports(snt.nets.VectorQuantizer(1, 1, 0.1))
    assert not ensemble_rules.supports(sequential.SequentialClassifier([snt.Conv2D(3, 3, data_format="NCHW")]))
