# Attack: spin.
# Verdict: cpu_limit, timeout
# Limits: cpu=0.3 wall=2
print("kept", flush=True)
while True:
    pass
