//! Compiles `src/zygote/native/` into the small library that warm interpreters load.
//!
//! It is compiled by itself, without the standard library, because it runs inside another program:
//! the interpreter. The result is embedded in the crate, so there is no file to install.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    let variable = |name: &str| env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"));
    let sources: PathBuf = Path::new(&variable("CARGO_MANIFEST_DIR")).join("src/zygote");
    let root = sources.join("native_root.rs");
    for path in [&root, &sources.join("native"), &PathBuf::from("build.rs")] {
        println!("cargo:rerun-if-changed={}", path.display());
    }
    let mut command = Command::new(variable("RUSTC"));
    command
        .args([
            "--edition=2024",
            "--crate-type=cdylib",
            "--crate-name=r1ci_zygote",
        ])
        .args([
            "-Copt-level=2",
            "-Cpanic=abort",
            "-Cstrip=symbols",
            "-Crelocation-model=pic",
        ])
        .args(["--target", &variable("TARGET")])
        .arg("-o")
        .arg(Path::new(&variable("OUT_DIR")).join("zygote.so"))
        .arg(root);
    if let Ok(linker) = env::var("RUSTC_LINKER") {
        command.arg(format!("-Clinker={linker}"));
    }
    let status = command.status().expect("rustc runs");
    assert!(status.success(), "{command:?} failed");
}
