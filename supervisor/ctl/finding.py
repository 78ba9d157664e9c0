"""One thing that `doctor` looked at, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at; `action` is empty where there is nothing to do."""

    check: str
    status: str
    text: str
    action: str = ""

    def to_json(self) -> dict[str, str]:
        """As an entry of `findings`."""
        return {"check": self.check, "status": self.status, "text": self.text, "action": self.action}
