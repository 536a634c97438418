# Attack: flags, project numbers, versions and seals of files that the caller owns, by ioctl.
# Verdict: ok
# Open without: seccomp private_uid namespaces
# Safe: refused.
import fcntl
import struct

GET_FLAGS, SET_FLAGS, GET_X, SET_X = 0x80086601, 0x40086602, 0x801C581F, 0x401C5820
ENABLE_VERITY, SET_VERSION, NODUMP = 0x40806685, 0x40087602, 0x40


def set_flags(handle):
    flags = struct.unpack("=I", fcntl.ioctl(handle, GET_FLAGS, bytes(8))[:4])[0]
    fcntl.ioctl(handle, SET_FLAGS, struct.pack("=Q", flags | NODUMP))
    fcntl.ioctl(handle, SET_FLAGS, struct.pack("=Q", flags & ~NODUMP))


def set_extended(handle):
    fcntl.ioctl(handle, SET_X, fcntl.ioctl(handle, GET_X, bytes(28)))


for path in (os.__file__, os.path.dirname(os.__file__)):
    handle = os.open(path, os.O_RDONLY)
    attempt(f"flags {path}", lambda h=handle: set_flags(h))
    attempt(f"extended {path}", lambda h=handle: set_extended(h))
    attempt(f"version {path}", lambda h=handle: fcntl.ioctl(h, SET_VERSION, bytes(8)))
    attempt(f"verity {path}", lambda h=handle: fcntl.ioctl(h, ENABLE_VERITY, bytes(128)))
