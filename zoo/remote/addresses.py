"""Addresses of objects: local paths, file://, http(s)://, gs:// and whatever else fsspec knows."""

import os
import re
import urllib.parse

from zoo import errors

_PROTOCOL = re.compile(r"(?P<protocol>[A-Za-z][A-Za-z0-9+.-]*)(://|::)")
_WEB = ("http", "https")


def protocol(url: str) -> str:
    """What stands before the `://` in lower case; "file" for a path."""
    match = _PROTOCOL.match(url)
    return match["protocol"].lower() if match else "file"


def is_web(url: str) -> bool:
    """Whether the address is reached by HTTP."""
    return protocol(url) in _WEB


def local_path(url: str) -> str | None:
    """The path of a local address, or None where it lies elsewhere."""
    if protocol(url) != "file":
        return None
    if not _PROTOCOL.match(url):
        return os.path.expanduser(url)
    return urllib.parse.unquote(urllib.parse.urlsplit(url).path)


def display(url: str) -> str:
    """The address as messages show it: without passwords and without a query, which may be a signature."""
    if local_path(url) is not None:
        return url
    # By pattern, because what is wrong with an address should not keep it out of the message.
    return re.sub("^([^/]+//)[^/]*@", r"\1", re.split("[?#]", url)[0] if is_web(url) else url)


def name(url: str) -> str:
    """The last component of the path; percent signs of web addresses are resolved."""
    path = urllib.parse.unquote(re.split("[?#]", url)[0]) if is_web(url) else local_path(url) or url
    return path.rstrip("/").rpartition("/")[2]


def with_suffix(url: str, suffix: str) -> str:
    """The address of an object beside another one, whose name has a suffix more; a query stays where it is."""
    if not is_web(url):
        return url + suffix
    parts = urllib.parse.urlsplit(url)
    return urllib.parse.urlunsplit(parts._replace(path=parts.path + suffix))


def join(base_url: str, relative: str) -> str:
    """The address of something that is named relative to an object, as a manifest names its siblings.

    Args:
        base_url: address of an object, or the path of a file.
        relative: a name or path relative to the folder in which that lies; a whole address is returned unchanged.

    Raises:
        InvalidValueError: an object on a server names a local file.
    """
    is_local = protocol(base_url) == "file"
    if _PROTOCOL.match(relative) or (is_local and os.path.isabs(relative)):
        if protocol(relative) == "file" and not is_local:
            raise errors.InvalidValueError(
                f"{display(base_url)}: names the local file {relative}, expected a name relative to itself or an "
                f"address on a server"
            )
        return relative
    if is_web(base_url):
        return urllib.parse.urljoin(base_url, urllib.parse.quote(relative, safe="/%"))
    if is_local and not _PROTOCOL.match(base_url):
        return os.path.normpath(os.path.join(os.path.dirname(base_url), relative))
    head, _, path = base_url.partition("://")
    root, _, rest = path.partition("/")
    joined = os.path.normpath(os.path.join("/", os.path.dirname(rest), relative))
    return f"{head}://{root}{joined}"
