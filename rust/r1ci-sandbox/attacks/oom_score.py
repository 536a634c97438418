# Attack: make the kernel kill others first when memory runs out.
# Verdict: ok
# Safe: refused.
attempt("oom_score_adj", lambda: open("/proc/self/oom_score_adj", "w").write("-1000"))
