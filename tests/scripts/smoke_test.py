"""The programs one after the other on real images, as a user starts them."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

from tests import cases
from tests.zoo.remote import emulator, fault_server
from zoo import layout, npz, run_table

_ROOT = pathlib.Path(__file__).parents[2]


def start(program, *arguments, **options):
    return subprocess.run(
        [sys.executable, "-m", f"scripts.{program}", *arguments],
        capture_output=True,
        text=True,
        cwd=_ROOT,
        check=False,
        **options,
    )


def train(zoo, dataset, *arguments):
    return start(
        "train_runs",
        f"--zoo={zoo}",
        f"--dataset={dataset}",
        "--experiment=tiny",
        '--arch_options={"hidden_sizes": [16]}',
        "--run_ids=0:6",
        "--num_epochs=4",
        "--batch_size=10",
        *arguments,
    )


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return cases.tiny_digits_npz(tmp_path_factory.mktemp("data") / "tiny.npz")


@pytest.fixture(scope="module")
def trained(tmp_path_factory, dataset):
    zoo = tmp_path_factory.mktemp("zoo")
    result = train(zoo, dataset, "--subset_ratio=0.5", "--subset_ratio=0.7")
    assert result.returncode == 0, result.stderr
    return zoo, result.stdout


@pytest.fixture
def zoo(trained, tmp_path):
    shutil.copytree(trained[0], tmp_path / "zoo", copy_function=shutil.copy2)
    return tmp_path / "zoo"


def test_training_says_what_it_did(trained):
    assert re.search(r"12 runs trained, 0 skipped\n  ratio 0\.5, 6 runs: accuracy 0\.\d+ on", trained[1])


def test_training_again_does_nothing(zoo, dataset):
    result = train(zoo, dataset, "--subset_ratio=0.5", "--subset_ratio=0.7")
    assert result.returncode == 0
    assert "0 runs trained, 12 skipped: nothing to do" in result.stdout


def test_training_with_another_recipe_prints_both(zoo, dataset):
    result = train(zoo, dataset, "--momentum=0.5")
    assert result.returncode == 1
    assert "training.momentum: stored 0.9, asked for 0.5" in result.stderr
    assert "Traceback" not in result.stderr


def test_list_zoo_counts_and_names_what_is_wrong(zoo):
    result = start("list_zoo", f"--zoo={zoo}")
    assert result.returncode == 0
    assert re.search(r"0\.7\s+6\s+6\s+0\s+0", result.stdout)
    layout.run_table_path(zoo, "tiny").unlink()  # it would stand in for the record that goes next
    layout.Run(zoo, "tiny", 0.7, 1).aux_arrays_path.unlink()
    layout.Run(zoo, "tiny", 0.7, 2).aux_arrays_path.write_bytes(b"not a zip")
    next(layout.Run(zoo, "tiny", 0.7, 3).checkpoints_directory.glob("*.index")).unlink()
    result = start("list_zoo", f"--zoo={zoo}", "--format=json")
    assert result.returncode == 3
    (item,) = json.loads(result.stdout)
    ratio = item["ratios"][1]
    assert (ratio["complete"], ratio["partial"], ratio["damaged"]) == (3, 1, 2)
    assert {(p["run_id"], p["state"]) for p in ratio["problems"]} == {(1, "partial"), (2, "damaged"), (3, "damaged")}
    assert "aux_arrays.npz" in ratio["problems"][0]["reason"]


@pytest.mark.parametrize("split", ["train", "test"])
def test_evaluate_run_confirms_every_prediction(zoo, dataset, split):
    result = start("evaluate_run", f"--run={zoo}/tiny/0.7/2", f"--split={split}", f"--dataset={dataset}")
    assert result.returncode == 0, result.stderr
    count = {"train": 60, "test": 20}[split]
    assert f"{count} of {count} predictions match" in result.stdout


def test_zoos_that_were_trained_apart_are_merged(zoo, dataset, tmp_path):
    parts = [tmp_path / "a", tmp_path / "b"]
    for part, share in zip(parts, ("1/2", "2/2"), strict=True):
        train(part, dataset, "--subset_ratio=0.5", "--subset_ratio=0.7", f"--share={share}")
    merged = start("merge_zoos", *(f"--source={part}" for part in parts), f"--zoo={tmp_path / 'c'}")
    assert merged.returncode == 0, merged.stderr
    assert "12 runs of tiny, 12 of them new: " in merged.stdout
    digests = [run_table.read(layout.run_table_path(one, "tiny")).digest() for one in (zoo, tmp_path / "c")]
    assert digests[0] == digests[1]
    assert "left out" not in merged.stdout
    (parts[0] / "tiny" / "0.5" / "40").mkdir()
    again = start("merge_zoos", f"--source={parts[0]}", f"--zoo={tmp_path / 'c'}")
    assert f"left out, partial: {parts[0] / 'tiny' / '0.5' / '40'}" in again.stdout
    assert "12 runs of tiny, 0 of them new: " in again.stdout
    train(tmp_path / "other", dataset, "--momentum=0.5")
    refused = start("merge_zoos", f"--source={tmp_path / 'other'}", f"--zoo={tmp_path / 'c'}")
    assert refused.returncode == 1
    assert "runs of different recipes are never pooled" in refused.stderr
    assert "training.momentum: stored 0.9, asked for 0.5" in refused.stderr
    missing = start("merge_zoos", f"--source={parts[0]}", f"--source={tmp_path / 'nowhere'}", f"--zoo={tmp_path / 'd'}")
    assert missing.returncode == 1
    assert "nowhere" in missing.stderr
    assert "recipe" not in missing.stderr
    assert start("merge_zoos", f"--zoo={tmp_path / 'c'}").returncode == 2


def test_evaluate_zoo_confirms_many_runs_and_then_does_nothing(zoo, dataset):
    flags = [f"--zoo={zoo}", "--split=test", f"--dataset={dataset}", "--runs=0.5/*,0.7/0:2"]
    result = start("evaluate_zoo", *flags)
    assert result.returncode == 0, result.stderr
    assert "8 runs evaluated, 0 skipped: 160 of 160 predictions match" in result.stdout
    (table,) = re.findall(r"^table: (.*)$", result.stdout, re.MULTILINE)
    assert len(pathlib.Path(table).read_text().splitlines()) == 9
    layout.Run(zoo, "tiny", 0.7, 1).aux_arrays_path.unlink()
    result = start("evaluate_zoo", *flags)
    assert result.returncode == 0, result.stderr
    assert "0 runs evaluated, 8 skipped" in result.stdout
    result = start("evaluate_zoo", *flags[:3], "--runs=0.7/1,0.7/3", "--epoch=4")
    assert result.returncode == 1
    assert "left out: run 0.7/1: " in result.stdout
    assert "1 run evaluated, 0 skipped: 20 of 20 predictions match" in result.stdout


def test_evaluate_run_lists_what_differs(zoo, dataset):
    path = layout.Run(zoo, "tiny", 0.7, 2).aux_arrays_path
    with np.load(path) as stored:
        arrays = dict(stored)
    arrays["correctness_test"][4] ^= True
    npz.write(path, arrays)
    result = start("evaluate_run", f"--run={zoo}/tiny/0.7/2", "--split=test", f"--dataset={dataset}")
    assert result.returncode == 1
    assert "19 of 20 predictions match" in result.stdout
    assert f"differs: index {arrays['index_test'][4]} (test)" in result.stdout


def test_evaluate_run_refuses_another_architecture(zoo, dataset):
    result = start("evaluate_run", f"--run={zoo}/tiny/0.7/2", "--arch=lenet", f"--dataset={dataset}")
    assert result.returncode == 1
    assert "only in the model" in result.stderr
    assert "Traceback" not in result.stderr


def test_scores_then_report_then_nothing_to_do(zoo, dataset):
    scored = start("compute_scores", f"--zoo={zoo}", "--subset_ratio=0.7", "--num_draws=50")
    assert scored.returncode == 0, scored.stderr
    assert "scores of 6 runs written" in scored.stdout
    assert "memorized (memorization >= 0.25)" in scored.stdout
    scored = start("compute_scores", f"--zoo={zoo}", "--subset_ratio=0.7", "--num_draws=50")
    assert "up to date, nothing to do" in scored.stdout
    rendered = start("render_report", f"--zoo={zoo}", f"--dataset={dataset}")
    assert rendered.returncode == 0, rendered.stderr
    page = pathlib.Path(rendered.stdout.splitlines()[-1])
    assert page.read_text().startswith("<!DOCTYPE html>")
    rendered = start("render_report", f"--zoo={zoo}", f"--dataset={dataset}")
    assert "up to date, nothing to do" in rendered.stdout


def test_classes_and_margins_are_scored_where_asked_for(zoo, tmp_path):
    flags = [f"--zoo={zoo}", "--num_draws=10", f"--output={tmp_path / 'scores'}"]
    refused = start("compute_scores", *flags, "--margin_influence")
    assert refused.returncode == 2
    assert "--margin_influence: no run of tiny at ratio 0.5, 0.7 has margins; train_runs --margins" in refused.stderr
    scored = start("compute_scores", *flags, "--cross_class")
    assert scored.returncode == 0, scored.stderr
    assert re.search(r"^mean influence between two classes [-+.e\d]+: \d+ of \d+ beyond 3", scored.stdout, re.MULTILINE)
    for ratio in ("0.5", "0.7"):
        assert f"heat map: {tmp_path}/scores/cross_class-{ratio}.png" in scored.stdout
        assert (tmp_path / "scores" / f"cross_class-{ratio}.png").read_bytes().startswith(b"\x89PNG")


def test_scores_are_compared_with_themselves_and_with_published_ones(zoo, tmp_path):
    assert start("compute_scores", f"--zoo={zoo}", "--num_draws=10").returncode == 0
    scores, output = zoo / "tiny" / "scores", tmp_path / "compared"
    flags = ["--subset_ratio=0.7", "--num_draws=50", f"--output={output}"]
    compared = start("compare_scores", f"--scores={scores}", f"--scores={scores}", *flags)
    assert compared.returncode == 0, compared.stderr
    assert "labels agree, so it is proved" in compared.stdout
    assert "pearson  +1.000, 95 % interval +1.000 to +1.000 (bootstrap)" in compared.stdout
    assert json.loads((output / "compare.json").read_text())["statistic"] == "memorization"
    assert (output / "scatter.png").is_file()
    assert start("compare_scores", f"--scores={scores},{scores}", *flags, "--seed=1").returncode == 1
    published = scores / "published" / "cscores.npz"
    compared = start("compare_scores", f"--scores={scores}", f"--scores={published}", "--method=fisher")
    assert compared.stdout.startswith("consistency: tiny (score files) beside cscores.npz (C-scores)"), compared.stderr
    with np.load(published) as stored:
        np.savez(tmp_path / "other.npz", labels=stored["labels"][::-1], scores=stored["scores"])
    refused = start("compare_scores", f"--scores={scores}", f"--scores={tmp_path / 'other.npz'}")
    assert refused.returncode == 1
    assert "the train labels part at index" in refused.stderr
    assert "may be the same examples in another order" in refused.stderr


def test_more_runs_are_planned_and_kept_as_json(zoo, tmp_path):
    flags = [f"--zoo={zoo}", "--standard_error=0.1", "--runs_per_hour=60", f"--output={tmp_path}/plan.json"]
    planned = start("plan_runs", *flags)
    assert planned.returncode == 0, planned.stderr
    assert re.search(r"^memorization +0\.7 +worst +6 +0\.\d+ +\d+ +\d+  \d+ min$", planned.stdout, re.MULTILINE)
    assert re.search(r"^consistency_score +all +median +6 ", planned.stdout, re.MULTILINE)
    assert "tell a pair of influence 0.15 from none among 1200 pairs" in planned.stdout
    content = (tmp_path / "plan.json").read_text()
    assert json.loads(content)["rows"][0]["num_runs"] == 6
    assert start("plan_runs", *flags).stdout == planned.stdout
    assert (tmp_path / "plan.json").read_text() == content
    refused = start("plan_runs", *flags, "--power=0.9")
    assert refused.returncode == 1
    assert '"power": 0.8' in refused.stderr
    assert '"power": 0.9' in refused.stderr
    assert start("plan_runs", *flags, "--power=0.9", "--overwrite").returncode == 0


def test_plans_leave_out_damaged_runs_and_say_so(zoo):
    layout.Run(zoo, "tiny", 0.7, 2).aux_arrays_path.write_bytes(b"nothing")
    result = start("plan_runs", f"--zoo={zoo}", "--subset_ratio=0.7")
    assert result.returncode == 1, result.stderr
    assert "left out, damaged: " in result.stdout
    assert re.search(r"^memorization +0\.7 +worst +5 ", result.stdout, re.MULTILINE)


def test_a_new_zoo_is_planned_from_assumed_rates(tmp_path):
    result = start(
        "plan_runs", "--subset_ratio=0.5", "--num_train=50", "--num_test=20", env=os.environ | {"HELDOUT_ZOO": ""}
    )
    assert result.returncode == 0, result.stderr
    assert re.search(r"^memorization +0\.5 +rates 0\.5 +0 +- +2500 +2500  -$", result.stdout, re.MULTILINE)
    assert "among 1000 pairs" in result.stdout


def test_datamodels_are_fitted_and_then_nothing_is_to_be_done(zoo, tmp_path):
    flags = ["--subset_ratio=0.7", "--num_folds=3", "--num_lambdas=10", "--lambda_ratio=0.1", "--threads=1"]
    fitted = start("fit_datamodels", f"--zoo={zoo}", *flags)
    assert fitted.returncode == 0, fitted.stderr
    assert re.search(r"^20 datamodels written, \d+ with weights, output correctness: ", fitted.stdout, re.MULTILINE)
    assert "up to date, nothing to do" in start("fit_datamodels", f"--zoo={zoo}", *flags).stdout
    refused = start("fit_datamodels", f"--zoo={zoo}", *flags, "--targets=0:3")
    assert refused.returncode == 1
    assert "--overwrite to replace them" in refused.stderr
    few = start("fit_datamodels", f"--zoo={zoo}", *flags, "--num_folds=5", f"--output={tmp_path}")
    assert few.returncode == 2
    assert "5 folds need 10 runs with outputs, there are 6" in few.stderr
    unclear = start("fit_datamodels", f"--zoo={zoo}", "--targets=1-3")
    assert unclear.returncode == 2
    assert "--targets=1-3: expected all, an index like 7, or a range like 0:100" in unclear.stderr


@pytest.fixture(scope="module")
def published(trained, tmp_path_factory):
    """The zoo as its owner publishes it, on a web server: address of the manifest."""
    folder = tmp_path_factory.mktemp("published")
    result = start("zoo_pack", f"--zoo={trained[0]}", f"--output={folder}")
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("packed 12 runs, 12 with checkpoint")
    with fault_server.FaultServer(folder) as server:
        yield server.url("tiny.json")


def test_a_published_zoo_is_streamed_and_scored_and_its_runs_fetched_and_evaluated(tmp_path, published, dataset):
    flags = [f"--registry={published}", "--experiment=tiny", f"--dest={tmp_path}"]
    planned = start("zoo_stream", *flags, "--dry_run")
    assert "would be read once" in planned.stdout
    assert not list(tmp_path.iterdir())
    streamed = start("zoo_stream", *flags)
    assert streamed.returncode == 0, streamed.stderr
    assert "verified: MD5 known for this archive" in streamed.stdout
    assert "12 runs: " in streamed.stdout
    assert "nothing to do" in start("zoo_stream", *flags, "--offline").stdout
    scored = start("compute_scores", f"--zoo={tmp_path}", "--num_draws=20")
    assert scored.returncode == 0, scored.stderr
    assert "scores of 12 runs written" in scored.stdout
    fetched = start("zoo_fetch", *flags, "--runs=0.7/2,0.5/1:3")
    assert fetched.returncode == 0, fetched.stderr
    assert "3 runs: 9 files" in fetched.stdout
    assert "everything is there already" in start("zoo_fetch", *flags, "--runs=0.7/2", "--offline").stdout
    evaluated = start("evaluate_run", f"--run={tmp_path}/tiny/0.7/2", "--split=train", f"--dataset={dataset}")
    assert "60 of 60 predictions match" in evaluated.stdout, evaluated.stderr
    verified = start("zoo_verify", f"--zoo={tmp_path}", "--predictions=1", f"--dataset={dataset}")
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert "3 records and 3 checkpoints sound" in verified.stdout
    assert "restored: 3 checkpoints into mlp" in verified.stdout


def test_offline_asks_no_server_for_a_registry_either(tmp_path):
    server, beside = "--registry=http://127.0.0.1:9/zoos.json", f"--archive={tmp_path}/none.tar.gz"
    for arguments in ([server], [server, beside]):
        result = start(
            "zoo_index", "--experiment=e", "--offline", "--num_tries=1", f"--output={tmp_path}/x", *arguments
        )
        assert result.returncode == 1
        assert "Connection refused" not in result.stderr


def test_a_registry_that_cannot_be_read_is_never_passed_over(tmp_path):
    (tmp_path / "zoos.json").write_bytes(bytes(20_000_000))
    arguments = [f"--registry={tmp_path}/zoos.json", f"--archive={tmp_path}/a.tar.gz", "--experiment=e"]
    result = start("zoo_index", *arguments)
    assert result.returncode == 2
    assert "zoos.json" in result.stderr


def test_a_published_zoo_is_downloaded_indexed_verified_and_unpacked(tmp_path, published, trained):
    flags = [f"--registry={published}", "--experiment=tiny"]
    downloaded = start("zoo_download", *flags, f"--dest={tmp_path}")
    assert downloaded.returncode == 0, downloaded.stderr
    archive = tmp_path / "tiny.tar.gz"
    assert f"{archive}: " in downloaded.stdout
    indexed = start("zoo_index", *flags, f"--archive={archive}")
    assert indexed.returncode == 0, indexed.stderr
    assert f"index: {archive}.index.sqlite" in indexed.stdout
    assert start("zoo_verify", *flags, f"--archive={archive}").returncode == 0
    unpacked = start("zoo_fetch", f"--archive={archive}", "--runs=all", f"--dest={tmp_path}/zoo")
    assert unpacked.returncode == 0, unpacked.stderr
    for path in (trained[0] / "tiny").rglob("0.*/*"):
        if path.is_file():
            assert (tmp_path / "zoo" / path.relative_to(trained[0])).read_bytes() == path.read_bytes()


def test_a_zoo_in_a_bucket_is_streamed_and_fetched(tmp_path, trained):
    folder = tmp_path / "packed"
    assert start("zoo_pack", f"--zoo={trained[0]}", f"--output={folder}").returncode == 0
    with emulator.serving({"tiny.tar.gz": (folder / "tiny.tar.gz").read_bytes()}) as (_, bucket):
        flags = [f"--archive={bucket}/tiny.tar.gz", f"--dest={tmp_path}/zoo"]
        streamed = start("zoo_stream", *flags)
        assert streamed.returncode == 0, streamed.stderr
        assert "verified: MD5 stated by the server" in streamed.stdout
        fetched = start("zoo_fetch", *flags, "--runs=0.5/0")
        assert fetched.returncode == 0, fetched.stderr
    assert layout.Run(tmp_path / "zoo", "tiny", 0.5, 0).aux_arrays_path.exists()


def test_scores_refuse_other_flags_without_overwrite(zoo):
    start("compute_scores", f"--zoo={zoo}", "--num_draws=50")
    result = start("compute_scores", f"--zoo={zoo}", "--num_draws=60")
    assert result.returncode == 1
    assert '"num_draws": 50' in result.stderr
    assert '"num_draws": 60' in result.stderr
    assert start("compute_scores", f"--zoo={zoo}", "--num_draws=60", "--overwrite").returncode == 0


@pytest.mark.parametrize(
    ("program", "arguments", "message"),
    [
        ("train_runs", ["--zoo=z", "--dataset=digit"], "digits"),
        ("train_runs", ["--zoo=z", "--dataset=digits", "--run_ids=0:3,2"], "run 2 is named twice"),
        ("train_runs", ["--zoo=z", "--dataset=digits", "--run_ids=x"], "--run_ids=x"),
        ("train_runs", ["--zoo=z", "--dataset=digits", "--run_ids=3:3"], "the range is empty"),
        ("train_runs", ["--zoo=z", "--dataset=digits", "--subset_ratio=1"], "above 0 and below 1"),
        ("train_runs", ["--zoo=z", "--dataset=digits", "--arch_options=[1]"], "--arch_options"),
        ("train_runs", ["--zoo=z", "--dataset=digits", "--arch_options={"], "--arch_options"),
        ("train_runs", ["--zoo=z", "--dataset=digits", "--schedule=step", "--step_epochs=a"], "--step_epochs=a"),
        ("evaluate_run", ["--run=x"], "<subset_ratio>/<run_id>"),
        ("fit_datamodels", ["--zoo=z", "--num_lambdas=x"], "--num_lambdas"),
        ("train_runs", ["--zoo=z", "--dataset=digits", "--ray_address=auto"], "add it, or leave it out"),
        ("compare_scores", ["--scores=a"], "expected two paths, as in --scores=A --scores=B"),
        ("compare_scores", ["--scores=a,b", "--reliability=0.9"], "expected two numbers above 0"),
        ("compare_scores", ["--scores=a,b", "--top=many"], "--top=many"),
        ("plan_runs", ["--runs_per_hour=0"], "--runs_per_hour=0.0: expected a number above 0"),
        ("plan_runs", ["--standard_error=0"], "standard_error is 0.0, expected a number above 0"),
        ("zoo_stream", ["--experiment=cifar12", "--dest=z"], "known are cifar10-inception, cifar100-inception"),
    ],
)
def test_values_that_a_flag_cannot_have_are_wrong_usage(tmp_path, program, arguments, message):
    assert_one_clear_error(tmp_path, program, arguments, message, status=2)


@pytest.mark.parametrize(
    ("program", "arguments", "message"),
    [
        ("list_zoo", ["--zoo=no/such"], "no/such"),
        ("compute_scores", ["--zoo=no/such"], "no/such"),
        ("render_report", ["--zoo=no/such"], "no/such"),
        ("plan_runs", ["--zoo=no/such"], "no/such"),
        ("zoo_verify", ["--zoo=no/such"], "no/such"),
        ("evaluate_zoo", ["--zoo=no/such"], "no/such"),
        ("fit_datamodels", ["--zoo=no/such"], "no/such"),
        ("compare_scores", ["--scores=no/such", "--scores=none"], "no/such"),
        ("zoo_pack", ["--zoo=no/such", "--output=packed"], "no/such"),
        ("zoo_stream", ["--experiment=cifar10-inception", "--dest=z", "--offline"], "lies on a server"),
        ("zoo_index", ["--archive=no/such.tar.gz"], "no/such.tar.gz"),
        (
            "build_indexed_tfrecords",
            ["--train_folder=no/such", "--test_folder=no/such", "--output=records"],
            "no/such: no such folder",
        ),
        ("zoo_fetch", ["--archive=no/such.tar.gz", "--runs=0.5/1", "--dest=z"], "zoo_index"),
        ("zoo_download", ["--archive=no/such.tar.gz", "--dest=z"], "no/such.tar.gz"),
        ("zoo_download", ["--registry=no/such.json", "--experiment=e", "--dest=z"], "no/such.json"),
    ],
)
def test_mistakes_get_one_clear_error(tmp_path, program, arguments, message):
    assert_one_clear_error(tmp_path, program, arguments, message, status=1)


def assert_one_clear_error(tmp_path, program, arguments, message, status):
    environment = os.environ | {"PYTHONPATH": str(_ROOT)}
    result = subprocess.run(
        [sys.executable, "-m", f"scripts.{program}", *arguments],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
        check=False,
    )
    assert result.returncode == status
    assert result.stderr.count("error: ") == 1
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert not list(tmp_path.iterdir())


def test_read_only_folder_is_named(tmp_path, dataset):
    if os.geteuid() == 0:
        target = pathlib.Path("/proc/heldout-zoo")  # even root cannot write here
    else:
        target = tmp_path / "locked" / "zoo"
        target.parent.mkdir(mode=0o500)
    result = train(target, dataset)
    assert result.returncode == 1
    assert str(target) in result.stderr
    assert "Traceback" not in result.stderr


def test_demo_continues_and_then_does_nothing(tmp_path):
    first = start("demo", f"--output={tmp_path}", "--num_runs=3")
    assert first.returncode == 0, first.stderr
    assert re.findall(r"\d+ runs trained, \d+ skipped", first.stdout) == [
        "3 runs trained, 0 skipped",
        "4 runs trained, 0 skipped",
    ]
    more = start("demo", f"--output={tmp_path}", "--num_runs=5")
    assert "2 runs trained, 3 skipped" in more.stdout
    again = start("demo", f"--output={tmp_path}", "--num_runs=5")
    assert "nothing was done" in again.stdout
    report = re.search(r"^Report: (.*)$", again.stdout, re.MULTILINE)[1]
    assert pathlib.Path(report).is_file()
    assert report in more.stdout
    assert "most memorized" in again.stdout


@pytest.mark.parametrize(
    ("program", "arguments", "message"),
    [
        ("train_runs", ["--dataset=digits"], "--zoo is required"),
        ("train_runs", ["--zoo=z"], "--dataset is required"),
        ("train_runs", ["--zoo=z", "--dataset=npz:"], "expected npz:PATH"),
        ("evaluate_run", [], "--run is required"),
        ("list_zoo", [], "--zoo is required"),
        ("reproduce_consistency", [], "--zoo is required"),
        ("zoo_status", [], "--zoo is required"),
        ("fit_datamodels", [], "--zoo is required"),
        ("compare_scores", [], "--scores is required"),
        ("zoo_verify", [], "give --zoo (a zoo on this machine)"),
        ("zoo_pack", [], "--zoo is required"),
        ("zoo_stream", ["--experiment=cifar10-inception"], "--dest is required"),
        ("zoo_stream", ["--dest=z"], "give --experiment"),
        ("zoo_index", [], "give --experiment"),
        ("zoo_fetch", ["--dest=z", "--experiment=cifar10-inception"], "--runs is required"),
        ("zoo_download", ["--dest=z"], "give --experiment"),
    ],
)
def test_missing_flags_are_wrong_usage(program, arguments, message):
    result = start(program, *arguments)
    assert result.returncode == 2
    assert message in result.stderr


def test_an_experiment_in_the_place_of_a_zoo_is_explained(zoo):
    for program in ("list_zoo", "compute_scores", "render_report"):
        result = start(program, f"--zoo={zoo}/tiny")
        assert result.returncode == 2
        assert f"give --zoo={zoo} --experiment=tiny" in result.stderr


def test_modules_of_the_user_that_are_named_like_ours_do_no_harm(tmp_path, dataset):
    (tmp_path / "zoo.py").write_text("raise SystemExit('the wrong zoo')")
    (tmp_path / "mine.py").write_text(
        "import sonnet as snt\n"
        "class Net(snt.Module):\n"
        "    def __init__(self, num_classes, size):\n"
        "        super().__init__()\n"
        "        self.net = snt.Sequential([snt.Flatten(), snt.Linear(size), snt.Linear(num_classes)])\n"
        "    def __call__(self, images, is_training):\n"
        "        return self.net(images)\n"
    )
    # As a console command starts: the folder of the program first, not the current one.
    command = [sys.executable, "-P", "-c", "import sys; from scripts import train_runs; train_runs.main()"]
    options = ["--zoo=runs", f"--dataset={dataset}", "--arch=mine:Net", '--arch_options={"size": 4}', "--run_ids=0"]
    environment = os.environ | {"PYTHONPATH": str(_ROOT)}
    result = subprocess.run(
        [*command, *options, "--num_epochs=1", "--batch_size=10"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "1 run trained" in result.stdout


def test_home_folders_are_expanded(tmp_path, dataset):
    environment = os.environ | {"HOME": str(tmp_path)}
    result = start("list_zoo", "--zoo=~/nowhere", env=environment)
    assert f"{tmp_path}/nowhere" in result.stderr


def test_influence_functions_of_a_run_and_of_ones_own_model(zoo, dataset, tmp_path):
    arguments = [f"--run={zoo}/tiny/0.7/2", f"--dataset={dataset}", "--test_sample_num=1", f"--outdir={tmp_path / 'o'}"]
    result = start("compute_influence_functions", *arguments)
    assert result.returncode == 0, result.stderr
    assert "42 training and 9 test examples, ekfac: done" in result.stdout
    assert re.search(r"most helpful for test example 0 \(label \d\): \d+ \(label \d, \+", result.stdout)
    written = {path.name for path in (tmp_path / "o").iterdir()}
    files_named = {"scores", "top_influence.npz", "average_influence.npz", "influence_results_0_1.json", "gallery.html"}
    assert files_named | {"influences_results_meta_0-1.json", "config.json", "factors", ".seconds.npz"} == written
    again = start("compute_influence_functions", *arguments)
    assert "up to date, nothing to do" in again.stdout
    other = start("compute_influence_functions", *arguments, "--damp=0.5")
    assert other.returncode == 1
    assert "solver.damping: stored 0.01, asked for 0.5" in other.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--outdir=o"], "which model: give --run"),
        (["--run=z/e/0.5/1", "--r=3"], "--r says nothing with --method=ekfac"),
        (["--run=z/e/0.5/1", "--workers=3"], "--workers says nothing without --runner=ray"),
        (["--run=z/e/0.5/1", "--test_ids=1,1"], "--test_ids=1,1: test example 1 is named twice"),
        (["--run=z/e/0.5/1", "--options=[]"], "--options=[]: expected a JSON object"),
        (["--run=z/e/0.5/1", "--method=lissa", "--scale=x"], "--scale=x: expected a number, or auto"),
        (["--model=nowhere:make"], "--model=nowhere:make: cannot be imported"),
    ],
)
def test_influence_functions_that_cannot_be_asked_for(arguments, message, tmp_path):
    result = start("compute_influence_functions", *arguments, f"--log_filename={tmp_path / 'log'}")
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert result.returncode in (1, 2)


def test_the_most_influential_examples_are_dropped_and_random_ones_beside_them(zoo, dataset, tmp_path):
    np.savez(tmp_path / "ranking.npz", train_index=np.arange(0, 60, 2), influence=np.arange(30.0))
    arguments = [f"--zoo={zoo}", f"--dataset={dataset}", f"--ranking={tmp_path}/ranking.npz", "--fractions=0.2,9"]
    arguments += ["--num_seeds=2", "--which=top", "--workers=1", "--format=csv", f"--outdir={tmp_path}/out"]
    result = start("train_on_most_influential", *arguments)
    assert result.returncode == 0, result.stderr
    assert "10 runs in all: top, random of 30 ranked examples, drop 6, 9, 2 seeds, and all of them" in result.stdout
    assert re.search(r"^top 20 % \(6\) +24 +2 +0\.\d{4} \[.*\] +-?0\.\d{4} \[", result.stdout, re.MULTILINE)
    assert len((tmp_path / "out" / "trainings.csv").read_text().splitlines()) == 11
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *("config.json", "results.json", "retraining.png", "tiny-retrained", "trainings.csv")
    }
    again = start("train_on_most_influential", *arguments)
    assert again.stdout.count("skipped: nothing to do") == 2
    other = start("train_on_most_influential", *arguments, "--action=keep")
    assert other.returncode == 1
    assert "holds another comparison" in other.stderr


def test_unique_information_and_the_kernel_that_it_is_of(tmp_path):
    experiment = ["--dataset=digits", "--classes=3,8", "--num_train=40", "--num_val=20", "--noprogress"]
    arguments = [*experiment, "--learning_rate=0.05", "--num_steps=100", f"--outdir={tmp_path}/information"]
    result = start("compute_unique_information", *arguments)
    assert result.returncode == 0, result.stderr
    assert "40 training, 20 validation examples, 1 output" in result.stdout
    again = start("compute_unique_information", *arguments)
    assert "(was there, nothing to do)" in again.stdout
    other = start("compute_unique_information", *arguments, "--measure=weights")
    assert other.returncode == 1
    assert "results of other settings are here" in other.stderr
    result = start("compute_ntk", *experiment, f"--outdir={tmp_path}/ntk")
    assert result.returncode == 0, result.stderr
    assert "full kernel [40, 40] float32 of 40 training examples" in result.stdout
    kernels = [np.load(tmp_path / name) for name in ("ntk/kernel/values.npy", "information/kernel/train.npy")]
    np.testing.assert_array_equal(*kernels)


def test_networks_without_single_examples_are_held_against_scores(tmp_path):
    truth = [f"--outdir={tmp_path}/truth", "--dataset=digits", "--classes=3,8", "--num_train=40", "--num_val=20"]
    truth += ['--arch_options={"hidden_sizes": [8]}', "--learning_rate=0.1", "--num_steps=20", "--workers=1"]
    result = start("ground_truth_effects", *truth, "--which=0:6")
    assert result.returncode == 0, result.stderr
    assert "6 groups left out: root mean square change of predictions" in result.stdout
    again = start("ground_truth_effects", *truth, "--which=0:6")
    assert "(was there, nothing to do)" in again.stdout
    other = start("ground_truth_effects", *truth, "--seed=1")
    assert other.returncode == 1
    assert "seed: stored 0, asked for 1" in other.stderr
    with np.load(tmp_path / "truth" / "ground_truth.npz") as found:
        np.savez(tmp_path / "s.npz", train_index=found["train_index"], weights=2 * found["squared_weight_change"])
    arguments = [f"--ground_truth={tmp_path}/truth", f"--scores={tmp_path}/s.npz", f"--outdir={tmp_path}/agreement"]
    result = start("aggregate_ground_truth", *arguments)
    assert result.returncode == 0, result.stderr
    assert "s.npz: weights  Pearson 1.000" in result.stdout
    assert {path.name for path in (tmp_path / "agreement").iterdir()} == {
        *("agreement.json", "agreement.csv"),
        *(f"scatter_s_weights_squared_{name}_change.png" for name in ("weight", "prediction")),
    }


def test_scores_find_changed_labels_differ_between_groups_and_say_what_to_drop(tmp_path):
    experiment = ["--dataset=digits", '--coarse_labels={"0": [0, 2], "1": [1, 3]}', "--class_counts=2:5"]
    experiment += ["--num_train=40", "--num_val=20", "--label_noise=0.1", '--arch_options={"hidden_sizes": [8]}']
    experiment += ["--learning_rate=0.05", "--num_steps=20", "--workers=1", "--progress=false"]
    truth = f"{tmp_path}/truth"
    assert start("ground_truth_effects", *experiment, f"--outdir={truth}", "--runs_per_group=40").returncode == 0
    scores = [f"--scores={truth}/ground_truth.npz", "--column=squared_weight_change"]
    result = start("detect_mislabeled", *scores, f"--experiment={truth}", f"--outdir={tmp_path}/found")
    assert result.returncode == 0, result.stderr
    assert "ground_truth.npz: squared_weight_change  AUROC 0." in result.stdout
    assert {path.name for path in (tmp_path / "found").iterdir()} == {
        *("mislabeled.json", "mislabeled.csv", "roc.png", "scores.png")
    }
    arguments = [f"--experiment={truth}", "--by=subclass", f"--outdir={tmp_path}/groups"]
    result = start("compare_groups", *scores, *arguments)
    assert result.returncode == 0, result.stderr
    assert "ground_truth.npz: squared_weight_change, by subclass" in result.stdout
    assert "(5 examples)" in result.stdout
    other = start("compare_groups", *scores, *arguments, "--method=newcombe")
    assert "method: stored 'delong', asked for 'newcombe'" in other.stderr
    arguments = [*scores, f"--outdir={tmp_path}/summary", "--ratios=0,0.5", "--num_seeds=1"]
    result = start("summarize_dataset", *experiment, *arguments)
    assert result.returncode == 0, result.stderr
    assert "50% (20)  20" in result.stdout
    assert (tmp_path / "summary" / "summary.png").read_bytes().startswith(b"\x89PNG")


def test_sources_are_mixed_points_animated_and_experiments_printed(tmp_path):
    arguments = ["--first=digits", "--second=digits", "--reverse_second", f"--output={tmp_path}/mixed.npz"]
    result = start("mix_sources", *arguments)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(
        "training: 718 of first, 80 of second; test: 179 of first, 179 of second\nwritten: "
    )
    assert "was there, nothing to do" in start("mix_sources", *arguments).stdout
    other = start("mix_sources", *arguments, "--share=0.2")
    assert other.returncode == 2
    assert "is there with other content; choose another name, or give --overwrite" in other.stderr
    assert "written: " in start("mix_sources", *arguments, "--share=0.2", "--overwrite").stdout
    wrong = start("mix_sources", *arguments[:3], "--output=mixed.csv")
    assert "--output=mixed.csv: expected a name that ends in .npz" in wrong.stderr
    points = ["--dataset=gaussians", "--num_train=10", "--num_val=10", "--label_noise=symmetric:1", "--num_steps=30"]
    points += ['--arch_options={"hidden_sizes": [8]}', "--learning_rate=0.05", "--num_frames=3", "--grid_size=9"]
    points += [f"--outdir={tmp_path}/animation"]
    result = start("animate_unique_information", *points)
    assert result.returncode == 0, result.stderr
    assert re.search(r"^step 30: \d of 10 points on the wrong side of the boundary; most ", result.stdout)
    assert (tmp_path / "animation" / "animation.gif").read_bytes().startswith(b"GIF89a")
    assert "animation (was there, nothing to do): " in start("animate_unique_information", *points).stdout
    other = start("animate_unique_information", *points, "--measure=weights")
    assert "measure: stored 'predictions', asked for 'weights'" in other.stderr
    result = start("reproduce_unique_information", "--print_commands")
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("# mnist-mlp: ")


def test_networks_of_two_widths_are_trained_and_their_input_jacobians_measured_and_drawn(dataset, tmp_path):
    shared = [f"--dataset={dataset}", "--epochs=2", "--batch_size=10", f"--save_dir={tmp_path}"]
    result = start("train_sweep", "--model=conv5", "--widths=1,2", "--seeds=0", "--workers=1", *shared)
    assert result.returncode == 0, result.stderr
    assert "2 networks, 0 missing" in result.stdout
    result = start("train_model", "--model=conv5_1", "--seed=1", *shared)
    assert result.returncode == 0, result.stderr
    assert "finished: 2 epochs done, train loss" in result.stdout
    assert len(list(tmp_path.rglob("seed-*/result.json"))) == 3
    folder = f"{tmp_path}/networks"
    result = start("compute_jacobian_stats", f"--run={folder}", "--num_shards=2", "--workers=1")
    assert result.returncode == 0, result.stderr
    for program, arguments in (
        ("merge_jacobian_stats", []),
        ("aggregate_jacobian_stats", [f"--output={tmp_path}/summary"]),
        ("plot_jacobian_stats", [f"--output={tmp_path}/lipschitz.png"]),
    ):
        result = start(program, f"--input={folder}", *arguments)
        assert result.returncode == 0, result.stderr
    assert len(list(tmp_path.rglob("stats_*_1-of-1.parquet"))) == 3
    assert (tmp_path / "summary_seeds.csv").read_text().count("\n") > 2
    assert (tmp_path / "lipschitz.png").read_bytes().startswith(b"\x89PNG")


def test_sensitivity_of_the_runs_of_a_zoo_beside_their_scores(zoo, dataset, tmp_path):
    shared = [f"--zoo={zoo}", "--subset_ratio=0.7", f"--dataset={dataset}"]
    assert start("compute_scores", *shared).returncode == 0
    result = start("plot_sensitivity", *shared, "--num_runs=3", f"--outdir={tmp_path / 'o'}", "--workers=1")
    assert result.returncode == 0, result.stderr
    found = json.loads((tmp_path / "o" / "correlations.json").read_text())
    assert found
    assert (tmp_path / "o" / "sensitivity.png").read_bytes().startswith(b"\x89PNG")
