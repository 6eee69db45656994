"""A zoo of four simulated runs at two ratios, for the tests of this folder."""

import pytest

from tests.zoo import runs


@pytest.fixture
def zoo(tmp_path):
    for ratio, run_id in reversed(runs.RUNS):
        runs.add_run(tmp_path, ratio, run_id)
    return tmp_path
