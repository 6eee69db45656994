"""train_model as a user starts it: folders, refusals, environment, kills."""

import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import pytest

_ROOT = pathlib.Path(__file__).parents[2]
_QUICK = ("--model=mlp", '--model_options={"hidden_sizes": [8]}', "--dataset=digits", "--train_split=100")


def start(*arguments, environment=None):
    return subprocess.run(
        [sys.executable, "-m", "scripts.train_model", *arguments],
        capture_output=True,
        text=True,
        cwd=_ROOT,
        check=False,
        env=os.environ | (environment or {}),
    )


def folder_of(result):
    return pathlib.Path(result.stdout.splitlines()[-1].partition(": ")[2])


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    root = tmp_path_factory.mktemp("networks")
    result = start(*_QUICK, f"--save_dir={root}", "--epochs=3", "--label-noise", "0.2", "--checkpoint-epochs=log:2")
    assert result.returncode == 0, result.stderr
    return root, result


def test_it_says_how_it_ended_and_where(trained):
    root, result = trained
    assert result.stdout.startswith("finished: 3 epochs done, train loss ")
    folder = folder_of(result)
    assert folder.parent.parent == root / "networks" / "mlp" / "digits"
    assert sorted(path.name for path in folder.iterdir()) == [
        *("checkpoints", "history.csv", "result.json", "settings.json")
    ]
    settings = json.loads((folder / "settings.json").read_text())
    assert settings["label_noise"]["share"] == 0.2
    assert settings["fingerprint"]["num_changed_labels"] == 20
    assert settings["checkpoint_epochs"] == [0, 1, 3]
    assert sorted(path.stem for path in (folder / "checkpoints").glob("*.index")) == ["epoch-0", "epoch-1", "epoch-3"]


def test_again_it_does_nothing_and_the_environment_stands_for_flags(trained):
    root, first = trained
    environment = {"SAVE_DIR": str(root), "NAME": "networks", "DEVICE": "cpu"}
    arguments = (*_QUICK, "--epochs=3", "--label_noise=symmetric:0.2", "--checkpoint_epochs=0,1,3", "--noprogress")
    result = start(*arguments, environment=environment)
    assert result.returncode == 0, result.stderr
    assert f"network (was there, nothing to do): {folder_of(first)}" in result.stdout
    assert result.stderr == ""
    other = start(*arguments, f"--save_dir={root}/other", "--name=mine", environment=environment)
    assert folder_of(other).is_relative_to(root / "other" / "mine")


