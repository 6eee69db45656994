"""Modules import downwards only: scripts -> heldout -> zoo, scripts -> estimators, and never in a circle.

Nor do packages, such as heldout.training and heldout.evaluation, import one another in a circle.

The sources are parsed, not imported. That the checker finds what it is there for is shown on a small tree of its own
with one planted offence at a time.
"""

import ast
from collections.abc import Iterator
import pathlib

import pytest

_ROOT = pathlib.Path(__file__).parents[2]
_ALLOWED = {
    "zoo": {"zoo"},
    "heldout": {"heldout", "zoo"},
    "estimators": {"estimators"},
    "scripts": {"scripts", "heldout", "zoo", "estimators"},
}
_OURS = {*_ALLOWED, "tests", "benchmarks"}
# What brings TensorFlow along; in zoo, one module may.
_TENSORFLOW = {"tensorflow", "tensorflow_datasets", "sonnet", "keras"}
_ZOO_WITH_TENSORFLOW = "zoo.checkpoints"


def modules(root: pathlib.Path) -> dict[str, pathlib.Path]:
    """Our modules by dotted name; a package is named without its __init__."""
    found = {}
    for package in _ALLOWED:
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(name: str, path: pathlib.Path, known: dict[str, pathlib.Path]) -> Iterator[tuple[str, int, bool]]:
    """(imported module, line, whether inside a function) for every import statement of a module."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    pending: list[tuple[ast.AST, bool]] = [(ast.parse(path.read_text(encoding="utf-8")), False)]
    while pending:
        node, inside = pending.pop()
        inside = inside or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        pending += [(child, inside) for child in ast.iter_child_nodes(node)]
        for target in _targets(node, package, known):
            yield target, node.lineno, inside


def _targets(node: ast.AST, package: str, known: dict[str, pathlib.Path]) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            base = ".".join([*package.split(".")[: len(package.split(".")) - node.level + 1], *base.split(".")])
            base = base.strip(".")
        # `from package import module` means the module; `from module import name` the module that holds the name.
        names = [f"{base}.{alias.name}" for alias in node.names]
        return [name if name in known else base for name in names]
    is_call = isinstance(node, ast.Call) and bool(node.args) and isinstance(node.args[0], ast.Constant)
    if is_call and ast.unparse(node.func).rpartition(".")[2] in ("import_module", "__import__"):
        return [str(node.args[0].value)]
    return []


def offences(root: pathlib.Path) -> list[str]:
    """Everything that breaks a rule, as lines "path:line: what"."""
    known = modules(root)
    found = []
    graph: dict[str, set[str]] = {name: set() for name in known}
    for name, path in known.items():
        package = name.partition(".")[0]
        for target, line, inside in imports(name, path, known):
            where, top = f"{path.relative_to(root)}:{line}", target.partition(".")[0]
            if top in _OURS and top not in _ALLOWED[package]:
                found.append(f"{where}: {package} imports {target}")
            if top in _OURS and inside:
                found.append(f"{where}: {target} is imported inside a function")
            if package == "zoo" and top in _TENSORFLOW and name != _ZOO_WITH_TENSORFLOW:
                found.append(f"{where}: {target} in zoo, outside {_ZOO_WITH_TENSORFLOW}")
            if target in known:
                graph[name].add(target)
    found += [f"cycle: {' -> '.join(cycle)}" for cycle in _cycles(graph)]
    return found + [f"cycle of packages: {' -> '.join(cycle)}" for cycle in _cycles(_between_packages(graph))]


def _between_packages(graph: dict[str, set[str]]) -> dict[str, set[str]]:
    """The same graph with each package one level down, as heldout.training, and all in it as one."""
    whole: dict[str, set[str]] = {}
    for name, targets in graph.items():
        package = _two_parts(name)
        whole.setdefault(package, set()).update({_two_parts(target) for target in targets} - {package})
    return whole


def _two_parts(name: str) -> str:
    return ".".join(name.split(".")[:2])


def _cycles(graph: dict[str, set[str]]) -> list[list[str]]:
    """One cycle for each back edge of a depth-first search, beginning with its first module by name."""
    cycles: list[list[str]] = []
    done: set[str] = set()

    def visit(name: str, trail: list[str]) -> None:
        if name in trail:
            cycle = trail[trail.index(name) :]
            first = cycle.index(min(cycle))
            cycles.append([*cycle[first:], *cycle[: first + 1]])
        elif name not in done:
            for target in sorted(graph[name]):
                visit(target, [*trail, name])
            done.add(name)

    for name in sorted(graph):
        visit(name, [])
    return cycles


def packaged(root: pathlib.Path) -> set[str]:
    """The packages that setup.py lists."""
    tree = ast.parse((root / "setup.py").read_text(encoding="utf-8"))
    keywords = [keyword for node in ast.walk(tree) if isinstance(node, ast.Call) for keyword in node.keywords]
    (listed,) = [keyword.value for keyword in keywords if keyword.arg == "packages"]
    return set(ast.literal_eval(listed))


def folders(root: pathlib.Path) -> set[str]:
    """The packages there are: our folders that hold Python files."""
    return {".".join(path.parent.relative_to(root).parts) for path in modules(root).values()}


def test_imports_follow_the_layers():
    assert offences(_ROOT) == []


def test_every_package_is_installed_and_has_an_init():
    assert packaged(_ROOT) == folders(_ROOT)
    assert [name for name in folders(_ROOT) if not (_ROOT / name.replace(".", "/") / "__init__.py").is_file()] == []


@pytest.fixture
def tree(tmp_path):
    """A small tree without offence, with every lawful kind of import."""
    sources = {
        "zoo/__init__.py": "",
        "zoo/errors.py": "import dataclasses",
        "zoo/layout.py": "from zoo import errors",
        "zoo/checkpoints.py": "import tensorflow as tf\nfrom zoo import errors, layout",
        "heldout/__init__.py": "",
        "heldout/scores.py": "import numpy as np\nfrom zoo.layout import Run",
        "heldout/report/__init__.py": "from heldout.report.page import build",
        "heldout/report/page.py": "from heldout import scores\nfrom . import parts\ndef build():\n    import jinja2",
        "heldout/report/parts.py": "from .. import scores",
        "estimators/__init__.py": "",
        "scripts/__init__.py": "",
        "scripts/program.py": "from heldout.report import build\nimport zoo.layout, estimators",
        "heldout/data/__init__.py": "",
        "heldout/data/files.py": "",
        "heldout/data/tables.py": "from heldout.report import parts",
        "setup.py": "setup(packages=['zoo', 'heldout', 'heldout.data', 'heldout.report', 'estimators', 'scripts'])",
    }
    for name, source in sources.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(source)
    return tmp_path


def test_the_checker_accepts_what_is_lawful(tree):
    assert offences(tree) == []
    assert packaged(tree) == folders(tree)


@pytest.mark.parametrize(
    ("name", "source", "expected"),
    [
        ("zoo/errors.py", "\nfrom heldout import scores", "zoo/errors.py:2: zoo imports heldout.scores"),
        ("zoo/errors.py", "from scripts.program import x", "zoo imports scripts.program"),
        ("heldout/scores.py", "import scripts.program", "heldout imports scripts.program"),
        ("heldout/scores.py", "import estimators", "heldout imports estimators"),
        ("estimators/__init__.py", "from zoo import layout", "estimators imports zoo.layout"),
        ("estimators/tracin.py", "from ..heldout import scores", "estimators imports heldout"),
        ("scripts/program.py", "from tests import cases", "scripts imports tests"),
        ("scripts/program.py", "import benchmarks.timing", "scripts imports benchmarks.timing"),
        ("heldout/scores.py", "def f():\n    from zoo import layout", "zoo.layout is imported inside a function"),
        ("heldout/scores.py", "class C:\n  async def f():\n    import zoo", "zoo is imported inside a function"),
        ("heldout/scores.py", "import importlib as i\ni.import_module('scripts.cli')", "imports scripts.cli"),
        ("zoo/errors.py", "def f():\n    import tensorflow as tf", "tensorflow in zoo, outside zoo.checkpoints"),
        ("zoo/layout.py", "from tensorflow import io", "tensorflow in zoo, outside zoo.checkpoints"),
        ("zoo/layout.py", "import sonnet", "sonnet in zoo, outside zoo.checkpoints"),
        ("zoo/errors.py", "from zoo import layout", "cycle: zoo.errors -> zoo.layout -> zoo.errors"),
        ("heldout/scores.py", "from heldout.report import page", "heldout.report.parts -> heldout.scores -> "),
        ("heldout/scores.py", "import heldout.scores", "cycle: heldout.scores -> heldout.scores"),
        (
            "heldout/report/page.py",
            "from heldout.data import files",
            "cycle of packages: heldout.data -> heldout.report -> heldout.data",
        ),
    ],
)
def test_the_checker_finds_a_planted_offence(tree, name, source, expected):
    (tree / name).write_text(source)
    assert any(expected in line for line in offences(tree)), offences(tree)


def test_the_checker_finds_a_package_that_is_not_installed(tree):
    (tree / "heldout" / "models").mkdir()
    (tree / "heldout" / "models" / "mlp.py").write_text("")
    assert folders(tree) - packaged(tree) == {"heldout.models"}
