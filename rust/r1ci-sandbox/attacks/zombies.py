# Attack: children and orphans that end and are never waited for.
# Verdict: ok
# Limits: processes=6
# Safe: refused at the number; gone with the script.
for _ in range(60):
    try:
        if os.fork() == 0:
            try:
                os.fork()
            finally:
                os._exit(0)
    except OSError:
        break
else:
    print("ESCAPED the limit on processes")
