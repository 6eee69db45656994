"""The code's identity changes with every source of ours and with nothing else."""

import pytest

import heldout
from heldout.running import code_version
from zoo import errors


def tree(root, content="x = 1\n", name="a.py"):
    for package in ("heldout", "zoo"):
        (root / package / "sub").mkdir(parents=True)
    (root / "heldout" / "sub" / name).write_text(content)
    (root / "zoo" / "b.py").write_text("")
    return root


def test_content_and_names_count(tmp_path):
    first = code_version.digest(tree(tmp_path / "one"))
    assert code_version.digest(tree(tmp_path / "two")) == first
    assert code_version.digest(tree(tmp_path / "three", content="x = 2\n")) != first
    assert code_version.digest(tree(tmp_path / "four", name="c.py")) != first
    (tmp_path / "one" / "heldout" / "notes.txt").write_text("no source")
    assert code_version.digest(tmp_path / "one") == first


def test_the_own_identity_passes():
    code_version.check(None)
    code_version.check(code_version.identity())
    assert code_version.identity()["version"] == heldout.__version__


@pytest.mark.parametrize("change", [{"version": "9.9"}, {"digest": "00"}])
def test_another_identity_is_refused(change):
    with pytest.raises(errors.MismatchError, match=r"the worker on .* runs Heldout .*install the same Heldout"):
        code_version.check(code_version.identity() | change)
