# Attack: reach services through unix sockets, by path, by abstract name, by a datagram pair.
# Verdict: ok
# Open without: seccomp landlock landlock_tcp landlock_scope namespaces private_uid
# Safe: refused.
import socket


def connect(address):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(address)


def datagram():
    ours, _ = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    ours.sendto(b"planted", facts["unix_datagram"])


attempt("path", lambda: connect(facts["unix_path"]))
attempt("abstract", lambda: connect("\0" + facts["unix_abstract"]))
attempt("datagram", datagram)
