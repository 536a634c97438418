"""Seeds by name instead of by call order.

Every random choice of a run is a pure function of the run's seed and of what the choice is for
(step, item, sample, ...). Nothing keeps a generator whose state depends on what happened before,
so a resumed run, a reordered batch or another number of workers draws the same values.
"""

import hashlib


def derive_seed(*parts: int | str) -> int:
    """A 64-bit seed for the choice named by `parts`.

    Order matters and parts do not run together: `("a", "bc")` and `("ab", "c")` differ, and so
    do `1` and `"1"`.
    """
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        encoded = f"{type(part).__name__}:{part}".encode()
        digest.update(len(encoded).to_bytes(4, "little"))
        digest.update(encoded)
    return int.from_bytes(digest.digest(), "little")
