"""Tests of heldout.report.rendering: files, reruns and refusals."""

import dataclasses
import json
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest

from heldout.report import page, rendering
from heldout.scoring import reliability_files, saved_scores, score_config, score_files
from tests.heldout.report import simulated
from zoo import errors, files, layout, run_table


@pytest.fixture(scope="module")
def saved():
    return simulated.saved()


@pytest.fixture
def config(tmp_path):
    return rendering.ReportConfig(scores="scores", output=str(tmp_path / "report"))


@pytest.fixture(scope="module")
def finished(saved, tmp_path_factory):
    """A finished report that tests copy, because every rendering takes a second."""
    output = tmp_path_factory.mktemp("finished") / "report"
    rendering.render_scores(saved, rendering.ReportConfig(scores="scores", output=str(output)))
    return output


@pytest.fixture
def report(finished, config):
    """A copy of the finished report where `config` expects it."""
    return pathlib.Path(shutil.copytree(finished, config.output))


def _stamps(directory):
    return {path: path.stat().st_mtime_ns for path in directory.rglob("*") if path.is_file()}


def test_writes_page_charts_and_record(saved, config, tmp_path):
    result = rendering.render_scores(saved, config)
    assert not result.up_to_date
    assert result.html_path.read_text("utf-8").startswith("<!DOCTYPE html>")
    assert {path.name for path in result.png_paths} == {
        "memorization.png",
        "accuracy.png",
        "subset_influence_bulk.png",
        "subset_influence_tails.png",
        "consistency.png",
        "consistency_by_ratio.png",
    }
    written = set(_stamps(tmp_path / "report"))
    assert written == {result.html_path, *result.png_paths, tmp_path / "report" / "report.json"}


def test_the_same_again_does_nothing(saved, config, report):
    before = _stamps(report)
    again = rendering.render_scores(saved, dataclasses.replace(config, overwrite=True))
    assert again.up_to_date
    assert again.html_path == report / "report.html"
    assert len(again.png_paths) == 6
    assert rendering.render_scores(saved, config).up_to_date
    assert _stamps(report) == before


@pytest.mark.usefixtures("report")
def test_other_scores_are_rendered_anew(saved, config):
    scores = saved.ratios[0.8]
    other = dataclasses.replace(scores, test_accuracy=scores.test_accuracy / 2)
    changed = dataclasses.replace(saved, ratios={**saved.ratios, 0.8: other})
    assert not rendering.render_scores(changed, config).up_to_date
    table = dataclasses.replace(changed, provenance={**saved.provenance, "table_digest": "other"})
    assert not rendering.render_scores(table, config).up_to_date
    assert rendering.render_scores(table, config).up_to_date


def test_a_changed_file_is_made_again(saved, config, report):
    page_path = report / "report.html"
    page_bytes = page_path.read_bytes()
    page_path.write_bytes(page_bytes[:1000])
    assert not rendering.render_scores(saved, config).up_to_date
    assert page_path.read_bytes() == page_bytes


def test_a_missing_file_is_made_again(saved, config, report):
    (report / "figures" / "accuracy.png").unlink()
    assert not rendering.render_scores(saved, config).up_to_date
    assert (report / "figures" / "accuracy.png").exists()


@pytest.mark.usefixtures("report")
def test_other_options_are_refused_with_both(saved, config):
    other = dataclasses.replace(config, options=page.PageOptions(num_gallery=3))
    with pytest.raises(errors.MismatchError, match=r'(?s)"num_gallery": 12.*"num_gallery": 3.*--overwrite'):
        rendering.render_scores(saved, other)
    assert not rendering.render_scores(saved, dataclasses.replace(other, overwrite=True)).up_to_date
    assert rendering.render_scores(saved, other).up_to_date


def test_charts_of_the_report_before_do_not_stay(saved, config, report):
    stranger = report / "figures" / "mine.png"
    stranger.write_bytes(b"mine")
    one = dataclasses.replace(
        saved,
        consistency=dataclasses.replace(
            saved.consistency,
            subset_ratios=saved.consistency.subset_ratios[:1],
            profile=saved.consistency.profile[:1],
        ),
    )
    result = rendering.render_scores(one, config)
    assert {path.name for path in (report / "figures").iterdir()} == {
        "mine.png",
        *(path.name for path in result.png_paths),
    }
    assert not (report / "figures" / "consistency_by_ratio.png").exists()


def test_render_reads_score_files(tmp_path, config):
    table = simulated.table()
    run_table.write(layout.run_table_path(tmp_path, "simulated"), table)
    score_files.compute_scores(score_config.ScoreConfig(zoo=str(tmp_path), experiment="simulated", num_draws=20))
    scores = layout.scores_directory(tmp_path, "simulated")
    config = dataclasses.replace(config, scores=str(scores))
    result = rendering.render(config)
    text = result.html_path.read_text("utf-8")
    assert "<h1>simulated</h1>" in text
    assert '<section id="reliability">' in text
    drawn = {path.stem for path in result.png_paths if path.stem.startswith("reliability")}
    assert drawn == {f"reliability_{name}" for name in (*reliability_files.STATISTICS, "strongest_pairs")}
    assert rendering.render(config).up_to_date
    path = scores / reliability_files.NAME
    files.write_json(path, {**files.read_json(path), "num_draws": 77})
    assert not rendering.render(config).up_to_date
    path.unlink()
    result = rendering.render(config)
    assert '<section id="reliability">' not in result.html_path.read_text("utf-8")
    assert len(result.png_paths) == 6


