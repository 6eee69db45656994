"""What several test files of archives share."""

import pytest

from tests.zoo.archive import archives, tar_examples


@pytest.fixture(scope="module", params=archives.TAR_FORMATS)
def example(request):
    """An archive by Python's tarfile with everything in it, and its format."""
    return tar_examples.BY_FORMAT[request.param], request.param
