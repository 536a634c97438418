# Attack: rules of one's own, one for every port, in as many rulesets as there are descriptors.
# Verdict: ok
# Limits: cpu=5 memory=64
# Open without: seccomp
# Safe: refused.
import struct

CREATE_RULESET, ADD_RULE = 444, 445
attempt("ruleset", lambda: syscall(CREATE_RULESET, struct.pack("=QQQ", 0, 2, 0), 24, 0))
