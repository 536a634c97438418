# Attack: have the kernel ask a filter of one's own, which answers that refused calls may go on.
# Verdict: ok
# Open without: seccomp
# Safe: the older filter's refusal comes first.
import struct
import threading

FORK, SECCOMP, NEW_LISTENER = 57, 317, 8
steps = ctypes.create_string_buffer(
    struct.pack("=HBBI", 0x20, 0, 0, 0)
    + struct.pack("=HBBI", 0x15, 0, 1, FORK)
    + struct.pack("=HBBI", 6, 0, 0, 0x7FC00000)
    + struct.pack("=HBBI", 6, 0, 0, 0x7FFF0000)
)
program = struct.pack("=HxxxxxxQ", 4, ctypes.addressof(steps))
ready = threading.Event()
handle = []


def answer():
    ready.wait()
    question = ctypes.create_string_buffer(80)
    if libc.ioctl(handle[0], ctypes.c_ulong(0xC0502100), question) == 0:
        reply = question.raw[:8] + bytes(12) + struct.pack("=I", 1)
        libc.ioctl(handle[0], ctypes.c_ulong(0xC0182101), ctypes.create_string_buffer(reply, 24))


def fork():
    pid = syscall(FORK)
    if pid == 0:
        os._exit(0)
    return pid


threading.Thread(target=answer, daemon=True).start()
handle.append(syscall(SECCOMP, 1, NEW_LISTENER, program))
ready.set()
attempt("fork", fork)
