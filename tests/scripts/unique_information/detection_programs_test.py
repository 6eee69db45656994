"""detect_mislabeled and compare_groups as a user starts them: files of several kinds, the same again, refusals."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest

from heldout.training import leave_out_files

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
    result = start("compare_groups", *arguments, "--column=accuracy_heldout", "--overwrite")
    assert result.returncode == 0, result.stderr
    assert [path.name for path in (tmp_path / "o").glob("*.png")] == ["groups_scores-0.5_accuracy_heldout.png"]


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


def test_the_aggregate_of_other_columns_leaves_no_old_picture_and_none_of_nothing(tmp_path):
    change = np.arange(1.0, 9.0)
    effects = leave_out_files.Effects(
        groups=tuple((one,) for one in range(8)),
        squared_weight_change=change,
        squared_prediction_change=change[::-1],
        squared_train_prediction_change=change,
        self_effect=np.ones((8, 1), np.float32),
        prediction_change=np.ones((8, 2, 1), np.float32),
    )
    leave_out_files.write_effects(tmp_path / leave_out_files.GROUND_TRUTH_NAME, effects, "x")
    np.savez(tmp_path / "s.npz", train_index=np.arange(8), a=change, b=change**2, none=np.full(8, np.nan))
    arguments = (f"--ground_truth={tmp_path}", f"--scores={tmp_path}/s.npz", f"--outdir={tmp_path}/o", "--overwrite")
    quantity = "--quantities=squared_weight_change"
    for more, columns in (((), "ab"), (("--columns=b",), "b")):
        result = start("aggregate_ground_truth", *arguments, quantity, *more)
        assert result.returncode == 0, result.stderr
        names = {path.name for path in (tmp_path / "o").glob("*.png")}
        assert names == {f"scatter_s_{column}_squared_weight_change.png" for column in columns}
    for column, message in (
        ("none", "s.npz: column none has no number for any of the 8 examples"),
        ("c", "no file of --scores has c; they have a, b, none"),
    ):
        refused = start("aggregate_ground_truth", *arguments, f"--columns={column}")
        assert refused.returncode == 2, refused.stderr
        assert message in refused.stderr
        assert (tmp_path / "o" / "scatter_s_b_squared_weight_change.png").exists()


@pytest.mark.parametrize("program", ["detect_mislabeled", "compare_groups", "aggregate_ground_truth"])
def test_help_waits_for_no_heavy_package(program):
    heavy = "{'tensorflow', 'sklearn', 'matplotlib', 'pyarrow', 'scipy.stats', 'scipy.optimize'}"
    code = f"import sys; import scripts.{program}; sys.exit(' '.join({heavy} & set(sys.modules)) or 0)"
    result = subprocess.run([sys.executable, "-c", code], cwd=_ROOT, check=False, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_a_mixture_that_cannot_be_written_names_the_flag(tmp_path):
    (tmp_path / "file").touch()
    for output in ("/proc/m2.npz", f"{tmp_path}/file/m.npz"):
        result = start("mix_sources", "--first=digits", "--second=digits", "--reverse_second", f"--output={output}")
        assert result.returncode == 1, result.stderr
        assert result.stderr.startswith(f"error: --output={output}: "), result.stderr
        assert ".heldout" not in result.stderr
        assert "Traceback" not in result.stderr
