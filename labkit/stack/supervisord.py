"""
supervisord with one correction: a stale file descriptor does not make it spin.

When a connection of its socket closes and a process is started in the same round, the number of the closed descriptor
may be given to a pipe of that process while it is still registered for reading.  If nobody reads from that pipe, `poll`
reports an error for it at once, for ever, and supervisord burns half a processor (its issues 807 and 1581 tell of other
ways to the same).  Here a descriptor for which there is nothing but an error is forgotten.

    python -m labkit.stack.supervisord -c FILE
"""

from __future__ import annotations

import select

from supervisor import options, poller, supervisord

__all__ = ["ForgetfulPoller", "main"]


class ForgetfulPoller(poller.PollPoller):  # type: ignore[misc]  # supervisor has no types
    """A poller that stops watching a descriptor when all there is about it is an error."""

    def _ignore_invalid(self, fd: int, eventmask: int) -> bool:
        if eventmask & select.POLLERR and not eventmask & (self.READ | self.WRITE):
            self._poller.unregister(fd)
            self.readables.discard(fd)
            self.writables.discard(fd)
            return True
        return bool(super()._ignore_invalid(fd, eventmask))


def main() -> None:
    """Run supervisord in the foreground or as a daemon, as its file says."""
    if poller.Poller is poller.PollPoller:  # kqueue, on macOS, has no such error
        options.poller.Poller = ForgetfulPoller
    supervisord.main()


if __name__ == "__main__":
    main()
