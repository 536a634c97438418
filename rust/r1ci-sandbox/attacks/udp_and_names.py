# Attack: send a datagram; look up a name.
# Verdict: ok
# Limits: wall=4
# Open without: seccomp
# Safe: refused at once, not after a resolver's patience.
import socket
import time

begun = time.monotonic()
attempt("udp", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
attempt("lookup", lambda: socket.getaddrinfo("example.com", 80))
if time.monotonic() - begun > 2:
    print("ESCAPED: the refusal took long")
