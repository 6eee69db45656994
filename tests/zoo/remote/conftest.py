"""A server with one object, and the bytes of that object."""

import pathlib

import numpy as np
import pytest

from tests.zoo.remote import fault_server

SIZE = 1_000_003


@pytest.fixture(scope="session")
def content() -> bytes:
    return np.random.default_rng(0).bytes(SIZE)


@pytest.fixture
def root(tmp_path: pathlib.Path, content: bytes) -> pathlib.Path:
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "zoo.tar.gz").write_bytes(content)
    return folder


@pytest.fixture
def server(root: pathlib.Path):
    with fault_server.FaultServer(root) as running:
        yield running
