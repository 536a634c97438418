# Attack: where forking is allowed, start programs and enter namespaces from the child.
# Verdict: ok
# Limits: processes=4
# Open without: seccomp
# Safe: refused there as well.
import subprocess

CLONE, UNSHARE = 56, 272
attempt("subprocess", lambda: subprocess.run(["/bin/true"], check=True))
if os.system("true") == 0:
    print("ESCAPED system")


def clone(flags):
    pid = syscall(CLONE, flags | 17, 0, 0, 0, 0)
    if pid == 0:
        os._exit(0)
    return pid


for flag in (0x10000000, 0x20000, 0x20000000, 0x40000000, 0x8000000, 0x4000000, 0x2000000):
    attempt(f"clone {flag:x}", lambda flag=flag: clone(flag))
if os.fork() == 0:
    attempt("execv", lambda: os.execv("/bin/sh", ["sh", "-c", "echo ESCAPED"]))
    attempt("unshare", lambda: syscall(UNSHARE, 0x10000000))
    attempt("secret", lambda: read(facts["secret_path"]))
    os._exit(0)
os.wait()
