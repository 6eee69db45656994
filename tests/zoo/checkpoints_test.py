"""Checkpoints: TensorFlow's own keys, and a restore that sets every variable or none."""

import pathlib

import numpy as np
import pytest
import sonnet as snt
import tensorflow as tf

from zoo import checkpoints, errors, files

INDEX, DATA = ".index", ".data-00000-of-00001"


class Block(snt.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = snt.Conv2D(channels, 3, with_bias=False)
        self.bn = snt.BatchNorm(create_scale=True, create_offset=True)

    def __call__(self, images, is_training):
        return tf.nn.relu(self.bn(self.conv(images), is_training=is_training))


class Net(snt.Module):
    """Nested, with lists, a dictionary whose keys need escaping, and one layer that two paths lead to."""

    def __init__(self, num_classes=3, num_blocks=2):
        super().__init__()
        self.body = [Block(4) for _ in range(num_blocks)]
        self.heads = {"a/b.c": snt.Linear(num_classes), "plain": [snt.Linear(num_classes)]}
        self.also_first = self.body[0]
        self.steps = tf.Variable(0, dtype=tf.int32, trainable=False)

    def __call__(self, images, is_training):
        for block in self.body:
            images = block(images, is_training)
        features = tf.reduce_max(images, [1, 2])
        return self.heads["a/b.c"](features) + self.heads["plain"][0](features)


def built(model):
    model(tf.zeros([1, 5, 5, 2]), is_training=True)
    return model


def randomized(model, seed):
    generator = np.random.default_rng(seed)
    for variable in checkpoints.model_variables(model).values():
        variable.assign(tf.cast(generator.normal(size=variable.shape) * 10, variable.dtype))
    return model


def values_of(model):
    return {key: variable.numpy() for key, variable in checkpoints.model_variables(model).items()}


def assert_same_values(values, expected):
    assert list(values) == list(expected)
    for key, value in expected.items():
        np.testing.assert_array_equal(values[key], value, err_msg=key)


@pytest.fixture
def written(tmp_path):
    """A model, and its checkpoint."""
    model = randomized(built(Net()), 0)
    checkpoints.write(model, tmp_path / "checkpoints" / "ckpt-3", epoch=3, global_step=120)
    return model, tmp_path / "checkpoints" / "ckpt-3"


def test_keys_are_those_that_tensorflow_writes(tmp_path):
    model = built(Net())
    prefix = tf.train.Checkpoint(model=model).write(str(tmp_path / "by_tensorflow"))
    stored = {
        name.removesuffix("/.ATTRIBUTES/VARIABLE_VALUE"): tuple(shape)
        for name, shape in tf.train.list_variables(prefix)
        if name.startswith("model/")
    }
    variables = checkpoints.model_variables(model)
    assert {key: tuple(variable.shape) for key, variable in variables.items()} == stored
    assert list(variables) == sorted(variables)
    assert len(variables) == len(model.variables)
    assert "model/also_first/bn/moving_mean/average" in variables
    assert "model/body/1/conv/w" in variables
    assert "model/heads/a.Sb..c/w" in variables
    assert variables["model/heads/plain/0/b"] is model.heads["plain"][0].b


def test_keys_hold_the_values_that_tensorflow_writes(tmp_path):
    model = randomized(built(Net()), 1)
    prefix = tf.train.Checkpoint(model=model).write(str(tmp_path / "by_tensorflow"))
    for key, value in values_of(model).items():
        np.testing.assert_array_equal(tf.train.load_variable(prefix, f"{key}/.ATTRIBUTES/VARIABLE_VALUE"), value)


def test_listing(written):
    model, prefix = written
    listing = checkpoints.read_listing(prefix)
    assert listing == {key: (value.shape, str(value.dtype)) for key, value in values_of(model).items()}
    assert listing["model/also_first/conv/w"] == ((3, 3, 2, 4), "float32")
    assert listing["model/also_first/bn/moving_mean/_counter"] == ((), "int64")


def test_round_trip(written):
    model, prefix = written
    other = randomized(built(Net()), 1)
    state = checkpoints.restore(other, str(prefix))
    assert state == checkpoints.CheckpointState(epoch=3, global_step=120)
    assert_same_values(values_of(other), values_of(model))
    images = tf.random.stateless_uniform([2, 5, 5, 2], [1, 2])
    np.testing.assert_array_equal(other(images, is_training=False), model(images, is_training=False))


def test_write_leaves_two_files_and_tensorflow_reads_them(written):
    model, prefix = written
    assert sorted(path.name for path in prefix.parent.iterdir()) == ["ckpt-3" + DATA, "ckpt-3" + INDEX]
    other = randomized(built(Net()), 1)
    epoch, step = tf.Variable(0, dtype=tf.int64), tf.Variable(0, dtype=tf.int64)
    status = tf.train.Checkpoint(model=other, epoch=epoch, global_step=step).read(str(prefix))
    status.assert_consumed()
    assert_same_values(values_of(other), values_of(model))
    assert (int(epoch), int(step)) == (3, 120)


def test_write_replaces(written):
    _, prefix = written
    model = randomized(built(Net()), 5)
    checkpoints.write(model, prefix, epoch=4, global_step=160)
    assert checkpoints.restore(built(Net()), prefix).epoch == 4
    assert len(list(prefix.parent.iterdir())) == 2


def test_a_killed_write_leaves_no_index(written, monkeypatch):
    _, prefix = written
    real_sync = files.sync

    def interrupted(path):
        real_sync(path)
        raise KeyboardInterrupt

    monkeypatch.setattr(files, "sync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        checkpoints.write(built(Net()), prefix.with_name("ckpt-4"), epoch=4, global_step=160)
    assert sorted(path.name for path in prefix.parent.iterdir()) == ["ckpt-3" + DATA, "ckpt-3" + INDEX]


def test_a_write_killed_between_its_renames_leaves_no_old_index_to_new_data(written, monkeypatch):
    _, prefix = written
    old_data = prefix.with_name(prefix.name + DATA).read_bytes()
    real_replace = pathlib.Path.replace

    def interrupted(self, target):
        real_replace(self, target)
        raise KeyboardInterrupt

    monkeypatch.setattr(pathlib.Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        checkpoints.write(randomized(built(Net()), 9), prefix, epoch=4, global_step=160)
    assert [path.name for path in prefix.parent.iterdir()] == ["ckpt-3" + DATA]
    assert prefix.with_name(prefix.name + DATA).read_bytes() != old_data


@pytest.mark.parametrize("method", ["save", "write"])
def test_checkpoints_of_tensorflow_with_and_without_save_counter(tmp_path, method):
    model = randomized(built(Net()), 0)
    counters = {"epoch": tf.Variable(160, dtype=tf.int64), "global_step": tf.Variable(9, dtype=tf.int64)}
    prefix = getattr(tf.train.Checkpoint(model=model, **counters), method)(str(tmp_path / "ckpt"))
    assert ("save_counter/.ATTRIBUTES/VARIABLE_VALUE" in dict(tf.train.list_variables(prefix))) == (method == "save")
    other = randomized(built(Net()), 1)
    assert checkpoints.restore(other, prefix) == checkpoints.CheckpointState(160, 9)
    assert_same_values(values_of(other), values_of(model))
    assert list(checkpoints.read_listing(prefix)) == list(values_of(model))


def test_checkpoints_without_epoch_and_step(tmp_path):
    prefix = tf.train.Checkpoint(model=built(Net())).write(str(tmp_path / "ckpt"))
    assert checkpoints.restore(built(Net()), prefix) == checkpoints.CheckpointState(None, None)


@pytest.mark.parametrize("epoch", [tf.constant([1, 2], tf.int64), tf.constant(1.5)])
def test_epochs_that_are_no_integer(tmp_path, epoch):
    prefix = tf.train.Checkpoint(model=built(Net()), epoch=tf.Variable(epoch)).write(str(tmp_path / "ckpt"))
    model = randomized(built(Net()), 1)
    before = values_of(model)
    with pytest.raises(errors.MismatchError, match=r"epoch has shape .* expected one integer"):
        checkpoints.restore(model, prefix)
    assert_same_values(values_of(model), before)


class Deep(Net):
    """The network with twelve blocks instead of two."""

    def __init__(self):
        super().__init__(num_blocks=12)


class OtherType(Net):
    """The network with its counter of another type."""

    def __init__(self):
        super().__init__()
        self.steps = tf.Variable(0, dtype=tf.int64, trainable=False)


class Extra(Net):
    """The network with one variable more."""

    def __init__(self):
        super().__init__()
        self.temperature = tf.Variable(1.0)


def refused(model, prefix):
    """The message of the refusal, once it is clear that nothing was assigned."""
    before = values_of(model)
    with pytest.raises(errors.MismatchError) as caught:
        checkpoints.restore(model, prefix)
    assert_same_values(values_of(model), before)
    return str(caught.value)


def test_variables_missing_in_the_file(written):
    message = refused(built(Extra()), written[1])
    assert str(written[1]) in message
    assert "the model's 24 variables do not match the file's 23." in message
    assert "1 only in the model: model/temperature" in message
    assert "only in the file" not in message


def test_variables_missing_in_the_model(tmp_path):
    checkpoints.write(built(Extra()), tmp_path / "ckpt-1", 1, 1)
    message = refused(built(Net()), tmp_path / "ckpt-1")
    assert "1 only in the file: model/temperature" in message
    assert "only in the model" not in message


def test_wrong_shape(written):
    message = refused(built(Net(num_classes=5)), written[1])
    assert "4 of another shape: model/heads/a.Sb..c/b (model (5,), file (3,)), " in message
    assert "model/heads/plain/0/w (model (4, 5), file (4, 3))" in message


def test_variables_that_are_left_out_keep_their_values_and_all_others_must_match(written):
    heads = [key for key in checkpoints.model_variables(built(Net())) if key.startswith("model/heads/")]
    model = randomized(built(Net(num_classes=5)), 3)
    before = values_of(model)
    checkpoints.restore(model, written[1], without=heads)
    stored, found = values_of(written[0]), values_of(model)
    assert len(heads) == 4
    assert_same_values({key: found[key] for key in heads}, {key: before[key] for key in heads})
    body = set(stored) - set(heads)
    assert_same_values({key: found[key] for key in body}, {key: stored[key] for key in body})
    with pytest.raises(errors.MismatchError, match=r"1 of another shape: model/heads/plain/0/w"):
        checkpoints.restore(model, written[1], without=[key for key in heads if key != "model/heads/plain/0/w"])


def test_wrong_dtype(written):
    assert "1 of another dtype: model/steps (model int64, file int32)" in refused(built(OtherType()), written[1])


def test_wrong_architecture_lists_ten_and_a_count(written):
    message = refused(built(Deep()), written[1])
    line = next(line for line in message.splitlines() if "only in the model" in line)
    assert line.strip().startswith("90 only in the model: model/body/10/bn/moving_mean/_counter, ")
    assert line.count("model/") == 10
    assert line.endswith(", ...")


def test_models_that_were_never_called(written):
    assert "18 only in the file: model/also_first/bn/" in refused(Net(), written[1])
    assert "call it once before it is restored" in refused(tf.Module(), written[1])


@pytest.mark.parametrize("suffix", [INDEX, DATA])
def test_missing_files(written, suffix):
    model, prefix = written
    path = prefix.with_name(prefix.name + suffix)
    path.unlink()
    for function in (lambda: checkpoints.read_listing(prefix), lambda: checkpoints.restore(model, prefix)):
        with pytest.raises(errors.MissingFileError, match="no such file") as caught:
            function()
        assert str(path) in str(caught.value)


def damage(prefix, suffix, change):
    path = prefix.with_name(prefix.name + suffix)
    data = bytearray(path.read_bytes())
    change(data)
    path.write_bytes(bytes(data))


def test_truncated_data(written):
    model, prefix = written
    other = randomized(built(Net()), 1)
    before = values_of(other)
    whole = prefix.with_name(prefix.name + DATA).read_bytes()
    for kept in (0, 1, len(whole) // 2, len(whole) - 1):
        prefix.with_name(prefix.name + DATA).write_bytes(whole[:kept])
        with pytest.raises(errors.DamagedFileError, match="ckpt-3: damaged checkpoint: "):
            checkpoints.restore(other, prefix)
        assert_same_values(values_of(other), before)
    prefix.with_name(prefix.name + DATA).write_bytes(whole)
    checkpoints.restore(other, prefix)
    assert_same_values(values_of(other), values_of(model))


def flip(position, bit):
    def change(data):
        data[position % len(data)] ^= 1 << bit

    return change


def test_flipped_bits_of_the_data(written):
    _, prefix = written
    path = prefix.with_name(prefix.name + DATA)
    whole = path.read_bytes()
    other = randomized(built(Net()), 1)
    before = values_of(other)
    generator = np.random.default_rng(0)
    for _ in range(60):
        path.write_bytes(whole)
        damage(prefix, DATA, flip(int(generator.integers(len(whole))), int(generator.integers(8))))
        with pytest.raises(errors.DamagedFileError, match="ckpt-3: damaged checkpoint: "):
            checkpoints.restore(other, prefix)
        assert_same_values(values_of(other), before)


def test_damaged_index(written):
    model, prefix = written
    path = prefix.with_name(prefix.name + INDEX)
    whole = path.read_bytes()
    listing = checkpoints.read_listing(prefix)
    other = randomized(built(Net()), 1)
    generator = np.random.default_rng(0)
    num_found = 0
    for number in range(60):
        path.write_bytes(whole)
        position = int(generator.integers(len(whole)))
        if number % 4:
            damage(prefix, INDEX, flip(position, int(generator.integers(8))))
        else:
            path.write_bytes(whole[:position])
        try:
            found = checkpoints.read_listing(prefix)
            checkpoints.restore(other, prefix)
        except errors.DamagedFileError:
            num_found += 1
        else:
            assert found == listing
            assert_same_values(values_of(other), values_of(model))
    assert num_found > 40
