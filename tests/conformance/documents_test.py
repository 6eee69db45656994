"""The documents tell the truth: links resolve, names exist, snippets run, tables of members are those of real files."""

import ast
import dataclasses
import functools
import json
import pathlib
import re

import numpy as np
import pytest

from estimators import artifacts, score_matrix
from heldout import models, report, subsets
from heldout.datasets import dataset, registry
from heldout.evaluation import evaluation_files, margins
from heldout.experiments import label_noise, recipes, subset_rankings, training_files
from heldout.scoring import datamodel_files, datamodels, optional_files, score_config, score_files
from heldout.training import failures, run_results
from scripts.attribution import influence_files
from tests import cases
from zoo import aux_arrays, checkpoints, layout, run_table_update
from zoo.archive import index, pack

_ROOT = pathlib.Path(__file__).parents[2]
_DOCUMENTS = sorted([*_ROOT.glob("*.md"), *_ROOT.glob("docs/*.md")])
_GLOSSARY = _ROOT / "docs" / "glossary.md"
_FORMATS = _ROOT / "docs" / "file_formats.md"
_PACKAGES = ("zoo", "heldout", "estimators", "scripts")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_REPOSITORY_PATH = re.compile(r"`((?:zoo|heldout|estimators|scripts|tests|benchmarks|docs)/[\w./]+\.\w+)`")


