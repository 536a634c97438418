# Attack: ask a socket, any socket, for the machine's interfaces, addresses and hardware numbers.
# Verdict: ok
# Open without: seccomp
# Safe: refused.
import fcntl
import socket
import struct

ours, theirs = socket.socketpair()
room = ctypes.create_string_buffer(4096)
question = bytearray(struct.pack("@iP", 4096, ctypes.addressof(room)))
attempt("interfaces", lambda: fcntl.ioctl(ours, 0x8912, question))
attempt("name", lambda: fcntl.ioctl(ours, 0x8910, struct.pack("@16si20x", b"", 1)))
attempt("hardware", lambda: fcntl.ioctl(ours, 0x8927, struct.pack("40s", b"lo")))
