"""A web server on loopback that serves the files of a folder, and fails in the ways that real servers do.

    with fault_server.FaultServer(folder) as server:
        server.faults = fault_server.Faults(cut_after=100_000)
        source.open_source(server.url("zoo.tar.gz"))

By hand: python -m tests.zoo.remote.fault_server FOLDER --port=8000
"""

import argparse
import base64
from collections.abc import Callable
import dataclasses
import email.utils
import hashlib
import http.server
import os
import pathlib
import re
import socket
import ssl
import struct
import threading
import time
from types import TracebackType
from typing import Any
import urllib.parse

import google_crc32c

_BLOCK_BYTES = 1 << 18
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


@dataclasses.dataclass
class Faults:
    """What goes wrong. May be replaced or changed at any time; a value of None or False is a fault that is off.

    Attributes:
        only: the faults strike only where this is true of (method, path, Range header or "").
        every: they strike only each `every`-th of these requests, beginning with the first.
        times: they strike that many times altogether.
        cut_after: the connection is reset after so many bytes of the body.
        close_after: it is closed in order after so many bytes.
        status: answered instead of the object, as in 503, 429, 404, 403.
        retry_after: value of the Retry-After header beside `status`.
        stall_after: no more is sent after so many bytes of the body; the connection stays open.
        ignore_range: the whole object is sent with 200, whatever was asked for, and nothing is said of ranges.
        no_head: HEAD is answered by 501.
        flip_at: offset of a byte in the object, one bit of which is sent wrong.
        wrong_content_range: the range is said to begin a byte later.
        other_total: size of the object as Content-Range has it.
        short_range: an answer to a range holds only so many bytes, and says so.
        content_encoding: said of the object; the bytes stay what they are.
        no_etag: neither ETag nor Last-Modified are sent.
        no_length: the length is not told and the connection closed at the end.
        weak_etag: the ETag is a weak one.
        ignore_conditions: If-Match and its relatives are ignored.
        delay_s: seconds before the answer.
        bytes_per_s: bandwidth of each connection.
        redirect_to: address to which all is redirected.
    """

    only: Callable[[str, str, str], bool] | None = None
    every: int = 1
    times: int | None = None
    cut_after: int | None = None
    close_after: int | None = None
    status: int | None = None
    retry_after: str | None = None
    stall_after: int | None = None
    ignore_range: bool = False
    no_head: bool = False
    flip_at: int | None = None
    wrong_content_range: bool = False
    other_total: int | None = None
    short_range: int | None = None
    content_encoding: str | None = None
    no_etag: bool = False
    no_length: bool = False
    weak_etag: bool = False
    ignore_conditions: bool = False
    delay_s: float | None = None
    bytes_per_s: float | None = None
    redirect_to: str | None = None
    num_seen: int = 0
    num_struck: int = 0
    lock: Any = dataclasses.field(default_factory=threading.Lock, repr=False, compare=False)

    def for_request(self, method: str, path: str, wanted: str) -> "Faults":
        """The faults that strike one request."""
        with self.lock:
            if self.only is not None and not self.only(method, path, wanted):
                return _NONE
            self.num_seen += 1
            if (self.num_seen - 1) % self.every or (self.times is not None and self.num_struck >= self.times):
                return _NONE
            self.num_struck += 1
            return self


_NONE = Faults()


