"""One file from the web: whole and verified, or not there at all."""

from __future__ import annotations

import hashlib
import http.client
import logging
import socket
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import BinaryIO

from tqdm import tqdm

from lungan import __version__
from lungan.files import atomic_write

WAITS_SECONDS = (1.0, 3.0, 9.0)
"""Before the second and each later attempt."""

TIMEOUT_SECONDS = 30.0
"""For the connection and for each read, not for the whole file."""

CHUNK_BYTES = 2**18

log = logging.getLogger(__name__)


class DownloadError(Exception):
    """The file cannot be had; the message is the reason alone."""


class _PassingError(Exception):
    """What another attempt may cure."""


def download(url: str, path: Path, md5: str, *, progress: bool = True) -> None:
    """Write the file at ``url`` to ``path``, which takes its name once its MD5 is right.

    Raises: DownloadError after the last attempt, OSError where ``path`` cannot be written.
    """
    for wait_seconds in (*WAITS_SECONDS, None):
        try:
            with atomic_write(path) as file:
                _fetch(url, file, path.name, md5, progress)
            return
        except _PassingError as error:
            if wait_seconds is None:
                attempts = len(WAITS_SECONDS) + 1
                raise DownloadError(f"{error}, {attempts} attempts") from error
            log.warning("download of %s: %s; again in %g s", path.name, error, wait_seconds)
            time.sleep(wait_seconds)


def _fetch(url: str, file: BinaryIO, name: str, md5: str, progress: bool) -> None:
    request = urllib.request.Request(url, headers={"User-Agent": f"lungan/{__version__}"})
    digest = hashlib.md5(usedforsecurity=False)
    with _open(request) as response:
        length = response.headers.get("Content-Length")
        total = int(length) if length and length.isdigit() else None
        received = 0
        # disable=None: no bar where stderr is no terminal.
        with tqdm(
            total=total,
            desc=f"Downloading {name}",
            unit="B",
            unit_scale=True,
            unit_divisor=1024,
            disable=None if progress else True,
        ) as bar:
            while chunk := _read(response):
                file.write(chunk)
                digest.update(chunk)
                received += len(chunk)
                bar.update(len(chunk))
    if total is not None and received != total:
        raise _PassingError(f"it ended after {received} of {total} bytes")
    if digest.hexdigest() != md5:
        raise _PassingError(f"its MD5 is {digest.hexdigest()}, not {md5}")


def _open(request: urllib.request.Request) -> http.client.HTTPResponse:
    try:
        response: http.client.HTTPResponse = urllib.request.urlopen(
            request, timeout=TIMEOUT_SECONDS
        )
    except urllib.error.HTTPError as error:
        reason = f"the server answers {error.code} {error.reason}"
        if error.code >= 500 or error.code in (408, 429):
            raise _PassingError(reason) from error
        raise DownloadError(reason) from error
    except urllib.error.URLError as error:
        # No name resolution is what a machine without a network says: waiting won't help.
        if isinstance(error.reason, socket.gaierror):
            raise DownloadError(f"no network: {error.reason.strerror}") from error
        raise _PassingError(f"no connection: {error.reason}") from error
    except (OSError, http.client.HTTPException) as error:
        raise _PassingError(f"no connection: {error or type(error).__name__}") from error
    return response


def _read(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read(CHUNK_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise _PassingError(f"it broke off: {error or type(error).__name__}") from error