def test_it_is_trained_anew_where_that_is_asked_for(trained):
    root, first = trained
    folder = folder_of(first)
    before, times = contents(folder), {path: path.stat().st_mtime_ns for path in folder.rglob("*.index")}
    (folder / "result.json").write_text("{}")
    arguments = (*_QUICK, f"--save_dir={root}", "--epochs=3", "--label_noise=0.2", "--checkpoint_epochs=log:2")
    damaged = start(*arguments)
    assert damaged.returncode == 1
    assert "result.json: schema version None" in damaged.stderr
    result = start(*arguments, "--overwrite")
    assert result.returncode == 0, result.stderr
    assert contents(folder) == before
    assert all(path.stat().st_mtime_ns > old for path, old in times.items())


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--dataset=digits"], 2, "--model is required"),
        (["--model=mlp"], 2, "--dataset is required"),
        ([*_QUICK, "--label_noise=loud:0.1"], 2, "--label_noise=loud"),
        ([*_QUICK, "--epochs=0"], 2, "--epochs=0: expected between 1"),
        ([*_QUICK, "--lr_warmup_epochs=20"], 2, "--lr_warmup_epochs=20.0: expected between 0 and --epochs"),
        ([*_QUICK, "--lr_warmup_initial=0.1"], 2, "--lr_warmup_initial=0.1: there is no warm-up"),
        ([*_QUICK, "--lr_warmup_epochs=2", "--lr_warmup_initial=-1"], 2, "--lr_warmup_initial=-1.0: expected zero or"),
        ([*_QUICK, "--weight_decay=0.1", "--l2=0.1"], 2, "they mean the same"),
        ([*_QUICK, "--augmentation=blur"], 2, "--augmentation=('blur',): expected any of crop,flip"),
        ([*_QUICK, "--checkpoint_epochs=11"], 2, "epoch 11 lies beyond the last one, 10"),
        ([*_QUICK, "--val_split=many"], 2, "--val_split=many: expected a number of examples"),
        ([*_QUICK, "--seed=-1"], 2, "--seed=-1: expected a whole number"),
        ([*_QUICK, "--name=a/b"], 2, "--name=a/b"),
        ([*_QUICK, "--random_data=waves"], 2, "random_data"),
        ([*_QUICK[1:], "--model=conv6_4"], 1, "architecture 'conv6_4' is unknown"),
        ([*_QUICK, "--val_split=1400"], 1, "100 examples to train on and 1400 to validate, of 1438"),
        ([_QUICK[0], "--dataset=digitz"], 1, "dataset 'digitz' is unknown"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(tmp_path, arguments, status, message):
    result = start(*arguments, f"--save_dir={tmp_path}")
    assert message in result.stderr
    assert result.returncode == status
    assert "Traceback" not in result.stderr
    assert not list(tmp_path.rglob("settings.json"))


def test_without_a_folder_it_asks_for_one():
    result = start(*_QUICK, environment={"SAVE_DIR": ""})
    assert (result.returncode, "--save_dir is required" in result.stderr) == (2, True)


def test_an_environment_that_cannot_be_is_refused():
    result = start(*_QUICK, environment={"DEVICE": "abacus"})
    assert (result.returncode, "environment variable DEVICE=abacus" in result.stderr) == (2, True)


def test_a_training_that_diverges_has_status_1_and_a_result(tmp_path):
    arguments = (*_QUICK, f"--save_dir={tmp_path}", "--learning_rate=1e20", "--epochs=3")
    for _ in range(2):
        result = start(*arguments)
        assert result.returncode == 1
        assert result.stdout.startswith("diverged: ")
        assert "a smaller --learning_rate may help" in result.stdout
    assert json.loads((folder_of(result) / "result.json").read_text())["outcome"] == "diverged"


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_killed_at_any_moment_it_ends_as_if_undisturbed(tmp_path, optimizer):
    arguments = ["--model=conv5_3", "--dataset=digits", "--label_noise=0.2", "--epochs=60", "--resume_minutes=0"]
    arguments += [f"--optimizer={optimizer}", "--learning_rate=0.01", "--augmentation", "--checkpoint_epochs=every:20"]
    arguments += ["--val_split=0.2", "--noprogress"]
    undisturbed = start(*arguments, f"--save_dir={tmp_path}/undisturbed")
    assert undisturbed.returncode == 0, undisturbed.stderr
    moments, num_kills = random.Random(0), 0
    while True:
        process = subprocess.Popen(
            [sys.executable, "-m", "scripts.train_model", *arguments, f"--save_dir={tmp_path}/killed"],
            cwd=_ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            out, said = process.communicate(timeout=_a_while(tmp_path, moments) if num_kills < 6 else None)
            assert process.returncode == 0, said
            break
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            num_kills += 1
    assert num_kills >= 3
    assert out.splitlines()[0] == undisturbed.stdout.splitlines()[0]
    killed, whole = (next((tmp_path / name).rglob("seed-0")) for name in ("killed", "undisturbed"))
    found = {name: value for name, value in contents(killed).items() if ".tmp-" not in name}
    assert found == contents(whole)


def _a_while(root, moments):
    """Waits until the training has begun to save what it goes on from, and then for a moment."""
    until = time.monotonic() + 60
    before = {path: path.stat().st_mtime_ns for path in (root / "killed").rglob("state.npz")}
    while time.monotonic() < until:
        now = {path: path.stat().st_mtime_ns for path in (root / "killed").rglob("state.npz")}
        if now and now != before:
            break
        if list((root / "killed").rglob("result.json")):
            break
        time.sleep(0.02)
    return moments.uniform(0.05, 1)
