"""The cache: pages of conversations under a user's name, in this process or in Redis.

A page says when it was loaded; whoever reads decides what its age means (`recall`). Both caches can drop
all of one user, whatever was cached. Neighbours: `codec` (the bytes), `redis_cache`, `single_flight`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Final, Protocol

from cachetools import LRUCache

from workers.memory import forking
from workers.memory.codec import Page

PREFIX: Final = "breakerd:memory:2:"
"""What every key begins with; the number is the version of what is in them."""


class Cache(Protocol):
    """What a manager wants of a cache. Everything may raise what its driver raises."""

    remote: bool
    """Whether it is another process, which may be away: then its calls are guarded."""

    def get(self, user_id: str, field: str) -> Page | None:
        """A page, None = a miss; a value that cannot be read is one."""

    def put(self, user_id: str, pages: Mapping[str, Page]) -> None:
        """Keep pages by field, unless the user was erased after they were loaded."""

    def drop_user(self, user_id: str) -> None:
        """Forget all of a user, and what is still on its way into the cache."""

    def close(self) -> None:
        """Let go of it."""


class LocalCache:
    """A cache in this process: the `entries_max` pages that were used last. A forked child begins empty."""

    remote = False

    def __init__(self, entries_max: int) -> None:
        self._entries_max = entries_max
        self._lock = forking.StillLock()
        self._pages: LRUCache[tuple[str, str], Page] = LRUCache(entries_max)
        forking.remember(self)

    def get(self, user_id: str, field: str) -> Page | None:
        """A page, None = a miss."""
        with self._lock:
            page: Page | None = self._pages.get((user_id, field))
            return page

    def put(self, user_id: str, pages: Mapping[str, Page]) -> None:
        """Keep pages by field; the epoch in them says later whether the user was erased meanwhile."""
        with self._lock:
            for field, page in pages.items():
                self._pages[user_id, field] = page

    def drop_user(self, user_id: str) -> None:
        """Forget all of a user."""
        with self._lock:
            for key in [one for one in self._pages if one[0] == user_id]:
                del self._pages[key]

    def close(self) -> None:
        """Forget everything."""
        with self._lock:
            self._pages.clear()

    def before_fork(self) -> None:
        """Nothing here lasts."""

    def after_fork_in_parent(self) -> None:
        """Go on."""

    def after_fork_in_child(self) -> None:
        """Begin anew: another thread may have been in the middle of it."""
        self._pages = LRUCache(self._entries_max)
        self._lock.after_fork_in_child()


def key_of(namespace: str, user_id: str) -> str:
    """The name under which all of a user of one database is kept: it does not tell who that is."""
    digest = hashlib.blake2b(user_id.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    return f"{PREFIX}{namespace}:{{{digest}}}"  # the braces keep a user's keys together in a cluster
