# Attack: grow until memory ends.
# Verdict: memory_limit
# Limits: memory=64
hoard = []
while True:
    hoard.append(bytes(1 << 20))
