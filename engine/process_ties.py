"""What binds the engine process to its parent and nothing else: it dies with it and stops by its order alone."""

from __future__ import annotations

import ctypes
import os
import signal
import sys


def stay_with_parent(parent_pid: int) -> None:
    """Die when the parent dies, where the system offers that; the closing socket says it everywhere else.

    The load does not look at the socket, so without this a parent's death would leave minutes of hashing behind.
    """
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        if ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGKILL, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
        if os.getppid() != parent_pid:  # it died before the call
            os._exit(0)


def ignore_terminal() -> None:
    """Leave the order to stop to the service: Ctrl-C and a service unit's SIGTERM reach every process at once."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
