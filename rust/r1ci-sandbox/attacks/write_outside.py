# Attack: write, link, move or truncate outside the work folder.
# Verdict: ok
# Open without: landlock landlock_tcp landlock_scope namespaces private_uid
# Safe: refused, each.
outside = os.path.join(os.path.dirname(facts["secret_path"]), f"r1ci-attack-{os.getpid()}")
secret = facts["secret_path"]


def create(path):
    with open(path, "w") as file:
        file.write("planted")
    os.unlink(path)


for path in (outside, "../planted", os.path.join(os.path.dirname(os.__file__), "planted.pth")):
    attempt(f"create {path}", lambda path=path: create(path))
attempt("append", lambda: open(secret, "ab").close())
attempt("truncate", lambda: os.truncate(secret, 5))
attempt("hard link", lambda: os.link(secret, "linked"))
attempt("library link", lambda: open(os.path.join(os.path.dirname(os.__file__), "os.py"), "r+b"))
with open("mine", "w") as file:
    file.write("planted")
attempt("move out", lambda: os.rename("mine", outside))
os.symlink(secret, "symbolic")
attempt("through a link", lambda: open("symbolic", "ab").close())
attempt("mkdir", lambda: os.mkdir(outside))
