"""A Google Cloud Storage emulator on loopback, in this process. It holds its objects in memory."""

from collections.abc import Iterator, Mapping
import contextlib
import json
import os
import urllib.parse
import urllib.request

from gcp_storage_emulator import server

BUCKET = "zoos"


def upload(endpoint: str, name: str, content: bytes) -> None:
    """Creates or replaces an object in `BUCKET`."""
    query = urllib.parse.urlencode({"uploadType": "media", "name": name})
    request = urllib.request.Request(
        f"{endpoint}/upload/storage/v1/b/{BUCKET}/o?{query}",
        data=content,
        headers={"Content-Type": "application/octet-stream"},
    )
    with urllib.request.urlopen(request) as response:
        json.load(response)


@contextlib.contextmanager
def serving(objects: Mapping[str, bytes]) -> Iterator[tuple[str, str]]:
    """Runs the emulator, with STORAGE_EMULATOR_HOST set for this process and those it starts.

    Args:
        objects: their bytes by name.

    Yields:
        (endpoint, address of the bucket): "http://127.0.0.1:PORT" and "gs://zoos"; an object is at "gs://zoos/NAME".
    """
    emulator = server.create_server("127.0.0.1", 0, in_memory=True, default_bucket=BUCKET)
    emulator.start()
    # A request that its asker no longer waits for is no news.
    emulator._api._httpd.handle_error = lambda request, address: None
    endpoint = f"http://127.0.0.1:{emulator._api._httpd.server_port}"
    before = os.environ.get("STORAGE_EMULATOR_HOST")
    os.environ["STORAGE_EMULATOR_HOST"] = endpoint
    try:
        for name, content in objects.items():
            upload(endpoint, name, content)
        yield endpoint, f"gs://{BUCKET}"
    finally:
        if before is None:
            del os.environ["STORAGE_EMULATOR_HOST"]
        else:
            os.environ["STORAGE_EMULATOR_HOST"] = before
        emulator.stop()
