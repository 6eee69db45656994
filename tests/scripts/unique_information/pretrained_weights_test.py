"""Pretrained beginnings on the command line: files of weights with their digests, and bodies of checkpoints."""

import hashlib
import json
import pathlib
import subprocess
import sys

import numpy as np
import tensorflow as tf

from heldout.models import registry as models
from scripts.unique_information import pretrained_weights
from zoo import checkpoints

_ROOT = pathlib.Path(__file__).parents[3]
_FLAGS = ["--dataset=digits", "--classes=3,8", "--num_train=20", "--num_val=10", "--num_steps=3", "--noprogress"]


def start(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "scripts.ground_truth_effects", *_FLAGS, *arguments],
        capture_output=True,
        text=True,
        cwd=_ROOT,
        check=False,
    )


def test_a_file_of_weights_is_named_by_its_whole_path_and_digest(tmp_path, monkeypatch):
    (tmp_path / "a.weights.h5").write_bytes(b"content")
    monkeypatch.chdir(tmp_path)
    digest = hashlib.sha256(b"content").hexdigest()
    found = pretrained_weights.pinned("keras:ResNet50", {"weights": "a.weights.h5", "pooling": "max"})
    assert found == {"weights": str(tmp_path / "a.weights.h5"), "weights_sha256": digest, "pooling": "max"}
    # A digest that was given is what the file must have.
    given = pretrained_weights.pinned("keras:ResNet50", {"weights": "a.weights.h5", "weights_sha256": "0"})
    assert given["weights_sha256"] == "0"


def test_other_options_stay_as_they_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").touch()
    for name, options in (
        ("mlp", {"hidden_sizes": [4]}),
        ("package.module:own", {"weights": "a"}),
        ("keras:ResNet50", {"weights": "imagenet"}),
        ("keras:ResNet50", {"weights": None}),
        ("keras:ResNet50", {}),
    ):
        assert pretrained_weights.pinned(name, options) == options


def test_a_body_is_taken_from_a_checkpoint_of_other_classes(tmp_path):
    tf.random.set_seed(3)
    body = models.build("mlp", 10, (8, 8, 1), {"hidden_sizes": [6]})
    checkpoints.write(body, tmp_path / "body", 1, 1)
    own = ['--arch_options={"hidden_sizes": [6]}', f"--init_checkpoint={tmp_path}/body", "--workers=1", "--which=0:1"]
    refused = start(*own, f"--outdir={tmp_path}/refused")
    assert refused.returncode == 1
    assert "2 of another shape: model/layers/3/b (model (1,), file (10,))" in refused.stderr
    assert "Traceback" not in refused.stderr
    result = start(*own, "--init_body", f"--outdir={tmp_path}/truth")
    assert result.returncode == 0, result.stderr
    assert json.loads((tmp_path / "truth" / "config.json").read_text())["init_body"] is True
    module = models.build("mlp", 1, (8, 8, 1), {"hidden_sizes": [6]})
    checkpoints.restore(module, tmp_path / "truth" / "checkpoints" / "step-0")
    first, stored = (checkpoints.model_variables(one)["model/layers/1/w"].numpy() for one in (module, body))
    np.testing.assert_array_equal(first, stored)


def test_a_body_without_a_checkpoint_is_refused(tmp_path):
    result = start("--init_body", f"--outdir={tmp_path}")
    assert result.returncode == 2
    assert "--init_body: takes the body of a network from --init_checkpoint, which is not given" in result.stderr
