"""Names in Redis that several services, and whoever watches them, must agree on."""

from __future__ import annotations

from typing import Final

__all__ = ["QUEUES", "SESSIONS_KEY", "queue_keys", "taken_key"]

QUEUES: Final = ("email_queue", "processing_queue", "notification_queue")

# Users by the time they were last seen; the worker copies it into the table user_sessions.
SESSIONS_KEY: Final = "sessions"


def taken_key(queue: str) -> str:
    """The list of jobs that a worker took and has not finished; a restarted worker takes them again."""
    return f"{queue}:taken"


def queue_keys() -> list[str]:
    """Every key that holds jobs."""
    return [key for queue in QUEUES for key in (queue, taken_key(queue))]
