# Attack: pass descriptors to oneself until the kernel holds more than one may have; ask the
# kernel who is at the other end.
# Verdict: ok
# Open without: seccomp
# Safe: bounded; the other end is oneself.
import array
import socket

ours, theirs = socket.socketpair()
ours.setblocking(False)
total = 0
numbers = array.array("i", [0, 1, 2] * 80)
try:
    for _ in range(5000):
        ours.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, numbers)])
        total += len(numbers)
except OSError as error:
    print(f"refused after {total}: {error}")
if total > 100_000:
    print("ESCAPED the limit on descriptors:", total)
SO_PEERPIDFD = 77
try:
    handle = ours.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD)
except OSError as error:
    print(f"refused: {error}")
else:
    GET_NAMESPACES, SETNS = range(0xFF01, 0xFF0B), 308
    for command in GET_NAMESPACES:
        place = libc.ioctl(handle, ctypes.c_ulong(command), 0)
        attempt(f"enter {command:x}", lambda place=place: syscall(SETNS, place, 0))
    attempt("signal", lambda: syscall(424, handle, 0, 0, 0))
    attempt("steal", lambda: syscall(438, handle, 0, 0))
