//! What a living process uses, from the kernel. A process that has gone, or that the kernel hides,
//! gives nothing; the kernel's own limits then stand alone.

use std::time::Duration;

/// CPU time of all threads of a process, to the nanosecond and for the price of one call.
#[expect(
    unsafe_code,
    reason = "no crate offers the CPU clock of another process"
)]
pub(crate) fn cpu_time(pid: i32) -> Option<Duration> {
    // The kernel's name for "CPU clock, by the scheduler, of process `pid`".
    const SCHEDULER_CLOCK: libc::clockid_t = 2;
    let clock = (!pid << 3) | SCHEDULER_CLOCK;
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the call writes one `timespec`, which lives until it returns; a clock that does not
    // exist makes it fail without writing.
    let result = unsafe { libc::clock_gettime(clock, &raw mut time) };
    (result == 0).then(|| Duration::new(time.tv_sec as u64, time.tv_nsec as u32))
}

/// What the scheduler says of a process.
pub(crate) struct State {
    /// Its main thread waits for something.
    pub sleeps: bool,
    /// How many threads it has.
    pub threads: u64,
}

/// State of a process.
pub(crate) fn state(pid: i32) -> Option<State> {
    parse_state(&std::fs::read(format!("/proc/{pid}/stat")).ok()?)
}

pub(crate) fn parse_state(stat: &[u8]) -> Option<State> {
    // The name in brackets is the process's own choice, of any bytes; fields count from its end.
    let name_end = stat.iter().rposition(|byte| *byte == b')')?;
    let text = std::str::from_utf8(&stat[name_end..]).ok()?;
    let fields: Vec<&str> = text[1..].split_whitespace().collect();
    Some(State {
        sleeps: matches!(*fields.first()?, "S" | "T" | "I"),
        threads: fields.get(17)?.parse().ok()?,
    })
}

/// Memory that new work can have, in bytes: what is free or can be had back. Unlimited if the
/// kernel does not say.
pub(crate) fn available_memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"));
    line.and_then(|rest| rest.trim().strip_suffix(" kB")?.parse::<u64>().ok())
        .map_or(u64::MAX, |kilobytes| kilobytes.saturating_mul(1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_clock_runs() {
        let pid = std::process::id() as i32;
        let before = cpu_time(pid).expect("a clock");
        let mut sum = 0_u64;
        while cpu_time(pid).expect("a clock") < before + Duration::from_millis(5) {
            sum = std::hint::black_box(sum + 1);
        }
        assert!(cpu_time(1 << 22).is_none(), "no process has that number");
        assert!(state(pid).expect("a state").threads >= 1);
    }

    #[test]
    fn a_name_cannot_mislead() {
        let text = b"7 (\xff) R 1 (x) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 5 18";
        let state = parse_state(text).expect("a state");
        assert!(state.sleeps);
        assert_eq!(state.threads, 5);
        assert!(parse_state(b"7 (a").is_none());
    }
}
