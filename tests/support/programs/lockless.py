"""Run a program to which the kernel gives no file lock, as a network file system without them.

    python lockless.py PROGRAM ARGUMENT...

flock and fcntl's locks fail with ENOLCK, in the program and all that it starts.
"""

import ctypes
import errno
import os
import platform
import struct
import sys

# Numbers of flock and fcntl, and how the kernel calls the machine; see seccomp(2).
MACHINES = {"x86_64": (73, 72, 0xC000003E), "aarch64": (32, 25, 0xC00000B7)}
F_SETLK, F_SETLKW, F_OFD_SETLK, F_OFD_SETLKW = 6, 7, 37, 38
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, FAIL = 0x7FFF0000, 0x00050000 | errno.ENOLCK
NUMBER, MACHINE, SECOND_ARGUMENT = 0, 4, 24  # where they lie in struct seccomp_data


def program():
    """The filter: (code, jump if true, jump if false, value) each."""
    flock, fcntl, machine = MACHINES[platform.machine()]
    return [
        (LOAD, 0, 0, MACHINE),
        (EQUAL, 0, 8, machine),
        (LOAD, 0, 0, NUMBER),
        (EQUAL, 7, 0, flock),
        (EQUAL, 0, 5, fcntl),
        (LOAD, 0, 0, SECOND_ARGUMENT),
        (EQUAL, 4, 0, F_SETLK),
        (EQUAL, 3, 0, F_SETLKW),
        (EQUAL, 2, 0, F_OFD_SETLK),
        (EQUAL, 1, 0, F_OFD_SETLKW),
        (RETURN, 0, 0, ALLOW),
        (RETURN, 0, 0, FAIL),
    ]


def forbid_locks():
    code = b"".join(struct.pack("HBBI", *instruction) for instruction in program())
    instructions = ctypes.create_string_buffer(code)
    header = struct.pack("HxxxxxxP", len(program()), ctypes.addressof(instructions))
    libc = ctypes.CDLL(None, use_errno=True)
    for call in ((PR_SET_NO_NEW_PRIVS, 1), (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, header)):
        arguments = [a if isinstance(a, bytes) else ctypes.c_ulong(a) for a in call[1:]]
        arguments += [ctypes.c_ulong(0)] * (4 - len(arguments))
        if libc.prctl(call[0], *arguments):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


if __name__ == "__main__":
    forbid_locks()
    os.execvp(sys.argv[1], sys.argv[1:])
