"""What every program of this package does first."""

import gc
import os
import stat


def begin() -> None:
    """Let nobody but the owner and group write files, and seldom look for garbage.

    Importing torch and transformers makes a million objects of which none is garbage; looking for
    it takes a sixth of a program's start.
    """
    os.umask(os.umask(0) | stat.S_IWOTH)
    gc.set_threshold(50_000, 50, 50)
