# Attack: die of a signal, with a core file if there were one.
# Verdict: killed
# Safe: verdict by signal, no core file.
print("kept", flush=True)
ctypes.string_at(0)
