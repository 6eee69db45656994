"""The heat map of influence between classes: what it shows, and when it is drawn again."""

import io

import matplotlib.image
import numpy as np
import pytest

from heldout.report import cross_class_map
from heldout.scoring import class_means, saved_scores
from zoo import errors


def means(values, error=0.0):
    values = np.asarray(values, np.float64)
    size = len(values)
    count = np.full(size, 2)
    return class_means.ClassMeans(values, np.full((size, size), error), count, np.zeros(size, np.int64), count, 9)


def colours(found):
    """Of the squares in the order of the classes, from the middle of each: [K, K, 3]."""
    picture = matplotlib.image.imread(io.BytesIO(cross_class_map.draw(found, "source")))[..., :3]
    # The axes: the largest square of pixels that are not white, left of the bar.
    filled = (picture < 0.999).any(axis=2)
    rows = np.flatnonzero(filled.mean(axis=1) > 0.5)
    columns = np.flatnonzero(filled[rows].all(axis=0))
    columns = columns[: np.flatnonzero(np.diff(columns, append=columns[-1] + 9) > 1)[0] + 1]
    size = found.num_classes
    places = [axis[0] + (len(axis) * (2 * np.arange(size) + 1)) // (2 * size) for axis in (rows, columns)]
    return picture[np.ix_(*places)]


def test_help_and_harm_have_their_colours_and_rows_are_training_classes():
    """Blue above red: help; red above blue: harm."""
    found = colours(means([[5, 1, 0.5], [-1, 5, 0.2], [-0.5, -0.2, 5]]))
    bluer = found[..., 2] - found[..., 0]
    assert (bluer[np.triu_indices(3)] > 0.05).all()
    assert (bluer[np.tril_indices(3, -1)] < -0.05).all()
    assert bluer[0, 1] > bluer[0, 2] > bluer[1, 2]
    np.testing.assert_allclose(found[0, 0], found[0, 1], atol=0.01)


def test_what_may_be_noise_is_pale():
    sure, unsure = (colours(means([[2, 1], [-1, 2]], error))[0, 1] for error in (0.4, 0.6))
    assert unsure.mean() > sure.mean() + 0.1


@pytest.mark.parametrize(
    ("values", "bound"),
    [
        ([[9, 1], [-3, 9]], 3),
        ([[9]], 9),
        ([[0, 0], [0, 0]], 1),
        ([[np.nan, 2], [np.nan, 4]], 2),
        ([[-7, 0], [0, 1]], 7),
    ],
)
def test_colours_reach_as_far_as_the_largest_between_two_classes(values, bound):
    assert cross_class_map.bound(means(values)) == bound


def test_many_classes_are_drawn():
    assert cross_class_map.draw(means(np.random.default_rng(0).normal(size=(300, 300))), "")[:4] == b"\x89PNG"


def test_it_is_drawn_again_only_for_other_means(tmp_path):
    def write(values):
        class_means.write(
            tmp_path / "cross_class-0.7.npz", means(values), 0.7, saved_scores.common_members({}, None, None)
        )

    with pytest.raises(errors.MissingFileError):
        cross_class_map.update(tmp_path, 0.7)
    write([[1, 0], [0, 1]])
    path = cross_class_map.update(tmp_path, 0.7)
    assert path == tmp_path / "cross_class-0.7.png"
    first, time = path.read_bytes(), path.stat().st_mtime_ns
    cross_class_map.update(tmp_path, 0.7)
    assert path.stat().st_mtime_ns == time
    path.write_bytes(first[:100])
    cross_class_map.update(tmp_path, 0.7)
    assert path.read_bytes() == first
    write([[1, 0], [0.5, 1]])
    cross_class_map.update(tmp_path, 0.7)
    assert path.read_bytes() != first
