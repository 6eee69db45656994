"""A network in the folder of train_model, a run of a zoo, and tables that no network stands behind."""

import dataclasses
import pathlib

import numpy as np
import tensorflow as tf

from heldout.datasets import registry
from heldout.experiments import label_noise, recipes, training_config
from heldout.models import registry as models
from heldout.training import model_data, model_files, model_runs, model_settings
from scripts.jacobian_stats import stats_config, stats_run, stats_sources
from tests import cases
from zoo import aux_arrays, checkpoints, files, layout

EPOCHS = (0, 2, 5)


def model_run(folder, seed=0, noise=0.2, width=8, weights=1, outcome=model_files.FINISHED, **options):
    """The folder of a network of a layer, as train_model leaves it, with weights that were never trained.

    Without an outcome its training has not ended.
    """
    folder.mkdir(exist_ok=True)
    name = cases.tiny_digits_npz(folder / "tiny.npz")
    settings = model_settings.ModelSettings(
        name,
        "mlp",
        training_config.TrainingConfig(num_epochs=5, batch_size=10),
        {"hidden_sizes": [width]},
        noise=None if noise is None else label_noise.LabelNoise("symmetric", share=noise),
        train_split=40,
        val_split=10,
        seed=seed,
        checkpoint_epochs=EPOCHS,
        **options,
    )
    fingerprint = model_data.load(settings).fingerprint()
    settings = model_settings.ModelSettings.from_json(settings.to_json() | {"fingerprint": fingerprint})
    home = model_files.directory(folder, "nets", settings)
    home.mkdir(parents=True)
    model_files.adopt_settings(home, settings)
    for epoch in EPOCHS:
        tf.random.set_seed(100 * weights + 10 * seed + epoch)
        module = model_runs.build(settings, 10, (8, 8, 1))
        checkpoints.write(module, model_files.checkpoint_prefix(home, epoch), epoch=epoch, global_step=4 * epoch)
    rows = np.full((len(EPOCHS), len(model_files.HISTORY_COLUMNS)), np.nan)
    rows[:, :3] = [[epoch, 4 * epoch, 0.1] for epoch in EPOCHS]
    for column, values in (("train_error", (0.9, 0.4, 0.0)), ("test_error", (0.8, 0.5, 0.3 + 0.1 * seed))):
        rows[:, model_files.HISTORY_COLUMNS.index(column)] = values
    model_files.write_history(home, rows)
    if outcome is not None:
        files.write_json(home / model_files.RESULT_NAME, model_files.result_of(outcome, "as asked for", rows[-1]))
    return home


def zoo_run(folder, run_id=3, weights=1):
    """A run of an experiment e at ratio 0.5, with checkpoints of the epochs 1 and 2."""
    name = f"npz:{folder / 'tiny.npz'}"
    if not (folder / "tiny.npz").exists():
        cases.tiny_digits_npz(folder / "tiny.npz")
    data = registry.load(name)
    recipe = dataclasses.replace(cases.tiny_recipe(data), dataset_flag=name)
    recipes.adopt(folder / "zoo", recipe)
    run = layout.Run(folder / "zoo", "e", 0.5, run_id)
    for epoch in (1, 2):
        tf.random.set_seed(1000 * weights + 10 * run_id + epoch)
        module = models.build("mlp", 10, (8, 8, 1), {"hidden_sizes": [8]})
        checkpoints.write(module, run.checkpoint_prefix(epoch), epoch=epoch, global_step=3 * epoch)
    correct = np.random.default_rng([run_id, 1]).random(60) < 0.7
    aux_arrays.write(run.aux_arrays_path, aux_arrays.from_masks(subset(run_id), correct, np.ones(20, bool)))
    return run


def subset(run_id):
    """[60] bool, what a run was trained on."""
    return np.random.default_rng(run_id).permutation(60) < 30


def source(folder, **options):
    """The source of a run in a folder."""
    config = stats_config.SourceConfig(run=str(folder), **options)
    return stats_sources.load(config)


def measurement(folder, outdir=None, **options):
    """Of a run in a folder, all checkpoints."""
    config = stats_config.StatsConfig(**{"checkpoints": ("all",)} | options)
    return stats_run.Measurement(config, source(folder), outdir or pathlib.Path(folder) / "jacobian_stats")


def dense(predict, inputs):
    """Jacobians [N, K, D] by TensorFlow's own."""
    x = tf.constant(inputs)
    with tf.GradientTape() as tape:
        tape.watch(x)
        outputs = predict(x)
    found = tape.batch_jacobian(outputs, x).numpy().astype(np.float64)
    return found.reshape([*found.shape[:2], -1])
