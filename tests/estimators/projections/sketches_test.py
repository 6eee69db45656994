"""Random maps: inner products on average, and their spread, against the closed forms."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from estimators import errors
from estimators.projections import random_signs, sketches

_SIZE, _DIMENSION = 50, 12
_NUM_DRAWS = 600


def _pair():
    rng = np.random.default_rng(3)
    first = rng.normal(size=_SIZE) * np.linspace(0.2, 2.0, _SIZE)
    return np.stack([first, 0.5 * first + rng.normal(size=_SIZE)])


def _variance(kind, pair):
    first, second = pair
    dot, fourth = first @ second, np.sum((first * second) ** 2)
    if kind == "coordinates":
        share = (_SIZE - _DIMENSION) / (_SIZE - 1)
        return _SIZE / _DIMENSION * share * (fourth - dot**2 / _SIZE)
    full = ((first @ first) * (second @ second) + dot**2 - 2 * fourth) / _DIMENSION
    return full * (64 - _DIMENSION) / 63 if kind == "hadamard" else full


def _matrix(sketch, seed, member=0):
    """[P, d] of a map, written out."""
    return sketch.project(tf.eye(sketch.size, dtype=tf.float64), sketch.draw(seed, member)).numpy()


@pytest.mark.parametrize("kind", ["signs", "hadamard", "sparse_signs", "coordinates"])
def test_inner_products_are_kept_on_average_with_the_variance_of_the_closed_form(kind):
    sketch, pair = sketches.SKETCHES[kind](_SIZE, _DIMENSION), _pair()
    compute = tf.function(sketch.project, autograph=False)
    products = []
    for member in range(_NUM_DRAWS):
        first, second = compute(tf.constant(pair), sketch.draw(7, member)).numpy()
        products.append(first @ second)
    assert compute.experimental_get_tracing_count() == 1
    deviations = np.array(products) - pair[0] @ pair[1]
    variance = _variance(kind, pair)
    assert abs(deviations.mean()) < 4 * np.sqrt(variance / _NUM_DRAWS)
    spread = np.std(deviations**2) / np.sqrt(_NUM_DRAWS)
    assert abs(np.mean(deviations**2) - variance) < 4 * spread


@pytest.mark.parametrize("kind", sorted(sketches.SKETCHES))
def test_rows_are_mapped_alike_in_any_batch_and_order(kind):
    sketch = sketches.SKETCHES[kind](_SIZE, _DIMENSION)
    draw, rows = sketch.draw(1), np.random.default_rng(0).normal(size=(9, _SIZE))
    together = sketch.project(tf.constant(rows), draw).numpy()
    alone = np.concatenate([sketch.project(tf.constant(rows[k : k + 1]), sketch.draw(1)).numpy() for k in range(9)])
    turned = sketch.project(tf.constant(rows[::-1].copy()), draw).numpy()[::-1]
    np.testing.assert_allclose(alone, together, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(turned, together, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("kind", sorted(sketches.SKETCHES))
def test_compiled_maps_are_the_same(kind):
    sketch = sketches.SKETCHES[kind](_SIZE, _DIMENSION)
    rows, draw = tf.constant(np.random.default_rng(0).normal(size=(3, _SIZE))), sketch.draw(1)
    compiled = tf.function(sketch.project, autograph=False, jit_compile=True)
    np.testing.assert_allclose(compiled(rows, draw), sketch.project(rows, draw), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("kind", ["signs", "hadamard", "sparse_signs", "coordinates"])
def test_seeds_and_members_give_other_maps_and_the_same_ones_again(kind):
    sketch = sketches.SKETCHES[kind](_SIZE, _DIMENSION)
    first = _matrix(sketch, 1)
    np.testing.assert_array_equal(_matrix(sketch, 1), first)
    for seed, member in ((2, 0), (1, 1), (0, 1)):
        assert (_matrix(sketch, seed, member) != first).any()


def test_blocks_change_nothing_but_memory_and_are_independent(monkeypatch):
    monkeypatch.setattr(sketches, "_BLOCK_ELEMENTS", 20 * _DIMENSION)
    matrix = _matrix(sketches.Signs(_SIZE, _DIMENSION), 5) * np.sqrt(_DIMENSION)
    np.testing.assert_allclose(np.abs(matrix), 1.0)
    blocks = matrix[:20], matrix[20:40]
    # Equal signs are as many as not, within four standard errors.
    assert abs(np.mean(blocks[0] * blocks[1])) < 4 / np.sqrt(blocks[0].size)
    key = random_signs.key(5)
    truth = [random_signs.signs(key, 0, block, (20, _DIMENSION), tf.float64).numpy() for block in range(3)]
    np.testing.assert_allclose(matrix, np.concatenate(truth)[:_SIZE])


def test_bits_of_streams_blocks_seeds_and_members_do_not_meet():
    places = list(itertools.product((0, 1), (0, 1), (0, 1, 2**30), (0, 1, 2**31)))
    found = np.concatenate(
        [random_signs.words(random_signs.key(seed, member), s, b, 1000).numpy() for seed, member, s, b in places]
    )
    # Of n words of 32 bits some n^2 / 2^33 pairs agree by chance; blocks that overlap would share hundreds.
    pairs = len(found) - len(np.unique(found))
    assert pairs < len(found) ** 2 / 2**33 + 4 * np.sqrt(len(found) ** 2 / 2**33) + 1


def test_no_two_pairs_of_seed_and_member_have_one_key():
    numbers = (0, 1, 2, 3, 2**16, 2**31, 2**32 - 1)
    pairs = list(itertools.product(numbers, repeat=2))
    assert len({random_signs.packed(seed, member) for seed, member in pairs}) == len(pairs)
    assert max(random_signs.packed(seed, member) for seed, member in pairs) < 2**64


def test_signs_are_balanced_and_uncorrelated():
    signs = random_signs.signs(random_signs.key(0), 0, 0, (4096, 64)).numpy().astype(np.float64)
    gram = signs.T @ signs / len(signs)
    np.testing.assert_array_equal(np.diag(gram), 1.0)
    assert np.abs(gram - np.eye(64)).max() < 5 / np.sqrt(len(signs))
    assert np.abs(signs.mean(axis=0)).max() < 4.5 / np.sqrt(len(signs))


def test_all_of_the_hadamard_transform_is_orthogonal():
    matrix = _matrix(sketches.Hadamard(_SIZE, 64), 3)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(_SIZE), atol=1e-12)


def test_the_hadamard_map_spreads_what_its_transform_would_gather():
    """The transform of a constant is one number, which few chosen coordinates would miss or count too often."""
    sketch = sketches.Hadamard(1024, 128)
    for seed in range(5):
        length = np.sum(sketch.project(tf.ones([1, 1024], tf.float64), sketch.draw(seed)).numpy() ** 2)
        assert abs(length / 1024 - 1) < 5 * np.sqrt(2 / 128)


@pytest.mark.parametrize("size", [1, 2, 64, 128, 8192])
def test_the_hadamard_transform_is_that_of_sylvester_s_matrix(size):
    rows = np.random.default_rng(0).normal(size=(2, size))
    columns = np.arange(size)
    signs = 1.0 - 2.0 * (np.bitwise_count(np.bitwise_and.outer(columns[:97], columns)) % 2)
    np.testing.assert_allclose(
        sketches.hadamard_transform(tf.constant(rows)).numpy()[:, :97], rows @ signs.T, atol=1e-10
    )


def test_sparse_signs_have_four_in_each_column_one_in_each_part():
    matrix = _matrix(sketches.SparseSigns(_SIZE, 16), 2)
    assert set(np.unique(np.abs(matrix))) == {0.0, 0.5}
    np.testing.assert_array_equal((matrix != 0).reshape(_SIZE, 4, 4).sum(axis=2), 1)
    few = _matrix(sketches.SparseSigns(_SIZE, 3), 2)
    np.testing.assert_allclose(np.sum(few**2, axis=1), 1.0)


def test_what_cannot_be_is_refused():
    with pytest.raises(errors.InvalidArgumentError, match="dimension 65: hadamard chooses among 64"):
        sketches.Hadamard(_SIZE, 65)
    with pytest.raises(errors.InvalidArgumentError, match="dimension 51: coordinates chooses among 50"):
        sketches.Coordinates(_SIZE, 51)
    for kind in sketches.SKETCHES.values():
        with pytest.raises(errors.InvalidArgumentError, match="seed -1: must be from 0 to 4294967295"):
            kind(_SIZE, _DIMENSION).draw(-1)
        with pytest.raises(errors.InvalidArgumentError, match="member 4294967296"):
            kind(_SIZE, _DIMENSION).draw(0, 2**32)
