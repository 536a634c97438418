# Attack: connect to a service on this machine, to the cloud's metadata, or listen.
# Verdict: ok
# Open without: seccomp landlock landlock_tcp landlock_scope namespaces private_uid
# Safe: refused.
import socket

port = facts["tcp_port"]
attempt("loopback", lambda: socket.create_connection(("127.0.0.1", port), 1))
attempt("listen", lambda: socket.create_server(("127.0.0.1", 0)))