class FaultServer:
    """Context manager; serves the files of `root` until it is left.

    The ETag of a file comes from its size and time of modification, so a file that is replaced is another object.

    Attributes:
        faults: what goes wrong.
        hashes: whether x-goog-hash and x-goog-generation are sent, as buckets do.
        change_after: (number of requests, action): the action is called before that many further requests are
            answered, to replace a file for example.
        requests: (method, path, Range header or "") of each request, in the order of arrival.
        bytes_sent: of all bodies; counted just before they are sent, so that a reader finds them counted.
    """

    def __init__(self, root: pathlib.Path, port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self.root = pathlib.Path(root)
        self.faults = Faults()
        self.hashes = False
        self.change_after: tuple[int, Callable[[], object]] | None = None
        self.requests: list[tuple[str, str, str]] = []
        self.bytes_sent = 0
        self.lock = threading.Lock()
        self.closing = threading.Event()
        self._known_hashes: dict[tuple[str, int, int], str] = {}
        self._server = _Server(("127.0.0.1", port), _Handler, self)
        self._scheme = "http"
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
            self._scheme = "https"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    def __enter__(self) -> "FaultServer":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def port(self) -> int:
        return self._server.server_address[1]

    def url(self, name: str) -> str:
        """The address of a file below `root`."""
        return f"{self._scheme}://127.0.0.1:{self.port}/{urllib.parse.quote(name)}"

    def received(self, method: str, path: str, wanted: str) -> Faults:
        """Takes note of a request, and tells which faults strike it."""
        with self.lock:
            self.requests.append((method, path, wanted))
            action = None
            if self.change_after is not None:
                num_left, change = self.change_after
                self.change_after = (num_left - 1, change) if num_left > 0 else None
                action = change if num_left <= 0 else None
        if action is not None:
            action()
        return self.faults.for_request(method, path, wanted)

    def sent(self, num_bytes: int) -> None:
        with self.lock:
            self.bytes_sent += num_bytes

    def hash_header(self, path: pathlib.Path) -> str:
        """CRC32C and MD5 of a file in the form of x-goog-hash."""
        facts = path.stat()
        key = (str(path), facts.st_size, facts.st_mtime_ns)
        if key not in self._known_hashes:
            content = path.read_bytes()
            crc = base64.b64encode(google_crc32c.value(content).to_bytes(4, "big")).decode()
            md5 = base64.b64encode(hashlib.md5(content).digest()).decode()
            self._known_hashes[key] = f"crc32c={crc},md5={md5}"
        return self._known_hashes[key]


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], handler: type, owner: FaultServer) -> None:
        self.owner = owner
        super().__init__(address, handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A reader that goes away in the middle is no news."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server
    faults: Faults

    def log_message(self, format: str, *args: Any) -> None:
        """Silence; `FaultServer.requests` has it all."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        wanted = self.headers.get("Range", "")
        self.faults = self.server.owner.received(self.command, self.path, wanted)
        if self.faults.delay_s:
            self.server.owner.closing.wait(self.faults.delay_s)
        if self.faults.status or (self.faults.no_head and self.command == "HEAD"):
            self._refuse(self.faults.status or 501, {"Retry-After": self.faults.retry_after})
            return
        if self.faults.redirect_to:
            self._refuse(302, {"Location": self.faults.redirect_to})
            return
        name = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path).lstrip("/")
        path = self.server.owner.root / name
        if ".." in name.split("/") or not path.is_file():
            self._refuse(404, {})
            return
        with open(path, "rb") as stream:
            self._send_object(path, stream, wanted)

    def _refuse(self, status: int, headers: dict[str, str | None]) -> None:
        body = b"" if self.command == "HEAD" else b"no\n"
        self.send_response(status)
        for name, value in headers.items():
            if value is not None:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _version_headers(self, path: pathlib.Path, facts: os.stat_result) -> dict[str, str]:
        headers = {}
        if not self.faults.no_etag:
            etag = f'"{facts.st_size:x}-{facts.st_mtime_ns:x}-{facts.st_ino:x}"'
            headers["ETag"] = f"W/{etag}" if self.faults.weak_etag else etag
            headers["Last-Modified"] = email.utils.formatdate(facts.st_mtime, usegmt=True)
        if self.server.owner.hashes:
            headers["x-goog-hash"] = self.server.owner.hash_header(path)
            headers["x-goog-generation"] = str(facts.st_mtime_ns)
        return headers

    def _send_object(self, path: pathlib.Path, stream: Any, wanted: str) -> None:
        # Of the open file: its name may lead to another one by now.
        facts = os.fstat(stream.fileno())
        size = facts.st_size
        headers = self._version_headers(path, facts)
        if not self.faults.ignore_conditions and not self._conditions_hold(headers):
            self._refuse(412, headers)
            return
        match = _RANGE.fullmatch(wanted)
        start, stop, status = 0, size, 200
        if not self.faults.ignore_range:
            headers["Accept-Ranges"] = "bytes"
            if match and self.command == "GET":
                start, stop, status = int(match[1]), min(size, int(match[2] or size) + 1), 206
                if start >= size:
                    self._refuse(416, {"Content-Range": f"bytes */{size}"})
                    return
        if status == 206:
            stop = min(stop, start + (self.faults.short_range or size))
            first = start + 1 if self.faults.wrong_content_range else start
            headers["Content-Range"] = f"bytes {first}-{stop - 1}/{self.faults.other_total or size}"
        self._send(headers, status, stream, start, stop)

    def _conditions_hold(self, headers: dict[str, str]) -> bool:
        pairs = [("If-Match", "ETag"), ("x-goog-if-generation-match", "x-goog-generation")]
        asked = [(self.headers.get(condition), headers.get(header)) for condition, header in pairs]
        since = self.headers.get("If-Unmodified-Since")
        return all(a is None or a == b for a, b in asked) and since in (None, headers.get("Last-Modified"))

    def _send(self, headers: dict[str, str], status: int, stream: Any, start: int, stop: int) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if self.faults.content_encoding:
            self.send_header("Content-Encoding", self.faults.content_encoding)
        if self.faults.no_length:
            self.send_header("Connection", "close")
            self.close_connection = True
        else:
            self.send_header("Content-Length", str(stop - start))
        self.end_headers()
        if self.command == "HEAD":
            return
        limits = [self.faults.cut_after, self.faults.close_after, self.faults.stall_after]
        reached = min([stop - start, *[limit for limit in limits if limit is not None]])
        self._send_bytes(stream, start, start + reached)
        if reached < stop - start:
            self._break_off()

    def _send_bytes(self, stream: Any, start: int, stop: int) -> None:
        self.wfile.flush()
        is_plain = self.faults.bytes_per_s is None and self.faults.flip_at is None
        while start < stop:
            if is_plain:
                # The kernel copies; the server is to cost little beside what it measures.
                num_bytes = min(stop - start, 1 << 20)
                self.server.owner.sent(num_bytes)
                start += self.connection.sendfile(stream, start, num_bytes)
                continue
            block_bytes = min(_BLOCK_BYTES, int((self.faults.bytes_per_s or 1e9) / 20) + 1)
            stream.seek(start)
            block = bytearray(stream.read(min(block_bytes, stop - start)))
            flip = self.faults.flip_at
            if flip is not None and start <= flip < start + len(block):
                block[flip - start] ^= 1
            self.server.owner.sent(len(block))
            self.wfile.write(block)
            start += len(block)
            if self.faults.bytes_per_s:
                time.sleep(len(block) / self.faults.bytes_per_s)

    def _break_off(self) -> None:
        self.close_connection = True
        if self.faults.stall_after is not None:
            self.server.owner.closing.wait()
        if self.faults.cut_after is not None:
            # Closing with this option set resets the connection.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()


def main() -> None:
    """Serves a folder until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=pathlib.Path)
    parser.add_argument("--port", type=int, default=0)
    arguments = parser.parse_args()
    with FaultServer(arguments.root, arguments.port) as server:
        print(f"http://127.0.0.1:{server.port}/", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
