# Attack: put on rules of one's own that allow everything.
# Verdict: ok
# Open without: seccomp
# Safe: rules only ever add up.
import struct

CREATE_RULESET, ADD_RULE, RESTRICT_SELF, SECCOMP = 444, 445, 446, 317
every_right = (1 << 16) - 1
try:
    rules = syscall(CREATE_RULESET, struct.pack("=QQQ", every_right, 0, 0), 24, 0)
    root = os.open("/", os.O_PATH)
    syscall(ADD_RULE, rules, 1, struct.pack("=Qi", every_right, root), 0)
    syscall(RESTRICT_SELF, rules, 0)
except OSError as error:
    print(f"refused rules: {error}")
steps = ctypes.create_string_buffer(struct.pack("=HBBI", 6, 0, 0, 0x7FFF0000))
program = struct.pack("=HxxxxxxQ", 1, ctypes.addressof(steps))
for flags in (0, 1, 2, 4, 8, 16, 32):
    try:
        syscall(SECCOMP, 1, flags, program)
    except OSError as error:
        print(f"refused filter: {error}")
libc.prctl(38, 0, 0, 0, 0)
attempt("strict mode off", lambda: syscall(157, 22, 0, 0, 0, 0))
attempt("secret", lambda: read(facts["secret_path"]))
attempt("list", lambda: os.listdir("/"))
attempt("fork", os.fork)
attempt("socket", lambda: syscall(41, 2, 1, 0))