def test_a_report_from_before_an_option_was_there_is_made_again(saved, config, report):
    record = files.read_json(report / "report.json")
    del record["options"]["options"]["num_panels"]
    files.write_json(report / "report.json", record)
    assert rendering.render_scores(saved, config).up_to_date
    fewer = dataclasses.replace(config, options=page.PageOptions(num_panels=3))
    with pytest.raises(errors.MismatchError, match='"num_panels": 3'):
        rendering.render_scores(saved, fewer)


def test_a_page_of_another_origin_is_refused(saved, config, tmp_path):
    target = tmp_path / "report" / "report.html"
    files.write_text(target, "<p>mine</p>")
    with pytest.raises(errors.MismatchError, match="was not made by the report"):
        rendering.render_scores(saved, config)
    assert target.read_text() == "<p>mine</p>"
    rendering.render_scores(saved, dataclasses.replace(config, overwrite=True))
    assert target.read_text("utf-8").startswith("<!DOCTYPE")


def test_a_report_without_its_record_is_unfinished(saved, config, report):
    (report / "report.json").unlink()
    assert not rendering.render_scores(saved, config).up_to_date


@pytest.mark.parametrize("text", ["[]", '{"schema_version": 1}', "{", '{"options": 3, "files": []}'])
def test_a_damaged_record_is_refused(saved, config, report, text):
    files.write_text(report / "report.json", text)
    with pytest.raises(errors.DamagedFileError, match=r"report\.json"):
        rendering.render_scores(saved, config)


def test_a_failure_leaves_the_old_report(saved, config, report, monkeypatch):
    before = _stamps(report)

    def fail(*_arguments):
        raise MemoryError

    monkeypatch.setattr(page, "build", fail)
    with pytest.raises(MemoryError):
        rendering.render_scores(dataclasses.replace(saved, schema_version=2), config)
    assert _stamps(report) == before


def test_a_kill_between_files_is_mended(saved, config, tmp_path, monkeypatch):
    write_whole, written = files.write_whole, []

    def stop_after_two(target):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(target)
        return write_whole(target)

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_whole", stop_after_two)
        with pytest.raises(KeyboardInterrupt):
            rendering.render_scores(saved, config)
    assert not (tmp_path / "report" / "report.json").exists()
    assert not rendering.render_scores(saved, config).up_to_date
    assert rendering.render_scores(saved, config).up_to_date


def test_the_data_set_is_loaded_and_checked(saved, config):
    with pytest.raises(errors.MismatchError, match="--dataset digits: it has 1438 training examples"):
        rendering.render_scores(saved, dataclasses.replace(config, dataset="digits"))


def _write_images(path, seed):
    """The simulated data set, its images drawn from a seed."""
    rng = np.random.default_rng(seed)
    arrays = {}
    for split, label in (("train", simulated.TRAIN_LABEL), ("test", simulated.TEST_LABEL)):
        arrays |= {f"{split}__image": rng.integers(0, 256, (len(label), 6, 5), np.uint8), f"{split}__label": label}
    np.savez(path, **arrays, __data_scale=255)


def test_changed_images_are_noticed_and_their_path_does_not_matter(saved, config, tmp_path, monkeypatch):
    path = tmp_path / "own.npz"
    _write_images(path, 0)
    config = dataclasses.replace(config, dataset=f"npz:{path}")
    rendering.render_scores(saved, config)
    monkeypatch.chdir(tmp_path)
    relative = dataclasses.replace(config, dataset="npz:own.npz")
    assert rendering.render_scores(saved, relative).up_to_date
    _write_images(path, 1)
    assert not rendering.render_scores(saved, relative).up_to_date
    assert rendering.render_scores(saved, config).up_to_date


def test_a_flipped_bit_in_what_is_kept_of_influence_is_noticed(tmp_path, config):
    table = simulated.table()
    run_table.write(layout.run_table_path(tmp_path, "simulated"), table)
    score_files.compute_scores(score_config.ScoreConfig(zoo=str(tmp_path), experiment="simulated", num_draws=20))
    scores = layout.scores_directory(tmp_path, "simulated")
    path = scores / saved_scores.influence_name(0.5)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(errors.DamagedFileError, match=path.name):
        rendering.render(dataclasses.replace(config, scores=str(scores)))
    assert not pathlib.Path(config.output).exists()


def test_unknown_ratio_is_refused(saved, config):
    with pytest.raises(errors.InvalidValueError, match=r"subset_ratio 0\.3"):
        rendering.render_scores(saved, dataclasses.replace(config, subset_ratio=0.3))


@pytest.mark.parametrize(
    "wrong",
    [
        {"num_gallery": 0},
        {"num_stories": 0},
        {"num_effects": -1},
        {"max_pairs": 0},
        {"max_examples": 0},
        {"num_panels": -1},
        {"pairs_influence": 0.0},
        {"pairs_influence": float("nan")},
        {"pairs_memorization": 1.5},
    ],
)
def test_options_out_of_range_are_refused(saved, config, wrong, tmp_path):
    (name,) = wrong
    with pytest.raises(errors.InvalidValueError, match=name):
        rendering.render_scores(saved, dataclasses.replace(config, options=page.PageOptions(**wrong)))
    assert not (tmp_path / "report").exists()


def test_render_needs_scores(config, tmp_path):
    with pytest.raises(errors.MissingFileError):
        rendering.render(dataclasses.replace(config, scores=str(tmp_path / "nothing")))


def test_importing_the_report_loads_nothing_heavy():
    code = (
        "import json, sys, heldout.report; "
        "print(json.dumps([m for m in ('matplotlib', 'jinja2', 'PIL', 'tensorflow', 'sklearn') if m in sys.modules]))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(found.stdout) == []
