"""API keys: who may use a service.

The operator mounts a Secret as a directory; every file in it is one key. The proxy asks :meth:`Keys.admits`
for each request, the process calls :meth:`Keys.reread` every two seconds, so a rotated key needs no restart.
It must not log a key, nor take a time that depends on how much of a key was right.
"""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path

import structlog

log = structlog.get_logger(__name__)


class KeysUnreadable(Exception):
    """The directory of keys cannot be read at start. The message names it."""


class Keys:
    """The keys that are valid now. Without a directory the service is open; with an empty one it is shut."""

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        self._digests: tuple[bytes, ...] = ()
        if directory is not None:
            try:
                self._digests = _read(directory)
            except OSError as error:
                raise KeysUnreadable(
                    f"--api-keys-dir {directory}: {error.strerror}; mount the Secret of "
                    "spec.endpoint.apiKeySecretRef there, or leave the option out for an open service"
                ) from error
            log.info("keys_read", keys=len(self._digests))

    def admits(self, authorization: str | None) -> bool:
        """Whether `authorization`, the header's value, carries a valid key."""
        if self._directory is None:
            return True
        scheme, _, key = (authorization or "").partition(" ")
        if scheme.lower() != "bearer":
            return False
        digest = _digest(key.strip().encode("utf-8", "surrogateescape"))
        found = False
        for valid in self._digests:
            found |= hmac.compare_digest(valid, digest)
        return found

    def reread(self) -> None:
        """Take the files as they are now. A directory that cannot be read leaves the keys as they were."""
        if self._directory is None:
            return
        try:
            digests = _read(self._directory)
        except OSError as error:
            log.warning("keys_unreadable", error=str(error))
            return
        if digests != self._digests:
            log.info("keys_changed", keys=len(digests))
            self._digests = digests


def _read(directory: Path) -> tuple[bytes, ...]:
    # A mounted Secret keeps its versions in `..data` and `..<time>`: those names are not keys.
    files = sorted(path for path in directory.iterdir() if not path.name.startswith(".") and path.is_file())
    contents = (path.read_bytes().strip() for path in files)
    return tuple(_digest(content) for content in contents if content)


def _digest(key: bytes) -> bytes:
    # Digests have one length, so comparing them tells nothing about a key's length either.
    return hashlib.sha256(key).digest()
