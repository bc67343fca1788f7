"""Memory of this process."""

import ctypes
import platform


def return_freed() -> None:
    """Gives memory that was freed back to the system; more than a gigabyte after the compilation of a training step.

    glibc keeps it otherwise, until it happens to look, in as many pools as threads have asked for memory. Elsewhere this does
    nothing.
    """
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)
