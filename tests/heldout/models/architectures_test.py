"""What every architecture that comes in widths promises: shapes, gradients, evaluation, precision, files, training."""

import numpy as np
import pytest
import tensorflow as tf

from heldout import subsets
from heldout.experiments import training_config
from heldout.models import registry
from heldout.training import batches, learners, training_loop
from zoo import checkpoints

_CLASSES = 5
_SHAPE = (16, 16, 3)
PLAIN = {
    "conv5": ("conv5_4", {}),
    "conv5, averages": ("conv5_4", {"pooling": "average"}),
    "resnet18": ("resnet18_4", {}),
    "resnet34": ("resnet34_4", {}),
    "vgg11": ("vgg11_4", {}),
    "vgg13": ("vgg13_4", {}),
    "vgg16": ("vgg16_4", {}),
    "vgg19": ("vgg19_4", {}),
    "vit": ("vit_8", {"depth": 2}),
}
WITH_BATCH_NORM = {
    f"{name}, batch norm": (architecture, {**options, "batch_norm": True})
    for name, (architecture, options) in PLAIN.items()
    if name != "vit"
}
ALL = {**PLAIN, **WITH_BATCH_NORM}
# What takes time to compile is tried for these always, and for the others among the slow tests.
_ALWAYS = ("conv5", "resnet18, batch norm", "vit")


def _others_slow(names):
    return [name if name in _ALWAYS else pytest.param(name, marks=pytest.mark.slow) for name in names]


def _build(name, dtype=tf.float32, **options):
    architecture, own = ALL[name]
    tf.random.set_seed(0)
    return registry.build(architecture, _CLASSES, _SHAPE, {**own, **options}, dtype=dtype)


def _evaluated(name, **options):
    """A model whose moving averages have seen images."""
    model = _build(name, **options)
    model(_images(32, seed=5), is_training=True)
    return model


def _images(count, dtype=tf.float32, seed=1):
    return tf.constant(np.random.default_rng(seed).uniform(size=(count, *_SHAPE)), dtype)


@pytest.mark.parametrize("name", ALL)
def test_logits_have_a_row_for_each_image_and_gradients_reach_every_parameter(name):
    dtype = tf.float32 if name in WITH_BATCH_NORM else tf.float64
    model = _build(name, dtype, initialisation="kaiming_normal")
    images = _images(8, dtype)
    with tf.GradientTape() as tape:
        logits = model(images, is_training=True)
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(np.arange(8) % _CLASSES, logits))
    assert logits.shape == (8, _CLASSES)
    assert logits.dtype == dtype
    gradients = tape.gradient(loss, model.trainable_variables)
    largest = max(np.abs(gradient).max() for gradient in gradients)
    for variable, gradient in zip(model.trainable_variables, gradients, strict=True):
        assert np.isfinite(gradient).all()
        # Far from rounding, which is what a bias before batch normalisation would have.
        assert np.abs(gradient).max() > 1e-6 * largest, variable.name
    assert {variable.dtype for variable in model.trainable_variables} == {dtype}


@pytest.mark.parametrize("name", ALL)
def test_evaluation_is_the_same_again_and_keeps_images_apart(name):
    model = _evaluated(name)
    values = learners.read_values(model)
    images = _images(4).numpy()
    changed = images.copy()
    changed[0] = 1 - changed[0]
    before, again, after = (model(batch, is_training=False).numpy() for batch in (images, images, changed))
    np.testing.assert_array_equal(before, again)
    scale = np.abs(before).max()
    np.testing.assert_allclose(after[1:], before[1:], rtol=0, atol=1e-6 * scale)
    assert np.abs(after[0] - before[0]).max() > 1e-3 * np.abs(before[0] - before[1]).max()
    for key, value in learners.read_values(model).items():
        np.testing.assert_array_equal(value, values[key])
    # While training, batch normalisation and nothing else lets an image act on the others.
    mixed = [model(batch, is_training=True).numpy()[1:] for batch in (images, changed)]
    difference = np.abs(mixed[0] - mixed[1]).max()
    assert (difference > 1e-4 * scale) == (name in WITH_BATCH_NORM)


