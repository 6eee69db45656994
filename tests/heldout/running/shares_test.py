"""Parts of a list of runs, and what schedulers say about them."""

import json

import pytest

from heldout.running import shares
from zoo import errors


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_parts_are_nearly_equal_and_make_up_the_whole(count):
    items = list(range(5))
    parts = [shares.Share(index, count).of(items) for index in range(count)]
    assert sorted(item for part in parts for item in part) == items
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_parts_take_turns():
    # What has been trained by the time that one machine stops is spread over all ratios and ids.
    assert [shares.Share(index, 3).of("abcdefg") for index in range(3)] == [["a", "d", "g"], ["b", "e"], ["c", "f"]]


def test_a_share_is_named_from_one():
    assert shares.parse("1/4") == shares.Share(0, 4)
    assert shares.parse(" 4/4 ") == shares.Share(3, 4)


@pytest.mark.parametrize("text", ["", "1", "0/4", "5/4", "1/0", "-1/4", "1/4/2", "a/b", "1.0/4"])
def test_other_texts_are_refused(text):
    with pytest.raises(errors.InvalidValueError, match="--share="):
        shares.parse(text)


def environment(task, **cluster):
    return {"TF_CONFIG": json.dumps({"cluster": cluster, "task": task})}


def test_tasks_of_a_cluster_are_numbered_chief_first():
    cluster = {"chief": ["a:1"], "worker": ["b:1", "c:1"], "ps": ["d:1"]}
    tasks = [{"type": "chief", "index": 0}, {"type": "worker", "index": 0}, {"type": "worker", "index": 1}]
    found = [shares.from_environment(environment(task, **cluster)) for task in tasks]
    assert found == [shares.Share(0, 3), shares.Share(1, 3), shares.Share(2, 3)]
    alone = shares.from_environment(environment({"type": "worker", "index": 1}, worker=["b:1", "c:1"]))
    assert alone == shares.Share(1, 2)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, "TF_CONFIG is not set; .* or use --share"),
        ({"TF_CONFIG": ""}, "TF_CONFIG is not set"),
        ({"TF_CONFIG": "{"}, "cannot be read"),
        ({"TF_CONFIG": "[]"}, "cannot be read"),
        ({"TF_CONFIG": '{"cluster": [], "task": {"type": "worker", "index": 0}}'}, "cannot be read"),
        (environment({"type": "ps", "index": 0}, ps=["a:1"]), "task 'ps' trains nothing"),
        (environment({"type": "worker", "index": 1}, worker=["a:1"]), "no task worker 1"),
        (environment({"type": "worker", "index": -1}, worker=["a:1", "b:1"]), "no task worker -1"),
        (environment({"type": "worker", "index": "0"}, worker=["a:1"]), "no task worker '0'"),
        (environment({"type": "worker", "index": True}, worker=["a:1", "b:1"]), "no task worker True"),
    ],
)
def test_what_cannot_be_understood_is_named(variables, expected):
    with pytest.raises(errors.InvalidValueError, match=expected):
        shares.from_environment(variables)
