"""What the library says: rarely, under the logger `ipc`, and only in trouble.

`logging` is imported when there is something to say: it would be a fifth of what `import ipc` costs.
Knows nothing of what is said.
"""

from __future__ import annotations

from typing import Any


def logger() -> Any:
    """The logger `ipc`. Where the application configures no logging, warnings go to standard error."""
    import logging  # noqa: PLC0415 (see above)

    return logging.getLogger("ipc")


def inform(text: str, *args: object) -> None:
    """Something is as it is, such as a system without supervisors."""
    logger().info(text, *args)


def warn(text: str, *args: object) -> None:
    """Somebody should look at this."""
    logger().warning(text, *args)


def report(text: str, *args: object) -> None:
    """The application's own callable raised; to be called while its exception is handled."""
    logger().exception(text, *args)
