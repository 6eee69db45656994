"""detect_mislabeled and compare_groups as a user starts them: files of several kinds, the same again, refusals."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest

_ROOT = pathlib.Path(__file__).parents[3]


def start(program, *arguments):
    command = [sys.executable, "-m", f"scripts.{program}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=_ROOT, check=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scores")
    generator = np.random.default_rng(0)
    changed = np.arange(50) % 10 == 0
    np.savez(folder / "labels.npz", is_changed=changed, train_label=np.arange(50) % 3)
    label = np.arange(50) % 3
    more = {"accuracy_in": np.ones(50), "accuracy_heldout": 1.0 - changed, "provenance": "{}", "train_label": label}
    np.savez(folder / "scores-0.5.npz", memorization=changed + generator.normal(0, 0.1, 50), **more)
    (folder / "groups.csv").write_text(
        "train_index,kind\n"
        + "".join(f"{i},{'changed' if is_changed else 'clean'}\n" for i, is_changed in enumerate(changed))
    )
    return folder


def test_memorization_finds_changed_labels_and_accuracy_says_it_by_low_values(folder, tmp_path):
    arguments = (f"--scores={folder}/scores-0.5.npz", f"--labels={folder}/labels.npz", f"--outdir={tmp_path}/o")
    result = start("detect_mislabeled", *arguments)
    assert result.returncode == 0, result.stderr
    assert "scores-0.5.npz: memorization      AUROC 1.000 [0." in result.stdout
    assert "accuracy_heldout  AUROC 0.000" in result.stdout
    assert "LOW scores say changed" in result.stdout
    content = (tmp_path / "o" / "mislabeled.json").read_bytes()
    assert start("detect_mislabeled", *arguments).returncode == 0
    assert (tmp_path / "o" / "mislabeled.json").read_bytes() == content
    assert start("detect_mislabeled", *arguments, "--column=memorization", "--overwrite").returncode == 0


def test_groups_of_a_file_are_compared(folder, tmp_path):
    arguments = (f"--scores={folder}/scores-0.5.npz", f"--groups={folder}/groups.csv", f"--outdir={tmp_path}/o")
    result = start("compare_groups", *arguments, "--column=memorization")
    assert result.returncode == 0, result.stderr
    assert "changed scores higher than clean with probability 1.000" in result.stdout
    assert (tmp_path / "o" / "groups_scores-0.5_memorization.png").read_bytes().startswith(b"\x89PNG")


def test_wrong_flags_are_refused(folder, tmp_path):
    scores, outdir = f"--scores={folder}/scores-0.5.npz", f"--outdir={tmp_path}"
    labels, groups = f"--labels={folder}/labels.npz", f"--groups={folder}/groups.csv"
    for program, arguments, status, message in (
        ("detect_mislabeled", (scores, labels, outdir, "--top=x"), 2, "--top=x: expected shares"),
        ("detect_mislabeled", (scores, outdir), 2, "--experiment and --labels: expected one of them"),
        ("detect_mislabeled", (labels, outdir), 2, "--scores"),
        ("detect_mislabeled", (scores, labels, outdir, "--device=gpu"), 2, "computes on the CPU"),
        ("detect_mislabeled", (scores, outdir, "--experiment=/none"), 1, "/none/full_run.npz: no such file"),
        ("compare_groups", (scores, outdir, "--experiment=/none"), 2, "expected either --groups"),
        ("compare_groups", (scores, groups, outdir, "--column=b"), 2, "--column=b: no file of --scores has b"),
        ("compare_groups", (scores, outdir, "--experiment=/none", "--by=label"), 1, "/none/full_run.npz: no such file"),
    ):
        result = start(program, *arguments)
        assert result.returncode == status, result.stderr
        assert result.stderr.startswith("error: ")
        assert message in result.stderr
        assert "Traceback" not in result.stderr
