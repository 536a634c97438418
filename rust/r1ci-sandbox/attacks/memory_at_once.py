# Attack: ask for a terabyte at once.
# Verdict: memory_limit
hoard = bytearray(10**12)
