r"""Trains a network again without each of some examples: the truth that scores of unique information approximate.

    python -m scripts.ground_truth_effects --dataset=digits --classes=3,8 --num_train=60 --num_val=60 \
        --learning_rate=0.1 --num_steps=200 --which=0:10 --outdir=/tmp/truth

draws --num_train training and --num_val validation examples of --classes from the data set, trains a network on them by
full-batch gradient descent on 1/2 |f - y|^2 (two classes are one output, regressed on 0 and 1; inputs in [0, 1]), and
then from the same initialisation once more for each example, or group, of --which, without it. What is left counts with
its own mean. Many small networks are one batched computation. --which is

    all, 0:60 or 3,7    the drawn examples, or some by their place among them, each alone
    random:60           60 of them
    stratified:60       one of each of 60 equal parts of them in the order of a score: --scores=FILE --column=NAME
    PATH                a file with a group a line, of positions in the training split; or an npz file with train_index

It writes, under --outdir,

    ground_truth.npz    per group the squared change of weights and of validation predictions, the change of each of
                        them, and the change of the prediction for itself; a change is deleted minus full
    full_run.npz        data, labels, predictions and losses of the full network; with --record_steps along its training
    checkpoints/        step-0 and the last step of the full network, each a tf.train.Checkpoint
    config.json         everything that decides the networks; blocks/ holds what a killed run goes on from

A healthy run ends with lines such as

    full network: loss 0.00412 on 60 training, 0.01146 on 60 validation examples
    10 groups left out: root mean square change of predictions 0.00807 (median), 0.00207 to 0.0181
    ground truth: /tmp/truth/ground_truth.npz

The same command again continues after a kill, and does nothing when all is there; another --which adds to it. A
training that diverges ends with status 1. Next: aggregate_ground_truth, to compare with scores.
"""

from collections.abc import Sequence
import dataclasses
import functools
import pathlib
import re

from absl import flags
import numpy as np

from heldout.datasets import registry
from heldout.running import runners
from heldout.training import leave_out_config, leave_out_data, leave_out_files
from scripts import choices, cli, runner_flags, terminal
from scripts.unique_information import (
    changed_labels,
    experiment_flags,
    left_out_groups,
    score_columns,
    training_flags,
)
from zoo import errors, files, stores

_SHARED_FLAGS = (*experiment_flags.NAMES, *training_flags.NAMES, *runner_flags.NAMES)

_RECORD_STEPS = flags.DEFINE_list(
    "record_steps", [], "Steps after which predictions of the full network are kept: 0,10,100 or every:100."
)
_WHICH = flags.DEFINE_string("which", "all", "What is left out: all, 0:60, random:60, stratified:60, or a file.")
_SCORES = flags.DEFINE_string("scores", None, "Scores for stratified: npz, Parquet or CSV with train_index.")
_COLUMN = flags.DEFINE_string("column", None, "Column of the scores, where there are several.")
_OUTDIR = flags.DEFINE_string("outdir", None, "Folder of the experiment.")


def run(argv: Sequence[str]) -> int:
    """Flags -> config -> trainings -> ground_truth.npz."""
    del argv
    outdir = choices.required_path("outdir", _OUTDIR.value)
    if stores.is_store(outdir):
        raise errors.InvalidValueError(f"--outdir={outdir}: expected a folder; copy it when all is trained")
    record_steps = _record_steps(_RECORD_STEPS.value, experiment_flags.NUM_STEPS.value)
    config, how = experiment_flags.config(record_steps), training_flags.how()
    runners.check(how.runner, how.device)
    scores = _scores()
    terminal.quiet_tensorflow(config.dataset)
    data = leave_out_data.of_dataset(config, registry.load(config.dataset, how.data_dir))
    score = None if scores is None else _score_at(scores, data)
    groups = left_out_groups.parse(_WHICH.value, data.train_index, config.data_seed, score)
    config = dataclasses.replace(config, fingerprint=data.fingerprint())
    leave_out_config.adopt(outdir, config)
    trained = training_flags.train(config, outdir, groups, how, functools.partial(_text, len(groups)))
    return _finish(pathlib.Path(outdir), config, groups, trained)


def _record_steps(parts: list[str], num_steps: int) -> tuple[int, ...]:
    found: set[int] = set()
    for part in parts:
        match = re.fullmatch("every:([1-9][0-9]{0,8})", part.strip())
        found |= set(range(0, num_steps + 1, int(match[1]))) if match else set(choices.integers("record_steps", [part]))
    return tuple(sorted(found))


def _scores() -> score_columns.ScoreColumns | None:
    path = choices.path(_SCORES.value)
    if path is None and _COLUMN.value is not None:
        raise errors.InvalidValueError(f"--column={_COLUMN.value}: names a column of --scores, which are not given")
    return None if path is None else score_columns.read(path)


def _score_at(scores: score_columns.ScoreColumns, data: leave_out_data.LeaveOutData) -> np.ndarray:
    changed_labels.check_order(changed_labels.of_data(data), scores)
    value = scores.column(_COLUMN.value)
    return dataclasses.replace(scores, columns={"score": value}).at(data.train_index)["score"]


def _text(num_groups: int, before: int | None, at: str) -> str:
    if before is None:
        return f"full network: {at}"
    return f"{before} of {files.count_text(num_groups, 'group')} begun or done, {at}"


def _finish(
    outdir: pathlib.Path,
    config: leave_out_config.LeaveOutConfig,
    groups: Sequence[leave_out_files.Group],
    trained: bool,
) -> int:
    full_run = leave_out_files.read_full_run(outdir, config.sha256)
    assert full_run is not None
    path = outdir / leave_out_files.GROUND_TRUTH_NAME
    if trained or not path.exists():
        found = leave_out_files.joined(leave_out_files.read_blocks(outdir, config.sha256))
        leave_out_files.write_ground_truth(outdir, found, full_run, config.sha256)
    effects = leave_out_files.read_ground_truth(outdir)
    print(
        f"full network: loss {full_run['train_loss']:.4g} on {len(full_run['train_index'])} training, "
        f"{full_run['val_loss']:.4g} on {len(full_run['val_index'])} validation examples"
    )
    size = np.sqrt(effects.squared_prediction_change)
    more = len(effects.groups) - len(groups)
    earlier = f" ({more} of earlier calls)" if more else ""
    print(
        f"{files.count_text(len(effects.groups), 'group')} left out{earlier}: root mean square change of predictions "
        f"{np.median(size):.3g} (median), {size.min():.3g} to {size.max():.3g}"
    )
    print(f"ground truth{'' if trained else ' (was there, nothing to do)'}: {path}")
    cli.say_next("aggregate_ground_truth", f"--ground_truth={outdir}", "--scores=FILE", f"--outdir={outdir}/agreement")
    return 0


def main() -> None:
    """Console command."""
    cli.launch(__name__, run, _SHARED_FLAGS)


if __name__ == "__main__":
    main()
