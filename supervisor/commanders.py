"""Who may command: root, the supervisor's own user, and whom `[control] commanders` names by user or group.

Asks the databases of users and groups, which may be slow where they are on the network. Knows no command.
"""

from __future__ import annotations

import grp
import os
import pwd

from supervisor.connections import Peer


def may_command(peer: Peer, user: str, commanders: tuple[str, ...]) -> bool:
    """Root, the supervisor's own user, and whom the configuration names by user or group."""
    if peer.uid in (0, os.getuid()) or f"user:{user}" in commanders:
        return True
    groups = [name.partition(":")[2] for name in commanders if name.startswith("group:")]
    if not groups:
        return False
    member_of = set(os.getgrouplist(user, peer.gid)) if _exists(user) else {peer.gid}
    return any(_gid(group) in member_of for group in groups)


def _exists(user: str) -> bool:
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True


def _gid(group: str) -> int:
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        return -1