@pytest.mark.parametrize("name", _others_slow(ALL))
def test_xla_computes_the_same_with_static_shapes(name):
    model, images = _evaluated(name, initialisation="kaiming_normal"), _images(2)

    def logits_and_gradient(images):
        with tf.GradientTape() as tape:
            tape.watch(images)
            logits = model(images, is_training=False)
            total = tf.reduce_sum(logits**2)
        return logits, tape.gradient(total, images)

    compiled = tf.function(logits_and_gradient, jit_compile=True, autograph=False)
    for ours, expected in zip(compiled(images), logits_and_gradient(images), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("name", _ALWAYS)
def test_one_trace_serves_all_batch_sizes(name):
    model = _evaluated(name)
    function = tf.function(
        lambda images: model(images, is_training=False), input_signature=[tf.TensorSpec([None, *_SHAPE])]
    )
    for count in (1, 3):
        np.testing.assert_allclose(
            function(_images(count)), model(_images(count), is_training=False), rtol=1e-4, atol=1e-5
        )
    assert function.experimental_get_tracing_count() == 1


@pytest.mark.parametrize("name", PLAIN)
def test_fixup_begins_with_equal_probabilities_and_no_input_gradient(name):
    model = _build(name, tf.float64, initialisation="fixup")
    images = _images(4, tf.float64)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(images)
        logits = tf.unstack(model(images, is_training=False), axis=1)
    cross_entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(np.arange(4) % _CLASSES, tf.stack(logits, axis=1))
    np.testing.assert_allclose(cross_entropy, np.log(_CLASSES), rtol=1e-12)
    for logit in logits:
        np.testing.assert_array_equal(tape.gradient(logit, images), np.zeros(images.shape))


@pytest.mark.parametrize("name", ALL)
def test_a_checkpoint_brings_back_every_variable(name, tmp_path):
    model = _evaluated(name)
    checkpoints.write(model, tmp_path / "ckpt-3", epoch=3, global_step=30)
    architecture, options = ALL[name]
    tf.random.set_seed(1)
    other = registry.build(architecture, _CLASSES, _SHAPE, options)
    images = _images(3)
    assert not np.allclose(other(images, is_training=False), model(images, is_training=False), rtol=1e-3)
    state = checkpoints.restore(other, tmp_path / "ckpt-3")
    assert (state.epoch, state.global_step) == (3, 30)
    np.testing.assert_array_equal(other(images, is_training=False), model(images, is_training=False))


_TRAINED = [("conv5", "default"), ("resnet18", "fixup"), ("vgg11, batch norm", "default"), ("vit", "default")]
_TRAINED_SLOWLY = [
    ("conv5, averages", "kaiming_normal"),
    ("conv5, batch norm", "default"),
    ("resnet18, batch norm", "kaiming_normal"),
    ("resnet34", "fixup"),
    ("resnet34, batch norm", "default"),
    ("vgg11", "kaiming_normal"),
    ("vgg13", "kaiming_normal"),
    ("vgg16", "kaiming_normal"),
    ("vgg19", "fixup"),
    ("vgg19, batch norm", "default"),
    ("vit", "fixup"),
]


@pytest.mark.parametrize(
    ("name", "initial"), [*_TRAINED, *(pytest.param(*pair, marks=pytest.mark.slow) for pair in _TRAINED_SLOWLY)]
)
def test_it_can_be_trained(name, initial):
    config = training_config.TrainingConfig(num_epochs=6, batch_size=20, learning_rate=0.02)
    # Classes by brightness, so that there is something to learn.
    labels = np.arange(60) % _CLASSES
    images = _images(60).numpy() * 0.5 + labels[:, None, None, None] * 0.5
    model = _build(name, initialisation=initial)
    before = learners.read_values(model)
    trainer = training_loop.Trainer(
        learners.SingleLearner(model), images, labels, lambda batch: tf.cast(batch, "float32") - 1.25, config
    )
    run = batches.RunDraw(("e", 0.7, 0), subsets.subset_indices("e", 0.7, 0, 60))
    losses = trainer.train([run], [before])
    assert np.isfinite(losses).all()
    assert losses[-1, 0] < losses[0, 0]
    after = learners.read_values(model)
    still = {key for key, value in before.items() if np.array_equal(value, after[key])}
    assert still == set()
