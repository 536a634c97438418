# Attack: abort, with every handler for it taken away.
# Verdict: killed
# Safe: verdict by signal, no core file.
print("kept", flush=True)
os.abort()
