# Attack: read the mount table, and with it paths of the host, by the calls that need no /proc.
# Verdict: ok
# Open without: seccomp
# Safe: refused.
import struct

STATMOUNT, LISTMOUNT = 457, 458
everything = struct.pack("=IIQQ", 24, 0, 2**64 - 1, 0)
found = ctypes.create_string_buffer(8 * 64)
libc.syscall(LISTMOUNT, everything, found, 64, 0)
attempt("list", lambda: syscall(LISTMOUNT, everything, bytes(8 * 64), 64, 0))
one = struct.pack("=IIQQ", 24, 0, struct.unpack_from("=Q", found)[0], 0x3F)
attempt("details", lambda: syscall(STATMOUNT, one, bytes(4096), 4096, 0))
