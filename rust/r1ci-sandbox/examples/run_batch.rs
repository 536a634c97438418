//! Run the files named on the command line, or three small scripts, side by side.
//!
//! `cargo run --example run_batch -- script.py …`

use r1ci_sandbox::{Request, Sandbox, SandboxConfig};

#[expect(clippy::print_stdout, reason = "an example shows what it does")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut scripts: Vec<(String, Vec<u8>)> = Vec::new();
    for path in std::env::args().skip(1) {
        let source = std::fs::read(&path)?;
        scripts.push((path, source));
    }
    if scripts.is_empty() {
        for source in ["print(6 * 7)", "open('/etc/passwd')", "while True: pass"] {
            scripts.push((source.into(), source.into()));
        }
    }
    let python = std::env::var("R1CI_PYTHON").unwrap_or_else(|_| "python3".into());
    let mut config = SandboxConfig::new(python);
    config.limits.cpu = std::time::Duration::from_secs(1);
    let sandbox = Sandbox::start(config)?;
    let names: Vec<&str> = sandbox.layers().iter().map(|layer| layer.name()).collect();
    println!("in force: {}", names.join(", "));
    for (layer, reason) in sandbox.missing() {
        println!("not in force: {layer}: {reason}");
    }

    let requests = scripts
        .iter()
        .map(|(_, source)| Request::new(source.clone()))
        .collect();
    for ((name, _), execution) in scripts.iter().zip(sandbox.run_many(requests)?) {
        println!(
            "{name}: {} in {:.1?}",
            execution.exit_reason.name(),
            execution.wall
        );
        print!("{}{}", execution.stdout.text().0, execution.stderr.text().0);
    }
    Ok(())
}
