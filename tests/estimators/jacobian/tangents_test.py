"""Changes over colour-jittered copies against the same written out copy by copy."""

import numpy as np
import pytest
import tensorflow as tf

from estimators import errors, examples
from estimators.jacobian import functions, keys, normalisations, tangents
from tests.estimators.jacobian import networks

_IDS = np.arange(5) + 40


def _images(channels=3):
    return np.random.default_rng(0).uniform(0.2, 0.8, (5, 8, 8, channels))


def _network(channels=3):
    kernel, head = networks.weights(3, 3, channels, 4), networks.weights(4, 3)

    def predict(x):
        return tf.reduce_sum(tf.tanh(tf.nn.conv2d(x, kernel, 1, "SAME")), [1, 2]) @ head

    return functions.of(predict, _images(channels))


def test_copies_change_brightness_contrast_and_saturation():
    images = _images()
    found = tangents.Jitter(strength=0.2, seed=7).copies(images, _IDS)
    assert found.shape == (5, 4, 8, 8, 3)
    grey = np.array([0.299, 0.587, 0.114])
    brightness, contrast, saturation = keys.generator(7, "jitter", 42).uniform(0.8, 1.2, (4, 3))[1]
    x = np.clip(images[2] * brightness, 0, 1)
    x = np.clip(contrast * x + (1 - contrast) * (x @ grey).mean(), 0, 1)
    x = np.clip(saturation * x + (1 - saturation) * (x @ grey)[..., None], 0, 1)
    np.testing.assert_allclose(found[2, 1], x, rtol=1e-12)


def test_colours_change_in_pixels_also_where_inputs_are_standardised():
    images, mean, deviation = _images(), (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)
    standardised = (images - np.array(mean)) / np.array(deviation)
    jitter = tangents.Jitter(mean=mean, standard_deviation=deviation)
    expected = (tangents.Jitter().copies(images, _IDS) - np.array(mean)) / np.array(deviation)
    np.testing.assert_allclose(jitter.copies(standardised, _IDS), expected, rtol=1e-9, atol=1e-12)


def test_grey_images_have_no_saturation_and_nothing_need_be_clipped():
    images = np.ones((1, 4, 4, 1))
    assert tangents.Jitter(strength=0.5).copies(images, [0]).max() <= 1
    free = tangents.Jitter(strength=0.5, pixel_range=None, num_copies=20).copies(images, [0])
    assert free.max() > 1
    np.testing.assert_allclose(free.std(axis=(2, 3, 4)), 0, atol=1e-12)


@pytest.mark.parametrize("name", ["none", "softmax", "crossentropy"])
@pytest.mark.parametrize("only", [False, True])
def test_metrics_are_those_written_out(name, only):
    function, images, labels = _network(), _images(), np.array([0, 1, 2, 0, 1])
    jitter = tangents.Jitter(num_copies=3, strength=0.05)
    found = tangents.measure(
        function, examples.Examples(images, labels, _IDS), name, jitter=jitter, target_logit_only=only, batch_size=2
    )
    copies = jitter.copies(images, _IDS)
    for k in range(5):
        label = tf.constant(labels[k : k + 1])

        def values(x, label=label):
            return normalisations.apply(name, function.predict(x), label, only)

        points = np.concatenate([images[k : k + 1], copies[k]])
        outputs = np.stack([values(tf.constant(x[None])).numpy()[0] for x in points])
        slopes = networks.dense_jacobians(values, points).reshape([4, -1])
        distances = np.linalg.norm((points[1:] - points[0]).reshape([3, -1]), axis=1)
        for array, published, true in (
            (outputs, found.jacobian, found.jacobian_by_distance),
            (slopes, found.hessian, found.hessian_by_distance),
        ):
            moved = np.linalg.norm(array[1:] - array[0], axis=1)
            np.testing.assert_allclose(published[k], np.sqrt(np.mean(moved**2)) / 0.1, rtol=1e-8)
            np.testing.assert_allclose(true[k], np.sqrt(np.mean((moved / distances) ** 2)), rtol=1e-8)
        np.testing.assert_allclose(found.distances[k], distances)


def test_linear_functions_have_no_tangent_hessian():
    head = networks.weights(192, 3)
    function = functions.of(lambda x: tf.reshape(x, [-1, 192]) @ head, _images())
    found = tangents.measure(function, (_images(), [0] * 5))
    np.testing.assert_allclose(found.hessian, 0, atol=1e-12)
    assert (found.jacobian > 0).all()
    small = found.jacobian_by_distance
    assert (small <= np.linalg.norm(head.numpy(), 2)).all()
    alone = tangents.measure(function, (_images(), [0] * 5), with_hessian=False)
    assert alone.hessian is None
    np.testing.assert_allclose(alone.jacobian, found.jacobian, rtol=1e-10)


def test_misuse_is_refused():
    with pytest.raises(errors.InvalidArgumentError, match="expected at least 1, a number between 0 and 1"):
        tangents.Jitter(strength=1.0)
    with pytest.raises(errors.InvalidArgumentError, match="colours are those of images"):
        tangents.Jitter().copies(np.zeros((1, 4, 4, 2)), [0])