def broken_links(document: pathlib.Path, root: pathlib.Path) -> list[str]:
    """Links of a document to files or headings that are not there, and paths of ours that it names in vain."""
    text = re.sub(r"```.*?```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL)
    broken = [path for path in _REPOSITORY_PATH.findall(text) if not (root / path).exists()]
    for link in _LINK.findall(text):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (document.parent / name).resolve() if name else document
        inside = target.exists() and target.is_relative_to(root.resolve())
        if not inside or (anchor and anchor not in headings(target)):
            broken.append(link)
    return broken


def headings(document: pathlib.Path) -> set[str]:
    """Anchors of the headings of a document."""
    titles = re.findall(r"^#+ +(.*)$", document.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("document", _DOCUMENTS, ids=lambda path: path.name)
def test_links_resolve(document):
    assert broken_links(document, _ROOT) == []


def test_a_broken_link_is_found(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "outside").touch()
    document = root / "a.md"
    document.write_text("# A `b`\n[](b.md) [](https://b.md) [](#a-b) [](#other) `zoo/none.py` [](../outside)")
    assert broken_links(document, root) == ["zoo/none.py", "b.md", "#other", "../outside"]
    (root / "b.md").touch()
    assert broken_links(document, root) == ["zoo/none.py", "#other", "../outside"]


@pytest.mark.parametrize("document", _DOCUMENTS, ids=lambda path: path.name)
def test_make_targets_exist(document):
    targets = set(re.findall(r"^([a-z]+):", (_ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert set(re.findall(r"`make ([a-z]+)`", document.read_text(encoding="utf-8"))) <= targets


def table_rows(text: str, first_column: str) -> list[list[str]]:
    """The rows of all tables whose first column has this title, as cells."""
    rows, inside = [], False
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")] if line.startswith("|") else []
        inside = bool(cells) and (inside or cells[0] == first_column)
        if inside and cells[0] != first_column and set(cells[0]) != {"-"}:
            rows.append(cells)
    return rows


@functools.cache
def members(module: str) -> frozenset[str] | None:
    """What a module defines, as "name" or "Class.attribute"; None where there is no such module."""
    path = _ROOT.joinpath(*module.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    if not path.is_file():
        return None
    return frozenset(_definitions(ast.parse(path.read_text(encoding="utf-8")), ""))


def _definitions(node: ast.AST, prefix: str) -> list[str]:
    found = []
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef | ast.FunctionDef):
            found.append(prefix + child.name)
        if isinstance(child, ast.ClassDef):
            found += _definitions(child, f"{prefix}{child.name}.")
        targets = child.targets if isinstance(child, ast.Assign) else [getattr(child, "target", None)]
        found += [prefix + target.id for target in targets if isinstance(target, ast.Name)]
    return found


def exists(place: str) -> bool:
    """Whether package.module.name or package.module.Class.attribute is defined in our sources."""
    parts = place.split(".")
    known = [(members(".".join(parts[:i])), ".".join(parts[i:])) for i in range(1, len(parts))]
    return parts[0] in _PACKAGES and any(name in defined for defined, name in known if defined is not None)


@functools.cache
def identifiers() -> frozenset[str]:
    """Every name that our sources define: functions, classes, arguments, variables, attributes."""
    found = set()
    for package in _PACKAGES:
        for path in (_ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ClassDef | ast.FunctionDef):
                    found.add(node.name)
                elif isinstance(node, ast.arg):
                    found.add(node.arg)
                elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                    found.add(node.id)
    return frozenset(found)


def test_every_name_in_the_glossary_exists():
    rows = [row for row in table_rows(_GLOSSARY.read_text(encoding="utf-8"), "Term") if len(row) == 5]
    assert len(rows) > 50
    names = {name for row in rows for name in re.findall(r"`([^`]+)`", row[1])}
    assert sorted(names - identifiers()) == []
    places = {place for row in rows for place in re.findall(r"`([^`]+)`", row[2])}
    assert sorted(place for place in places if not exists(place)) == []
    assert [row[0] for row in rows if bool(row[1]) != bool(row[2])] == []


def test_a_name_that_does_not_exist_is_found():
    assert exists("zoo.run_table.RunTable.subset_mask")
    assert exists("zoo.run_table.SCHEMA_VERSION")
    assert not exists("zoo.run_table.RunTable.subset_masks")
    assert not exists("zoo.no_such_module.RunTable")
    assert not exists("numpy.ndarray")
    assert "no_such_name" not in identifiers()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with every file that the snippets read, made by the project itself where it writes such files."""
    here = tmp_path_factory.mktemp("documents")
    zoo, experiment, data = here / "zoo", "digits-mlp", cases.tiny_digits(40, 20)
    recipe = cases.tiny_recipe(data)
    options = {"hidden_sizes": [8]}
    recipes.adopt(zoo, recipes.Recipe(experiment, recipe.dataset, "mlp", options, recipe.training, "npz:gone.npz"))
    generator = np.random.default_rng(5)
    for run_id in range(24):
        mask = np.zeros(40, bool)
        mask[subsets.subset_indices(experiment, 0.7, run_id, 40)] = True
        right = generator.random(40) < np.where(mask, 0.9, 0.5)
        aux = aux_arrays.from_masks(mask, right, generator.random(20) < 0.7)
        aux_arrays.write(layout.Run(zoo, experiment, 0.7, run_id).aux_arrays_path, aux)
    run_table_update.update(zoo, experiment, train_label=data.train.label, test_label=data.test.label)
    scores = score_files.compute_scores(score_config.ScoreConfig(str(zoo), experiment, num_draws=10, cross_class=True))
    csv = score_config.ScoreConfig(
        str(zoo), experiment, num_draws=10, table_format="csv", output=str(here / "scores-csv"), cross_class=True
    )
    score_files.compute_scores(csv)
    options = datamodels.Options(num_lambdas=5, lambda_ratio=0.2)
    datamodel_files.fit_datamodels(datamodel_files.DatamodelConfig(str(zoo), experiment, options=options))
    output = str(layout.report_directory(zoo, experiment))
    report.render(report.ReportConfig(scores=str(scores.directory), output=output))
    noisy = label_noise.apply(label_noise.LabelNoise("pair", count=3), data)
    label_noise.write_labels(layout.labels_path(zoo, experiment), data, noisy)
    failed = run_results.RunResult(layout.Run(zoo, experiment, 0.7, 30), "the training loss is nan", 0.5, epoch=2)
    failures.append(zoo, experiment, failures.describe(recipe, failed))
    _write_evaluation(zoo, experiment)
    _write_margins(here, data)
    _write_influence(here / "influence")
    data.save(here / "dataset")
    pack.pack(zoo, experiment, here / "packed", pack.Options())
    np.save(here / "mnist-cscores.npy", np.zeros(60000))
    _write_imagenet_index(here / "imagenet-index.npz")
    return here


def _write_evaluation(zoo: pathlib.Path, experiment: str) -> None:
    output, right = evaluation_files.directory(zoo, experiment, "test", None), np.ones(20, bool)
    run = layout.Run(zoo, experiment, 0.7, 12)
    summary = evaluation_files.summarise(run, evaluation_files.Parts(right, right, None), 10, "0")
    evaluation_files.write(output, summary, right, right.astype(np.float16))
    evaluation_files.write_table(output, [summary])


def _write_margins(here: pathlib.Path, data: dataset.Dataset) -> None:
    """Scores of runs that have margins."""
    zoo, generator = here / "margins", np.random.default_rng(6)
    for run_id in range(8):
        mask, right = generator.random(40) < 0.7, generator.random(40) < 0.8
        margin = generator.normal(size=40).astype(np.float16), generator.normal(size=20).astype(np.float16)
        aux = aux_arrays.from_masks(mask, right, right[:20], margin)
        aux_arrays.write(layout.Run(zoo, "digits-mlp", 0.7, run_id).aux_arrays_path, aux)
    run_table_update.update(zoo, "digits-mlp", train_label=data.train.label, test_label=data.test.label)
    output = str(here / "scores-margins")
    score_files.compute_scores(
        score_config.ScoreConfig(str(zoo), "digits-mlp", num_draws=10, output=output, margin_influence=True)
    )


def _write_influence(here: pathlib.Path) -> None:
    """Scores of an estimator, and their average."""
    matrix = score_matrix.ScoreMatrix(
        np.arange(12.0).reshape(4, 3), np.arange(4), np.arange(3), "m", "raises the loss", "loss", lower_is_better=True
    )
    artifacts.save_scores(here / "scores", matrix)
    ranking = subset_rankings.SubsetRanking(matrix.train_ids, matrix.values.mean(axis=1))
    subset_rankings.write(here / "subset_ranking.npz", ranking)
    influence_files.write_top(here, matrix, 2)
    influence_files.write_average(here, matrix.train_ids, matrix.test_ids, matrix.values.mean(axis=1), {"a": 1})


def _write_imagenet_index(path: pathlib.Path) -> None:
    names = np.array([b"n01440764_10026", b"n01440764_10027"])
    labels = np.zeros(2, np.int64)
    np.savez(path, tr_filenames=names, tr_labels=labels, tt_filenames=names, tt_labels=labels, tr_mem=np.zeros(2))


def snippets(text: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


_SNIPPETS = snippets(_FORMATS.read_text(encoding="utf-8"))


@pytest.mark.parametrize("number", range(len(_SNIPPETS)))
def test_snippets_run(folder, monkeypatch, capsys, number):
    snippet = _SNIPPETS[number]
    monkeypatch.chdir(folder)
    if "tensorflow" in snippet:
        _write_checkpoint(layout.Run(folder / "zoo", "digits-mlp", 0.7, 12))
    assert not re.search(rf"^\s*(import|from) ({'|'.join(_PACKAGES)})\b", snippet, flags=re.MULTILINE)
    names = {}
    exec(compile(snippet, f"snippet {number} of {_FORMATS.name}", "exec"), names)
    if "memorization" in names:  # however a snippet comes by it
        with np.load("zoo/digits-mlp/scores/scores-0.7.npz") as scores:
            np.testing.assert_array_equal(names["memorization"], scores["memorization"])
    assert "print(" not in snippet or capsys.readouterr().out


def _write_checkpoint(run: layout.Run) -> None:
    model = models.build("mlp", 10, (8, 8, 1), {"hidden_sizes": [8]})
    checkpoints.write(model, run.checkpoint_prefix(20), epoch=20, global_step=40)


_MEMBERS = {
    "`aux_arrays.npz`": "zoo/digits-mlp/0.7/12/aux_arrays.npz",
    "`labels.npz`": "zoo/digits-mlp/labels.npz",
    "`run_table.npz`": "zoo/digits-mlp/run_table.npz",
    "`scores-<ratio>.npz`": "zoo/digits-mlp/scores/scores-0.7.npz",
    "`influence-<ratio>.npz`": "zoo/digits-mlp/scores/influence-0.7.npz",
    "`cross_class-<ratio>.npz`": "zoo/digits-mlp/scores/cross_class-0.7.npz",
    "`margin_influence-<ratio>.npz`": "scores-margins/margin_influence-0.7.npz",
    "`datamodels-<ratio>.npz`": "zoo/digits-mlp/scores/datamodels-0.7.npz",
    "`consistency.npz`": "zoo/digits-mlp/scores/consistency.npz",
    "`class_influence-<ratio>.npz`": "zoo/digits-mlp/scores/published/class_influence-0.7.npz",
    "`high_influence_pairs-<ratio>.npz`": "zoo/digits-mlp/scores/published/high_influence_pairs-0.7.npz",
    "`cscores.npz`": "zoo/digits-mlp/scores/published/cscores.npz",
    "`recipe.json`": "zoo/digits-mlp/recipe.json",
    "Manifest and registry": "packed/digits-mlp.json",
    "`config.json`": "zoo/digits-mlp/scores/config.json",
    "`reliability.json`": "zoo/digits-mlp/scores/reliability.json",
    "`<run_id>.npz`": "zoo/digits-mlp/evaluation/test/0.7/12.npz",
    "Report files": "zoo/digits-mlp/report/report.json",
    "`scores/` and `factors/`": "influence/scores/manifest.json",
    "`top_influence.npz`": "influence/top_influence.npz",
    "`average_influence.npz`": "influence/average_influence.npz",
    "`subset_ranking.npz`": "influence/subset_ranking.npz",
}


def section(title: str) -> str:
    """The text under one heading, up to the next."""
    text = _FORMATS.read_text(encoding="utf-8")
    return re.search(rf"^#+ {re.escape(title)}\n(.*?)(?=^#|\Z)", text, flags=re.MULTILINE | re.DOTALL)[1]


def described(title: str) -> dict[str, str]:
    """Type of each member by name, as the table under a heading gives it."""
    firsts = {"Report files": "Member of `report.json`", "`scores/` and `factors/`": "Member of `manifest.json`"}
    first = firsts.get(title, "Member")
    return {row[0].strip("`"): row[1] for row in table_rows(section(title), first)}


def found(path: pathlib.Path) -> dict[str, str]:
    """Type of each member by name, as a file holds it."""
    if path.suffix == ".json":
        names = {int: "int", bool: "bool", str: "text", dict: "object", list: "list of text"}
        names |= {list: "list of objects"} if path.parent.name == "packed" else {}
        values = json.loads(path.read_text())
        objects = {name for name, value in values.items() if type(value) is list and value and type(value[0]) is dict}
        return {name: "list of objects" if name in objects else names[type(value)] for name, value in values.items()}
    with np.load(path) as stored:
        dtypes = {name: "str" if stored[name].dtype.kind == "U" else str(stored[name].dtype) for name in stored.files}
    return {re.sub(r"(?<=classidx_)\d+|(?<=infl_matrix_class)\d+", "<K>", name): dtypes[name] for name in dtypes}


@pytest.mark.parametrize("title", _MEMBERS)
def test_tables_of_members_are_those_of_the_files(folder, title):
    assert described(title) == found(folder / _MEMBERS[title])


def further(title: str) -> set[str]:
    """Names of the members under a heading that a file may have besides."""
    return {row[0].strip("`") for row in table_rows(section(title), "Further member")}


def test_tables_of_further_members_are_those_of_the_files(tmp_path):
    data = cases.tiny_digits(40, 20)
    mask = np.arange(40) < 20
    logits = np.zeros((40, 10))
    margin = margins.margins(logits, data.train.label), margins.margins(logits[:20], data.test.label)
    aux_arrays.write(tmp_path / "aux.npz", aux_arrays.from_masks(mask, mask, mask[:20], margin))
    assert further("`config.json`") == {optional_files.MARGIN_SOURCES}
    assert further("`aux_arrays.npz`") == set(found(tmp_path / "aux.npz")) - set(described("`aux_arrays.npz`"))
    plain = cases.tiny_recipe(data)
    noise = label_noise.LabelNoise("pair", count=3)
    changed = dataclasses.replace(
        plain, noise=noise, clean_label_sha256="0", subset_sampling="ranked", ranking_sha256="0"
    )
    assert further("`recipe.json`") == set(changed.to_json()) - set(plain.to_json())
    row = next(row for row in table_rows(section("`recipe.json`"), "Further member") if "label_noise" in row[0])
    assert set(changed.to_json()["label_noise"]) <= set(re.findall(r"`(\w+)`", row[2]))


def test_the_table_of_failures_is_that_of_a_line(folder):
    with open(folder / "zoo" / "digits-mlp" / "failures.jsonl") as stream:
        names = {int: "int", float: "float", str: "text"}
        stored = {name: names[type(value)] for name, value in json.loads(stream.readline()).items()}
    assert {name: kind.removesuffix(" or null") for name, kind in described("`failures.jsonl`").items()} == stored


def test_the_table_of_a_training_in_progress_is_that_of_its_file():
    group = training_files.Group(0.7, (1,), "host", 2, "2026-01-31T12:00:00+00:00")
    training = training_files.Training("0123abcd", "host", 1, group.began, (0.7,), ((0, 1),), (group,))
    rows = table_rows(section("A training in progress"), "Member")
    assert [row[0].strip("`") for row in rows] == list(training.to_json())
    (of_groups,) = (row[2] for row in rows if row[0] == "`groups`")
    assert re.findall(r"`(\w+)`", of_groups) == [field.name for field in dataclasses.fields(group)]


def test_tables_of_the_archive_index_are_those_of_the_file():
    rows = table_rows(section("`archive.index.sqlite`"), "Table")
    assert [row[0].strip("`") for row in rows] == list(index.TABLES)
    for name, columns, _ in rows:
        (declared,) = re.findall(r"\((.*)\)", index.TABLES[name.strip("`")])
        assert re.findall(r"`(\w+)`", columns) == [part.split()[0] for part in declared.split(", ")]
    facts = {field.name for field in dataclasses.fields(index.Facts)}
    assert facts == set(
        re.findall(
            r"`(\w+)`", section("`archive.index.sqlite`").partition("The keys of `fact` are")[2].partition(".")[0]
        )
    )


def test_tables_of_columns_are_those_of_the_files(folder):
    rows = table_rows(section("Tables"), "Table")
    assert [row[0] for row in rows] == ["`examples`", "`high_influence_pairs`", "`cross_class`"]
    for name, columns in rows:
        header = (folder / "scores-csv" / f"{name.strip('`')}.csv").read_text().splitlines()[0]
        assert header.replace('"', "").split(",") == re.findall(r"`(\w+)`", columns)


def test_the_columns_of_agreement_are_those_of_the_file(folder):
    ((_, columns),) = table_rows(section("`agreement.csv`"), "Table")
    header = (folder / "zoo" / "digits-mlp" / "evaluation" / "test" / "agreement.csv").read_text().splitlines()[0]
    assert header.split(",") == re.findall(r"`(\w+)`", columns)


def test_the_described_data_set_can_be_loaded(folder, monkeypatch):
    monkeypatch.chdir(folder)
    (snippet,) = [snippet for snippet in _SNIPPETS if "mine.npz" in snippet]
    exec(compile(snippet, "snippet", "exec"), {})
    names = list(described("Your own, as npz"))
    with np.load("mine.npz") as stored:
        arrays = dict(stored)
    assert set(arrays) <= set(names)
    arrays |= {
        "train__index": np.arange(40)[::-1],
        "test__index": np.arange(20),
        "__class_names": np.arange(10).astype(str),
    }
    assert set(arrays) == set(names)
    np.savez("all.npz", **arrays)
    data = registry.load("npz:all.npz")
    assert data.scale == 255
    np.testing.assert_array_equal(data.train.label, arrays["train__label"][::-1])
