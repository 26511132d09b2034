"""How the C library keeps memory that is freed."""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # M_TRIM_THRESHOLD and M_MMAP_MAX of malloc.h


def keep_freed_memory() -> bool:
    """Have this process keep what it frees, to be used again, until it ends.

    glibc gives large blocks back to the system at once. A network on the CPU then gets each of its
    maps as new pages, which the system has to clear first: some 6 GB an image of x152.

    Returns:
        Whether it could be done: the C library is glibc.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library, or none that is shared
        return False
    never_return = mallopt(_TRIM_THRESHOLD, -1)
    no_pages_of_their_own = mallopt(_MMAP_MAX, 0)
    return bool(never_return and no_pages_of_their_own)
