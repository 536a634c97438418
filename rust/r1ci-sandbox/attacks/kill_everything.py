# Attack: signal all processes there are.
# Verdict: ok
# Safe: nobody outside is reached; the test notices if its sandbox was.
import signal

try:
    os.kill(-1, signal.SIGKILL)
except OSError as error:
    print(f"refused: {error}")
