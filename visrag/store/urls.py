"""URLs of files elsewhere: the file system behind each, its retries, and its errors in our words.

Endpoints and credentials are no settings of visrag: they are taken from where such a file system looks for them. For
s3:// these are AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_PROFILE, AWS_DEFAULT_REGION and ~/.aws,
and for a server that isn't Amazon's AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL. Every file system takes its options
as FSSPEC_<protocol>_<option>, too: FSSPEC_S3_ENDPOINT_URL, FSSPEC_S3_KEY, FSSPEC_S3_SECRET, and FSSPEC_S3_ANON=true for
what is public.
"""

from __future__ import annotations

import errno
import os
import random
import re
import time
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from ..errors import MissingExtra, UsageError, VisragError

ATTEMPTS = 3  # at what a file system's own retries did not get through
PATIENCE = 10.0  # seconds after which there is no further attempt

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_PERMANENT = (FileNotFoundError, PermissionError, NotImplementedError, TypeError, ValueError)

T = TypeVar("T")


class Refused(Exception):
    """What a file system elsewhere was asked for and did not do: why, and the cure. Not to leave visrag/store/.

    ``missing``: there is no such file.
    """

    def __init__(self, why: str, missing: bool = False) -> None:
        super().__init__(why)
        self.missing = missing


def is_url(text: str) -> bool:
    """Whether a text is a URL of a file elsewhere. ``file://`` is a path: see ``local_path``."""
    scheme = _SCHEME.match(text)
    return scheme is not None and scheme[1].lower() != "file"


def local_path(text: str) -> Path:
    """The path that a text which is no URL, or one of ``file://``, stands for. Raises UsageError for another host's."""
    if text[:7].lower() != "file://":
        return Path(text)
    host, slash, path = text[7:].partition("/")
    if host not in ("", "localhost") or not slash:
        raise UsageError(f"{text}: is no path of this machine: write file:///path, or only the path")
    return Path(unquote(slash + path, errors="surrogateescape"))


def protocol_of(url: str) -> str:
    return url.partition("://")[0].lower()


def trimmed(url: str) -> str:
    """A URL without slashes at its end."""
    return re.sub(r"(?<![:/])/+$", "", url)


def last_name(url: str) -> str:
    """The name of the file that a URL leads to."""
    if protocol_of(url) in ("http", "https"):
        parts = urlsplit(url)
        return unquote(PurePosixPath(parts.path).name) or parts.netloc
    return PurePosixPath(url).name


def suffix_of(url: str) -> str:
    """The suffix of the file that a URL leads to, where it is a plain one."""
    found = re.search(r"\.[A-Za-z0-9]{1,16}$", last_name(url))
    return found[0] if found else ""


def asked(url: str, ask: Callable[[Any, str], T], here: Path | None = None) -> T:
    """What ``ask(files, path)`` gives for the file system that a URL belongs to and the path in it; asked again where
    it fails of what may pass.

    ``here``: a file of this machine that is read or written for it. Raises Refused, OSError of that file, UsageError
    for a protocol that is not known, MissingExtra.
    """
    begun = time.monotonic()
    attempt = 0
    while True:
        attempt += 1
        try:
            return ask(*_at(url))
        except (VisragError, Refused):
            raise
        except Exception as raised:  # every file system's library has errors of its own
            if here and isinstance(raised, OSError) and (raised.errno in _FULL or raised.filename == str(here)):
                raise
            error = _root(raised)
            if not _may_pass(error) or attempt == ATTEMPTS or time.monotonic() - begun > PATIENCE:
                raise _refused(error) from raised
        time.sleep(0.25 * 2**attempt * random.uniform(0.5, 1.0))


def stamp_of(files: Any, path: str) -> str:
    """What changes with a file's content: size, tag, time. Nothing over http://, where one answer holds the file."""
    if "http" in files.protocol:
        return ""
    files.invalidate_cache()
    found = files.info(path)
    if found["type"] == "directory":
        raise Refused("is a folder: give the URL of a file")
    return repr([found.get(key) for key in ("size", "ETag", "etag", "mtime", "created", "last_modified", "modify")])


def download(files: Any, path: str, to: Path, stamp: str) -> None:
    """Copy a file here. Raises OSError where it is not the one that has this stamp."""
    files.get_file(path, str(to))
    if stamp_of(files, path) != stamp:
        raise OSError("it was changed while it was read")


def _at(url: str) -> tuple[Any, str]:
    protocol = protocol_of(url)
    try:
        import fsspec  # type: ignore[import-untyped]

        kind = fsspec.get_filesystem_class(protocol)
    except ValueError:
        raise UsageError(f"{url}: {protocol}:// is not known: give a path, or a URL such as s3://bucket/file") from None
    except ImportError as error:
        if protocol in ("s3", "s3a"):
            raise MissingExtra(f"{protocol}://", "s3") from error
        raise UsageError(f"{url}: {protocol}:// needs a package that is not installed: {error}") from error
    files = fsspec.filesystem(protocol, **{**_options(protocol), **kind._get_kwargs_from_urls(url)})
    return files, str(kind._strip_protocol(url))


def _options(protocol: str) -> dict[str, Any]:
    """Where we want something else than the file system's library does, unless the user has set it."""
    from fsspec.config import conf  # type: ignore[import-untyped]

    if protocol in ("s3", "s3a") and "AWS_RETRY_MODE" not in os.environ:  # a server is down after 2 s, not 15
        given = {**conf.get("s3", {}), **conf.get("s3a", {})}.get("config_kwargs", {})
        return {"config_kwargs": {"retries": {"mode": "standard"}, **given}}
    if protocol in ("http", "https"):  # a download may take long, a silence may not
        from aiohttp import ClientTimeout

        given = {**conf.get("http", {}), **conf.get("https", {})}.get("client_kwargs", {})
        return {"client_kwargs": {"timeout": ClientTimeout(total=None, sock_connect=10, sock_read=60), **given}}
    return {}


def _root(error: Exception) -> BaseException:
    """What went wrong, where http:// says FileNotFoundError whatever it was."""
    cause = error.__cause__
    if isinstance(error, FileNotFoundError) and cause and type(cause).__module__.startswith("aiohttp"):
        return cause
    return error


def _may_pass(error: BaseException) -> bool:
    status = getattr(error, "status", None)
    if isinstance(status, int) and 400 <= status < 500:
        return status in (408, 425, 429)
    return not isinstance(error, _PERMANENT) and not re.search("Credential|Validation", type(error).__name__)


def _refused(error: BaseException) -> Refused:
    kind, status = type(error).__name__, getattr(error, "status", None)
    told = " ".join(f"{kind}: {error}".split())
    if "NoSuchBucket" in type(error.__cause__).__name__:
        return Refused("its bucket is not there: check its name, or make it")
    if isinstance(error, FileNotFoundError) or status in (404, 410):
        return Refused("is not there: check the URL", missing=True)
    if isinstance(error, PermissionError) or status in (401, 403):
        return Refused(f"is refused to the credentials in use ({told}): check them and their rights")
    if "Credential" in kind:
        cure = "for s3:// set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or FSSPEC_S3_ANON=true for what is public"
        return Refused(f"needs credentials ({told}): {cure}")
    return Refused(f"cannot be reached ({told}): check the URL, its endpoint and the network")
