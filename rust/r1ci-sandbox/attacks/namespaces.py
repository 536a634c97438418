# Attack: new namespaces and mounts, in which one is root again.
# Verdict: ok
# Open without: seccomp
# Safe: refused.
calls = {
    "unshare user": (272, 0x10000000),
    "unshare files": (272, 0x400),
    "setns": (308, 0, 0),
    "mount": (165, b"none\0", b".\0", b"tmpfs\0", 0, 0),
    "umount": (166, b"/\0", 2),
    "pivot_root": (155, b".\0", b".\0"),
    "chroot": (161, b".\0"),
    "fsopen": (430, b"tmpfs\0", 0),
    "open_tree": (428, -100, b".\0", 1),
    "move_mount": (429, -100, b".\0", -100, b".\0", 0),
    "mount_setattr": (442, -100, b".\0", 0, bytes(32), 32),
}
for name, arguments in calls.items():
    attempt(name, lambda arguments=arguments: syscall(*arguments))
