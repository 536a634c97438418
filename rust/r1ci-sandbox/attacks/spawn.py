# Attack: start programs by every door of the standard library.
# Verdict: ok
# Open without: seccomp
# Safe: all refused.
import multiprocessing
import pty
import subprocess

attempt("subprocess", lambda: subprocess.run(["/bin/sh", "-c", "id"], check=True))
attempt("posix_spawn", lambda: os.posix_spawn("/bin/sh", ["sh", "-c", "id"], {}))
attempt("pty", lambda: pty.spawn(["/bin/sh", "-c", "id"]))
attempt("pool", lambda: multiprocessing.get_context("fork").Process(target=print).start())
if os.system("true") == 0:
    print("ESCAPED system")
