"""Put in front of every attack by the test that runs them. Not an attack.

`facts` names things outside that an attack may aim at; `attempt` prints `ESCAPED` when an action
works that must not, and `refused` when it raises.
"""

import ctypes
import json
import os
import sys

facts = json.load(sys.stdin)
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long


def attempt(what, action):
    try:
        result = action()
    except Exception as error:
        print(f"refused {what}: {type(error).__name__}: {error}", flush=True)
    else:
        print(f"ESCAPED {what}: {str(result)[:120]!r}", flush=True)


def syscall(number, *arguments):
    """A raw system call; OSError when it fails."""
    words = [a if isinstance(a, bytes) else ctypes.c_long(a) for a in arguments]
    result = libc.syscall(ctypes.c_long(number), *words)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def read(path):
    with open(path, "rb") as file:
        return file.read(64)
