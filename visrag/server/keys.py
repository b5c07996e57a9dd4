"""The keys of a server: a file of their hashes.

A key is 256 random bits, so that a plain SHA-256 of it is as hard to invert as the key is to guess: slow hashes are for
passwords, which can be guessed. The file is read again when it has changed: a key that was revoked is refused at once.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import NotFound, StoreError, UsageError
from ..store.database import mapped
from ..store.locks import locked
from .settings import ROLES, Role

PREFIX = "visrag"


@dataclass(frozen=True, slots=True)
class Key:
    """A key as it is kept. ``collections``: those that it sees, None for all. ``created``: seconds since 1970."""

    id: str
    name: str
    role: Role
    collections: tuple[str, ...] | None
    sha256: str
    created: float


class KeyFile:
    """The keys of a server. For any number of threads and processes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._stamp: tuple[int, int, int] | None = None
        self._keys: dict[str, Key] = {}

    def list(self) -> list[Key]:
        """All keys, the oldest first. Raises StoreError where the file cannot be read."""
        return sorted(self._read().values(), key=lambda key: key.created)

    def create(self, role: Role, collections: Sequence[str] | None = None, name: str = "") -> str:
        """A new key, shown only now. ``name``: whose it is; verdicts bear it. Raises UsageError, StoreError."""
        id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
        if role not in ROLES:
            raise UsageError(f"{role}: is no role; there are {', '.join(ROLES)}")
        seen = None if collections is None else tuple(collections)
        with mapped(self.path), locked(self._beside()):
            keys = self._read()
            if any(name in (key.name, key.id) for key in keys.values()):
                raise UsageError(f"there is a key of the name {name}: verdicts bear it, so choose another")
            keys[id] = Key(id, name or id, role, seen, _sha256(secret), time.time())
            self._write(keys)
        return f"{PREFIX}_{id}_{secret}"

    def revoke(self, id: str) -> None:
        """Raises NotFound, StoreError."""
        with mapped(self.path), locked(self._beside()):
            keys = self._read()
            if keys.pop(id, None) is None:
                raise NotFound(f"{self.path} holds no key {id}: visrag keys list shows them")
            self._write(keys)

    def find(self, presented: str) -> Key | None:
        """The key that was presented; None where it is not one of these. Compared in constant time."""
        prefix, _, rest = presented.partition("_")
        id, _, secret = rest.partition("_")
        key = self._read().get(id)
        same = hmac.compare_digest(_sha256(secret), key.sha256 if key is not None else _sha256(""))
        return key if key is not None and same and prefix == PREFIX else None

    def _beside(self) -> Path:
        return self.path.with_name(f"{self.path.name}.lock")

    def _read(self) -> dict[str, Key]:
        with self._lock:
            try:
                status = self.path.stat()
                stamp = status.st_mtime_ns, status.st_size, status.st_ino
                if stamp != self._stamp:
                    kept = json.loads(self.path.read_text(encoding="utf-8"))["keys"]
                    self._keys = {key["id"]: _key(**key) for key in kept}
                    self._stamp = stamp
            except FileNotFoundError:
                self._keys, self._stamp = {}, None
            except (OSError, ValueError, KeyError, TypeError) as error:
                why = f"is no readable file of keys ({error}): restore it, or remove it"
                raise StoreError(f"{self.path}: {why}") from error
            return dict(self._keys)

    def _write(self, keys: dict[str, Key]) -> None:
        part = self.path.with_name(f"{self.path.name}.{os.urandom(4).hex()}")
        data = json.dumps({"keys": [asdict(key) for key in keys.values()]}, indent=1, ensure_ascii=False)
        try:
            with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            part.replace(self.path)
        except OSError as error:
            part.unlink(missing_ok=True)
            why = f"cannot be written ({error.strerror}): name another file by --keys"
            raise StoreError(f"{self.path}: {why}") from error


def _key(collections: Sequence[str] | None, **kept: Any) -> Key:
    """Raises ValueError, TypeError for what is no key."""
    key = Key(collections=None if collections is None else tuple(collections), **kept)
    texts = (key.id, key.name, key.sha256, *(key.collections or ()))
    if not all(isinstance(text, str) for text in texts) or isinstance(collections, str) or key.role not in ROLES:
        raise ValueError(f"key {key.id!r}: is none that visrag made")
    return replace(key, created=float(key.created))


def _sha256(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()
