"""Run by `python -c`: takes the zygote's modules from the control socket and starts them.

The socket is standard input; with the modules comes the native half, as a file in memory.
"""

import ctypes
import json
import os
import socket
import sys
import types

os.dup2(0, 3, inheritable=False)
os.closerange(4, 2**31 - 1)  # whatever the caller's libraries let through
control = socket.socket(fileno=3)
message, (handle,), _, _ = socket.recv_fds(control, 1 << 20, 1)
# Calls keep the interpreter's lock: the zygote has one thread, and a child must be born with it.
library = ctypes.PyDLL(f"/proc/self/fd/{handle}")
os.close(handle)
sys.modules["r1ci_zygote"] = types.ModuleType("r1ci_zygote")
sys.modules["r1ci_zygote.load"] = sys.modules["__main__"]
for name, source in json.loads(message):
    module = sys.modules[name] = types.ModuleType(name)
    exec(compile(source, name, "exec"), module.__dict__)
