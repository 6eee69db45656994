"""What our parser and Python's tarfile find in an archive, in a form that can be compared."""

import io
import itertools
import tarfile

from zoo.archive import tar_stream


def pieces(data, size):
    view = memoryview(data)
    return [view[start : start + size] for start in range(0, len(view), size)]


def parse(chunks, parser=None):
    """All members with their contents, in the order of their ends."""
    parser = parser or tar_stream.TarParser()
    found, content = [], None
    for event in itertools.chain.from_iterable(parser.feed(chunk) for chunk in chunks):
        if isinstance(event, tar_stream.Start):
            content = bytearray()
        elif isinstance(event, tar_stream.Data):
            content += event.data
        else:
            assert len(content) == event.member.size
            found.append((event.member, bytes(content)))
    return found


def parse_whole(data, size=10_000):
    parser = tar_stream.TarParser()
    found = parse(pieces(data, size), parser)
    parser.finish()
    assert parser.finished
    assert parser.position == len(data)
    assert parser.num_members == len(found)
    return found


def kind_by_tarfile(info):
    if info.issparse() or not (info.isreg() or info.isdir() or info.issym() or info.islnk()):
        return "special"
    return "file" if info.isreg() else "directory" if info.isdir() else "link"


def expected_of(data):
    """What Python's tarfile finds; names without the slash at the end of folders, which it takes away."""
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        found = []
        for info in archive:
            content = data[info.offset_data : info.offset_data + info.size] if info.isreg() else b""
            kind = kind_by_tarfile(info)
            link = info.linkname if kind == "link" else ""
            found.append((info.name, kind, info.offset, info.offset_data, link, None if info.issparse() else content))
        return found


def comparable(found):
    result = []
    for member, content in found:
        content = content if member.kind == "file" else None if b"\0" * 3 in content and member.size else b""
        link = member.link_name
        result.append(
            (member.name.rstrip("/"), member.kind, member.header_position, member.data_position, link, content)
        )
    return result
