"""Comparisons of two small zoos and of their published files: figures against plain code, files, refusals, texts."""

import json
import math
import pathlib
import re

import numpy as np
import pytest
from scipy import stats

from heldout.report import comparison
from heldout.scoring import influence_sources, published_formats, saved_scores, score_sources
from tests.heldout.scoring import scored_zoos
from zoo import errors

N, M = scored_zoos.N, scored_zoos.M
LEAST = 0.15, 0.25


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Scores of two zoos of the same kind with other runs: the first ten examples are memorized in both."""
    here = tmp_path_factory.mktemp("compared")
    return [scored_zoos.write(here / name, ids) for name, ids in (("a", range(40)), ("b", range(100, 140)))]


def config(*paths, **options):
    first, second = map(str, paths)
    return comparison.CompareConfig((first, second), **({"subset_ratio": 0.7, "num_draws": 50} | options))


def test_memorization_of_two_zoos(folders):
    found = comparison.compare(config(*folders, reliability=(0.8, 0.9)))
    x, y = (saved_scores.load(folder).ratios[0.7].memorization.values for folder in folders)
    assert found.statistic == "memorization"
    assert found.proved == {"train": True}
    assert found.correlations.spearman.value == pytest.approx(stats.spearmanr(x, y)[0])
    assert found.correlations.num_examples == N
    assert found.correlations.pearson.value > 0.9
    assert found.corrected["pearson"].value == pytest.approx(found.correlations.pearson.value / math.sqrt(0.72))
    assert list(found.overlaps) == ["1 most memorized", "4 most memorized", "memorization >= 0.25"]
    above = found.overlaps["memorization >= 0.25"]
    assert (above.num_first, above.num_both) == (np.sum(x >= 0.25), np.sum((x >= 0.25) & (y >= 0.25)))
    ten = comparison.compare(config(*folders, top=(10,))).overlaps["10 most memorized"]
    assert (ten.num_both, ten.jaccard.value) == (10, 1)
    np.testing.assert_array_equal(found.points, [x, y])


def test_consistency_of_a_zoo_and_a_published_file(folders):
    path = folders[1] / "published" / "cscores.npz"
    found = comparison.compare(config(folders[0], path, method="fisher"))
    x, y = (saved_scores.load(folder).consistency.score for folder in folders)
    assert found.statistic == "consistency"
    assert found.correlations.pearson.value == pytest.approx(np.corrcoef(x, y)[0, 1])
    assert found.correlations.method == "fisher"
    assert set(found.overlaps) == {"1 least consistent", "4 least consistent"}
    ten = comparison.compare(config(folders[0], path, top=(10,))).overlaps["10 least consistent"]
    assert ten.num_both == 10


def plain_pairs(folder, same_class=False):
    ratio = saved_scores.load(folder).ratios[0.7]
    return {
        (i, j): float(value)
        for i, row in enumerate(ratio.subset_influence)
        for j, value in enumerate(row)
        if value >= LEAST[0] and ratio.memorization.values[i] >= LEAST[1] and (i % 3 == j % 3 or not same_class)
    }


def test_influence_of_two_matrices(folders):
    found = comparison.compare(config(*folders, statistic="influence", num_pairs=5000))
    first, second = map(plain_pairs, folders)
    (overlap,) = found.overlaps.values()
    assert (overlap.num_first, overlap.num_second) == (len(first), len(second))
    assert overlap.num_both == len(first.keys() & second.keys())
    assert overlap.num_examples == N * M
    assert found.drawn
    assert found.points.shape == (2, 5000)
    assert found.correlations.num_examples == 5000
    values = [saved_scores.load(folder).ratios[0.7].subset_influence for folder in folders]
    whole = np.corrcoef(values[0].ravel(), values[1].ravel())[0, 1]
    # The drawn pairs are those of the matrices, so their correlation is near that of all; 5000 draws: error 0.014.
    assert abs(found.correlations.pearson.value - whole) < 0.06
    seen = found.pairs[0]
    assert (seen.num_pairs, seen.num_known) == (len(first), len(first))
    assert seen.mean == pytest.approx(np.mean(list(first.values())))
    there = np.array([values[1][pair] for pair in first])
    assert seen.other_mean == pytest.approx(there.mean())
    assert seen.share_positive == pytest.approx(np.mean(there > 0))
    assert seen.share_high == pytest.approx(np.mean(there >= LEAST[0]))


def test_influence_of_a_matrix_and_a_list(folders):
    path = folders[1] / "published" / "high_influence_pairs-0.7.npz"
    found = comparison.compare(config(folders[0], path))
    stored = published_formats.read_high_influence_pairs(path)
    ours = saved_scores.load(folders[0]).ratios[0.7].subset_influence[stored.train_index, stored.test_index]
    assert found.statistic == "influence"
    assert found.proved == {"train": False, "test": False}
    assert not found.drawn
    assert found.correlations.spearman.value == pytest.approx(stats.spearmanr(ours, stored.subset_influence)[0])
    assert found.pairs[1].other_mean == pytest.approx(ours.mean())
    (overlap,) = found.overlaps.values()
    assert overlap.num_both == len(plain_pairs(folders[0]).keys() & plain_pairs(folders[1]).keys())
    assert overlap.num_examples == N * M


def test_influence_of_two_lists(folders):
    paths = [folder / "published" / "high_influence_pairs-0.7.npz" for folder in folders]
    found = comparison.compare(config(*paths))
    first, second = map(plain_pairs, folders)
    common = sorted(first.keys() & second.keys())
    assert found.correlations.num_examples == len(common)
    assert found.correlations.num_first_only == len(first) - len(common)
    assert found.correlations.num_second_only == len(second) - len(common)
    wanted = stats.pearsonr([first[pair] for pair in common], [second[pair] for pair in common])[0]
    assert found.correlations.pearson.value == pytest.approx(wanted)
    (overlap,) = found.overlaps.values()
    assert overlap.num_both == len(common)
    assert math.isnan(overlap.expected_jaccard)
    assert ", by chance" not in "\n".join(comparison.lines(found))


def test_influence_within_classes_is_compared_there_only(folders):
    path = folders[1] / "published" / "class_influence-0.7.npz"
    found = comparison.compare(config(folders[0], path, statistic="influence", num_pairs=2000))
    first, second = (plain_pairs(folder, same_class=True) for folder in folders)
    assert len(plain_pairs(folders[0])) > len(first) > 0
    (overlap,) = found.overlaps.values()
    assert (overlap.num_first, overlap.num_second) == (len(first), len(second))
    assert overlap.num_examples == np.sum(np.arange(N)[:, np.newaxis] % 3 == np.arange(M) % 3)
    assert found.correlations.num_examples == 2000


def test_matrices_of_other_sizes_are_refused(folders, tmp_path):
    path = tmp_path / "classes.npz"
    labels = np.arange(N) % 3, np.zeros(M + 1, int)
    scored_zoos.class_influence(path, np.zeros((N, M + 1)), np.zeros(N), *labels)
    with pytest.raises(errors.MismatchError, match="have 17 and 18 test labels"):
        comparison.compare(config(folders[0], path, statistic="influence"))
    found = saved_scores.load(folders[0])
    from_other = published_formats.HighInfluencePairs(*(np.array([v]) for v in (N, 0, 0.5, 0.5)))
    published_formats.write_high_influence_pairs(tmp_path / "pairs.npz", from_other)
    with pytest.raises(errors.MismatchError, match="has 40 training examples, but training example 40 is asked for"):
        comparison.compare(config(found.directory, tmp_path / "pairs.npz"))


def test_unlabelled_matrices_of_other_sizes_are_refused(folders):
    sources = []
    for width in (M, M - 1):
        saved = saved_scores.load(folders[0])
        matrix = saved.ratios[0.7].subset_influence[:, :width]
        influence = influence_sources.WholeMatrix(folders[0], np.zeros(N), matrix)
        sources.append(score_sources.Source(folders[0], "score files", "demo", 0.7, {}, influence))
    with pytest.raises(
        errors.MismatchError, match=r"of 40 training and 17 test examples, .* of 40 and 16: they are of"
    ):
        comparison.of_pairs(config(*folders), *sources, {})


def test_files_appear_and_the_same_command_writes_the_same(folders, tmp_path):
    asked = config(*folders, output=str(tmp_path))
    found = comparison.compare(asked)
    first = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert set(first) == {"compare.json", "scatter.png"}
    assert first["scatter.png"].startswith(b"\x89PNG")
    stored = json.loads(first["compare.json"])
    assert stored["schema_version"] == 1
    assert stored["correlations"]["spearman"]["value"] == found.correlations.spearman.value
    assert stored["order_proved"] == {"train": True}
    assert stored["sources"][1] == {"name": "demo", "kind": "score files", "subset_ratio": 0.7}
    assert str(tmp_path) not in first["compare.json"].decode()
    comparison.compare(asked)
    assert first == {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    other = config(*folders, output=str(tmp_path), seed=1)
    with pytest.raises(errors.MismatchError, match=r"is a comparison with other options:\n.*'seed': 0.*\n.*'seed': 1"):
        comparison.compare(other)
    with pytest.raises(errors.MismatchError, match=r"a/demo/scores.*b/demo/scores"):
        comparison.compare(config(folders[0], folders[0], output=str(tmp_path)))
    assert first["compare.json"] == (tmp_path / "compare.json").read_bytes()
    comparison.compare(config(*folders, output=str(tmp_path), seed=1, overwrite=True))
    assert json.loads((tmp_path / "compare.json").read_bytes())["options"]["seed"] == 1


def test_what_is_not_defined_is_null_and_said(folders, tmp_path):
    path = tmp_path / "pairs.npz"
    apart = published_formats.HighInfluencePairs(*(np.array([v]) for v in (39, 16, 0.5, 0.5)))
    published_formats.write_high_influence_pairs(path, apart)
    listed = folders[0] / "published" / "high_influence_pairs-0.7.npz"
    found = comparison.compare(config(listed, path, output=str(tmp_path / "out")))
    texts = "\n".join(comparison.lines(found))
    assert "spearman not defined: too few values" in texts
    assert "the 1 high pair of the second: the first has a value of none of them" in texts
    stored = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert stored["correlations"]["pearson"]["value"] is None


def test_the_terminal_tells_what_was_found(folders):
    texts = comparison.lines(comparison.compare(config(*folders, reliability=(0.8, 0.9))))
    assert texts[0] == "memorization: demo (score files, ratio 0.7) beside demo (score files, ratio 0.7)"
    assert texts[1].endswith("labels agree, so it is proved up to exchanges in a class")
    assert "40 examples with both values, 0 with the first alone, 0 with the second alone" in texts
    assert sum("95 % interval" in text for text in texts) == 3 + 2 + 3
    assert any(text.startswith("pearson  +0.9") and text.endswith("(bootstrap)") for text in texts)
    texts = comparison.lines(comparison.compare(config(*folders, statistic="influence")))
    assert any("pairs drawn at random with both values" in text for text in texts)
    assert any("of 20000 drawn" in text for text in texts)
    assert any(text.startswith("the ") and "% are high there too" in text for text in texts)


def test_the_documents_describe_the_members(folders, tmp_path):
    comparison.compare(config(*folders, output=str(tmp_path)))
    text = (pathlib.Path(__file__).parents[3] / "docs" / "file_formats.md").read_text(encoding="utf-8")
    (table,) = re.findall(r"^### `compare.json`\n(.*?)^Figures", text, flags=re.MULTILINE | re.DOTALL)
    stored = json.loads((tmp_path / "compare.json").read_text())
    assert re.findall(r"^\| `(\w+)`", table, flags=re.MULTILINE) == list(stored)
