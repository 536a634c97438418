//! Which warm interpreter a script needs, by the modules that its source names.
//!
//! Forking costs in proportion to the memory that the parent has touched, so a script that needs no
//! numpy is better off with an interpreter that has none. A wrong guess costs time, never
//! correctness: any module can still be imported in the child.

/// A kind of zygote: what it has imported, and the words in a source that call for it.
#[derive(Debug, Clone)]
pub(crate) struct Kind {
    /// Modules to import.
    pub preload: Vec<String>,
    /// Statements to run after that, so that what a library makes at its first use is there.
    pub warm_up: &'static str,
    words: Vec<String>,
}

const NUMPY: &[&str] = &["numpy", "numpy.random", "numpy.linalg"];

/// Submodules that sympy loads only when first used, and scripts that use sympy soon need.
const SYMPY: &[&str] = &[
    "numpy",
    "numpy.random",
    "sympy",
    "sympy.combinatorics",
    "sympy.integrals.manualintegrate",
    "sympy.solvers.diophantine",
    "sympy.stats",
];

/// First uses of numpy; the generators are seeded anew for every script.
const NUMPY_WARM_UP: &str = "
import numpy
a = numpy.arange(6.0).reshape(2, 3)
str(a @ a.T + a.sum(axis=0)[0]), repr(a.mean()), numpy.linalg.solve(a[:, :2] + 1, a[:, 2])
numpy.random.rand(3), numpy.random.default_rng(0).integers(3)
";

/// First uses of sympy: its caches hold what is made here, and half of its modules load late.
const SYMPY_WARM_UP: &str = "
from sympy import *
x, y, n = symbols('x y n')
f = sympify('x**3 - 2*x + 1')
str(factor(x**2 - 1)), str(factor(f)), latex(expand((x + y) ** 3)), str(cancel((x**2 - 1) / (x - 1)))
str(simplify(sin(x) ** 2 + cos(x) ** 2)), str(simplify((x**2 + x) / x)), str(apart(1 / (x**2 + x)))
solve(x**2 - 2, x), solve([x + y - 3, x - y - 1], [x, y]), solveset(x**2 - 1, x), nsolve(f, x, 1.5)
diff(x * sin(x), x), integrate(x * exp(x), x), integrate(x**2, (x, 0, 1)), limit(sin(x) / x, x, 0)
series(exp(x), x, 0, 4), summation(n**2, (n, 1, x)), Matrix([[1, 2], [3, 4]]).inv(), Rational(1, 3) + 1
isprime(97), factorint(84), gcd(84, 36), divisors(84), N(pi, 20), binomial(9, 4), f.subs(x, 2), sqrt(8)
";

/// All kinds: the bare one first, the caller's last if there are modules of its own.
pub(crate) fn kinds(preload: &[String]) -> Vec<Kind> {
    let kind = |preload: &[&str], words: &[&str], warm_up| Kind {
        preload: preload.iter().map(ToString::to_string).collect(),
        words: words.iter().map(ToString::to_string).collect(),
        warm_up,
    };
    let mut kinds = vec![
        kind(&[], &[], ""),
        kind(NUMPY, &["numpy", "scipy", "pandas"], NUMPY_WARM_UP),
        kind(SYMPY, &["sympy"], SYMPY_WARM_UP),
    ];
    if !preload.is_empty() {
        let top = |name: &String| name.split('.').next().unwrap_or_default().to_owned();
        kinds.push(Kind {
            preload: preload.to_vec(),
            words: preload.iter().map(top).collect(),
            warm_up: "",
        });
    }
    kinds
}

/// The place of the last kind in `kinds` that the source calls for; 0, the bare one, if none.
pub(crate) fn choose(kinds: &[Kind], source: &[u8]) -> usize {
    let called = |kind: &Kind| kind.words.iter().any(|word| names(source, word.as_bytes()));
    kinds.iter().rposition(called).unwrap_or(0)
}

/// Whether `word` stands in `source` as a word of its own.
pub(crate) fn names(source: &[u8], word: &[u8]) -> bool {
    let inside = |byte: Option<&u8>| byte.is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_');
    memchr::memmem::find_iter(source, word).any(|at| {
        !inside(at.checked_sub(1).and_then(|before| source.get(before)))
            && !inside(source.get(at + word.len()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_source_decides() {
        let all = kinds(&["torch.nn".into()]);
        for (source, kind) in [
            ("print(1)", 0),
            ("import numpy as np", 1),
            ("from scipy import stats", 1),
            ("import numpy, sympy", 2),
            ("__import__('sympy')", 2),
            ("my_numpy_like = 1; numpyx = 2", 0),
            ("import torch, sympy", 3),
            ("", 0),
        ] {
            assert_eq!(choose(&all, source.as_bytes()), kind, "{source}");
        }
        assert_eq!(choose(&kinds(&[]), b"import torch"), 0);
    }
}
