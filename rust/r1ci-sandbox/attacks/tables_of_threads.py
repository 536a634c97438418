# Attack: a table of descriptors for every thread, each with a limit of its own.
# Verdict: ok
# Open without: seccomp
# Safe: refused: the limit holds for all of them.
import threading

CLOSE_RANGE, UNSHARE = 436, 2
opened = []


def hold():
    try:
        syscall(CLOSE_RANGE, 1000, 2000, UNSHARE)
    except OSError:
        pass
    try:
        while True:
            opened.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        done.wait()


done = threading.Event()
threads = [threading.Thread(target=hold) for _ in range(8)]
for thread in threads:
    thread.start()
while len(opened) < 50:
    pass
done.wait(0.3)
done.set()
if len(opened) > 100:
    print("ESCAPED the limit on descriptors:", len(opened))
