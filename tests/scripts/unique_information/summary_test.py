"""summarize_dataset as a user starts it, against networks trained on what is left alone; what is added; refusals."""

import csv
import json
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from heldout.datasets import digits
from heldout.models import registry as models
from heldout.training import leave_out_config, leave_out_data, leave_out_files
from scripts.unique_information import dropping_orders, scoring_config, summary_config, summary_files, summary_results
from zoo import checkpoints, errors

_ROOT = pathlib.Path(__file__).parents[3]
_EXPERIMENT = (
    *("--dataset=digits", "--classes=3,8", "--num_train=40", "--num_val=30", '--arch_options={"hidden_sizes": [8]}'),
    *("--learning_rate=0.05", "--num_steps=40", "--label_noise=0.1"),
)
_SUMMARY = (*_EXPERIMENT, "--num_seeds=2", "--workers=1", "--progress=false")


def start(program, *arguments):
    command = [sys.executable, "-m", f"scripts.{program}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=_ROOT, check=False)


def summary(outdir, *arguments):
    return start("summarize_dataset", *_SUMMARY, f"--outdir={outdir}", *arguments)


def rows_of(outdir):
    with open(outdir / summary_results.ROWS_NAME, newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    outdir = tmp_path_factory.mktemp("summary") / "a"
    result = summary(outdir, "--ratios=0,0.5,0.9", "--ways=top,random,iterative_bottom", "--rescore_share=0.2")
    assert result.returncode == 0, result.stderr
    return outdir, result.stdout


def alone(folder, group):
    """Predictions of a network that is trained on what is left alone, written out; the data."""
    settings = leave_out_config.read(folder)
    data = leave_out_data.of_dataset(settings, digits.load())
    module = models.build(settings.architecture, 1, data.image_shape, settings.architecture_options)
    checkpoints.restore(module, leave_out_files.checkpoint_prefix(folder, 0))
    kept = ~np.isin(data.train_index, group)
    inputs, target = tf.constant(data.train_inputs[kept]), data.targets(data.train_label)[kept]
    for _ in range(settings.num_steps):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(module(inputs, is_training=False) - target)) / 2
        for variable, gradient in zip(
            module.trainable_variables, tape.gradient(loss, module.trainable_variables), strict=True
        ):
            variable.assign_sub(settings.learning_rate * gradient)
    return module(tf.constant(data.val_inputs), is_training=False).numpy()[:, 0], data


def test_each_training_is_that_of_a_network_on_what_is_left_alone(done):
    outdir, _ = done
    rows = rows_of(outdir)
    assert len(rows) == 3 * 3 * 2
    seen = 0
    for row in rows:
        way, count, seed = row["way"], int(row["num_dropped"]), int(row["seed"])
        if (way, seed) not in (("top", 1), ("random", 0)):
            continue
        seen += 1
        with np.load(summary_files.subset_path(outdir, f"random-{seed}" if way == "random" else way)) as stored:
            at = stored["num_dropped"].tolist().index(count)
            kept = stored["kept_train_index"][stored["kept_offset"][at] : stored["kept_offset"][at + 1]]
            everything = stored["train_index"]
        assert len(kept) == int(row["num_kept"]) == 40 - count
        prediction, data = alone(summary_files.seed_folder(outdir, seed), np.setdiff1d(everything, kept))
        assert float(row["val_loss"]) == pytest.approx(np.mean((prediction - data.val_label) ** 2) / 2, rel=1e-4)
        assert float(row["val_accuracy"]) == np.mean((prediction > 0.5) == data.val_label)
        assert float(row["val_accuracy_low"]) <= float(row["val_accuracy"]) <= float(row["val_accuracy_high"])
    assert seen == 6


def test_it_says_what_it_did_and_does_nothing_again(done):
    outdir, said = done
    assert "accuracy on 30 validation examples, means over 2 seeds:" in said
    assert "50% (20)  20" in said
    assert (outdir / "summary.png").read_bytes().startswith(b"\x89PNG")
    content = (outdir / summary_results.RESULTS_NAME).read_bytes()
    again = summary(outdir, "--ratios=0,0.5,0.9", "--ways=top,random,iterative_bottom", "--rescore_share=0.2")
    assert again.returncode == 0, again.stderr
    assert "(all trained before)" in again.stdout
    assert (outdir / summary_results.RESULTS_NAME).read_bytes() == content
    points = json.loads(content)["points"]
    one = next(point for point in points if (point["way"], point["num_dropped"]) == ("top", 20))
    of_top = [float(row["val_loss"]) for row in rows_of(outdir) if (row["way"], row["num_dropped"]) == ("top", "20")]
    assert one["val_loss"] == pytest.approx(np.mean(of_top))
    assert one["val_loss_minus_random"] is not None
    assert next(point for point in points if point["way"] == "random")["val_loss_minus_random"] is None


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_results(done, tmp_path):
    outdir = tmp_path / "b"
    shutil.copytree(done[0], outdir)
    content = (outdir / summary_results.RESULTS_NAME).read_bytes()
    data = leave_out_data.of_dataset(leave_out_config.read(summary_files.seed_folder(outdir, 0)), digits.load())
    order = summary_files.read_order(outdir, "iterative_bottom", data.train_index)
    summary_files.write_order(outdir, "iterative_bottom", order[:8])  # killed after the first scoring
    shutil.rmtree(summary_files.seed_folder(outdir, 1))
    next((summary_files.seed_folder(outdir, 0) / "blocks").iterdir()).unlink()
    result = summary(outdir, "--ratios=0,0.5,0.9", "--ways=top,random,iterative_bottom", "--rescore_share=0.2")
    assert result.returncode == 0, result.stderr
    assert (outdir / summary_results.RESULTS_NAME).read_bytes() == content
    np.testing.assert_array_equal(summary_files.read_order(outdir, "iterative_bottom", data.train_index), order)
    more = summary(outdir, "--ratios=0.25", "--ways=bottom", "--rescore_share=0.2")
    assert more.returncode == 0, more.stderr
    assert "25% (10)" in more.stdout


def test_a_file_of_scores_ranks_and_its_order_is_proved(done, tmp_path):
    with np.load(summary_files.seed_folder(done[0], 0) / leave_out_files.FULL_RUN_NAME) as stored:
        index, label = stored["train_index"], stored["train_label"]
    score = np.random.default_rng(0).normal(size=len(index))
    np.savez(tmp_path / "s.npz", train_index=index[::-1], train_label=label[::-1], memorization=score[::-1])
    arguments = (f"--outdir={tmp_path / 'c'}", f"--scores={tmp_path / 's.npz'}")
    result = start("summarize_dataset", *_SUMMARY, *arguments, "--print_subset=top:0.9")
    assert result.returncode == 0, result.stderr
    kept = dropping_orders.by_score(index, score, "top")[36:]
    assert result.stdout.split() == [str(one) for one in np.sort(kept)]
    folder = summary_files.seed_folder(done[0], 0)
    by_folder = start("summarize_dataset", f"--experiment={folder}", *arguments, "--print_subset=top:0.9")
    assert by_folder.stdout == result.stdout, by_folder.stderr
    np.savez(tmp_path / "s.npz", train_index=index, train_label=np.roll(label, 3), memorization=score)
    result = start("summarize_dataset", *_SUMMARY, *arguments)
    assert result.returncode == 1
    assert "its labels are not those of digits" in result.stderr


def test_features_in_place_of_a_kernel_give_about_the_same_order(done, tmp_path):
    arguments = ("--projection=sparse_signs", "--num_features=400", "--print_subset=iterative_bottom:0.5")
    result = summary(tmp_path, *arguments, "--rescore_share=0.2")
    assert result.returncode == 0, result.stderr
    with np.load(summary_files.subset_path(done[0], "iterative_bottom")) as stored:
        exact = stored["kept_train_index"][stored["kept_offset"][1] : stored["kept_offset"][2]]
    kept = [int(word) for word in result.stdout.split()]
    assert len(kept) == len(exact) == 20
    # By chance ten would be in both, with a standard deviation of 1.6.
    assert len(set(kept) & set(exact.tolist())) >= 15


def test_other_settings_and_wrong_flags_are_refused(done, tmp_path):
    outdir, _ = done
    np.savez(tmp_path / "part.npz", train_index=np.arange(2), a=np.zeros(2))
    for arguments, status, message in (
        (("--measure=weights",), 1, "scoring.measures: stored ['predictions'], asked for ['weights']"),
        (("--l2=0.5",), 1, "experiment.l2: stored 0.0, asked for 0.5"),
        (("--ways=lowest",), 2, "--ways=lowest"),
        (("--ratios=1",), 2, "--ratios=1: expected shares of the 40 examples"),
        (("--ratios=a",), 2, "--ratios=a: expected shares from 0"),
        (("--rescore_share=0.6",), 2, "--rescore_share=0.6: expected a share above 0, at most 0.5"),
        (("--print_subset=top:2",), 2, "--print_subset=top:2: expected shares of the 40 examples"),
        (("--print_subset=top",), 2, "--print_subset=top: expected one of top, bottom"),
        (("--column=a",), 2, "--column=a: names a column of --scores, which are not given"),
        ((f"--scores={tmp_path / 'part.npz'}", f"--outdir={tmp_path / 'd'}"), 2, "have no score"),
        (("--class_counts=3:a",), 2, "--class_counts=3:a: expected labels with numbers of examples"),
        (('--coarse_labels={"a": [1]}',), 2, "expected lists of labels under the numbers of the classes from 0"),
        (("--outdir=gs://bucket/a",), 2, "expected a folder"),
        (("--learning_rate=9", f"--outdir={tmp_path / 'e'}"), 2, "steps of the linearised network diverge"),
    ):
        result = summary(outdir, *arguments)
        assert result.returncode == status, result.stderr
        assert result.stderr.startswith("error: ")
        assert message in result.stderr
        assert "Traceback" not in result.stderr


def test_trainings_that_are_not_there_are_named(done, tmp_path):
    folder = summary_files.seed_folder(done[0], 0)
    sha256 = leave_out_config.read(folder).sha256
    with pytest.raises(errors.MissingFileError, match="lacks 1 training; run summarize_dataset again"):
        summary_results.read_rows(folder, sha256, 0, {("top", 1): (1,)})
    with pytest.raises(errors.MissingFileError, match="has no full network yet"):
        summary_results.read_rows(tmp_path, sha256, 0, {})


def test_several_outputs_are_judged_by_the_largest(tmp_path):
    prediction = np.array([[0.1, 0.8, 0.3], [0.6, 0.5, 0.2]], np.float32)
    members = {name: np.zeros(1) for name in leave_out_files.FULL_RUN_MEMBERS}
    members |= {"train_index": np.arange(4), "val_prediction": prediction, "val_label": np.array([1, 1])}
    leave_out_files.write_full_run(tmp_path, members, "x")
    (row,) = summary_results.read_rows(tmp_path, "x", 5, {("top", 0): ()})
    assert (row.val_accuracy, row.share_kept, row.seed) == (0.5, 1, 5)
    expected = (0.1**2 + 0.2**2 + 0.3**2 + 0.6**2 + 0.5**2 + 0.2**2) / 4
    assert row.val_loss == pytest.approx(expected, rel=1e-6)


def test_where_files_lie_does_not_count(tmp_path):
    experiment = leave_out_config.LeaveOutConfig("npz:a", fingerprint={"name": "a"})
    scores = summary_config.ScoresFile("a.npz", "a", summary_config.digest(np.arange(2), np.ones(2)))
    one = summary_config.SummaryConfig(experiment, scores, scoring_config.ScoringConfig(("weights",)))
    summary_config.adopt(tmp_path, one)
    moved = leave_out_config.LeaveOutConfig("npz:b", fingerprint={"name": "a"})
    there = summary_config.ScoresFile("b.npz", "a", scores.sha256)
    summary_config.adopt(tmp_path, summary_config.SummaryConfig(moved, there, one.scoring))
    other = summary_config.ScoresFile("a.npz", "a", summary_config.digest(np.arange(2), np.zeros(2)))
    with pytest.raises(errors.MismatchError, match=r"scores\.sha256: other content than what was stored"):
        summary_config.adopt(tmp_path, summary_config.SummaryConfig(moved, other, one.scoring))
    assert one.of_seed(2).seed == 2


@pytest.mark.parametrize("program", ["summarize_dataset", "detect_mislabeled", "compare_groups"])
def test_programs_answer_before_tensorflow_is_imported(program):
    code = f"import sys; import scripts.{program}; sys.exit('tensorflow' in sys.modules or 'sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=_ROOT, check=False).returncode == 0
