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
#[derive(Debug, Clone, Copy)]
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

/// What a process and all that came of it use together.
#[derive(Debug, Default)]
pub(crate) struct Together {
    /// CPU time, that of ended children included.
    pub cpu: Duration,
    /// Memory that is their own, in bytes: at most what they have, and at most a page a fault.
    pub bytes: u64,
    /// None of them computes.
    pub sleep: bool,
}

/// Add up a process and its descendants; a tree that grows meanwhile is added up in part.
pub(crate) fn together(pid: i32) -> Together {
    let mut sum = Together {
        sleep: true,
        ..Together::default()
    };
    let mut found = vec![pid];
    let mut next = 0;
    while let Some(pid) = found.get(next).copied() {
        next += 1;
        let stat = std::fs::read(format!("/proc/{pid}/stat")).unwrap_or_default();
        let own = cpu_time(pid).unwrap_or_default();
        sum.cpu += own + parse_children_time(&stat).unwrap_or_default();
        sum.bytes += touched_memory(pid).min(anonymous_memory(pid));
        sum.sleep &= parse_state(&stat).is_none_or(|state| state.sleeps);
        for thread in std::fs::read_dir(format!("/proc/{pid}/task"))
            .into_iter()
            .flatten()
        {
            let Ok(thread) = thread else { continue };
            let text = std::fs::read_to_string(thread.path().join("children"));
            let text = text.unwrap_or_default();
            found.extend(
                text.split_whitespace()
                    .filter_map(|field| field.parse::<i32>().ok()),
            );
        }
        found.truncate(MOST_TOGETHER);
    }
    sum
}

/// Most processes that are added up.
const MOST_TOGETHER: usize = 1024;

/// CPU time of the children that a process has waited for.
pub(crate) fn parse_children_time(stat: &[u8]) -> Option<Duration> {
    let name_end = stat.iter().rposition(|byte| *byte == b')')?;
    let text = std::str::from_utf8(&stat[name_end..]).ok()?;
    let mut fields = text[1..].split_whitespace().skip(13);
    let ticks = fields
        .next()?
        .parse::<u64>()
        .ok()?
        .checked_add(fields.next()?.parse().ok()?)?;
    let millis = ticks.saturating_mul(1000) / rustix::param::clock_ticks_per_second().max(1);
    Some(Duration::from_millis(millis))
}

/// Who a process is to the kernel: its parent, and its number in its own process namespace.
pub(crate) fn ancestry(pid: i32) -> Option<(i32, i32)> {
    parse_ancestry(&std::fs::read(format!("/proc/{pid}/status")).ok()?)
}

pub(crate) fn parse_ancestry(text: &[u8]) -> Option<(i32, i32)> {
    let numbers = |name: &str| -> Option<Vec<i32>> {
        let mut lines = text.split(|byte| *byte == b'\n');
        let line = lines.find_map(|line| line.strip_prefix(name.as_bytes()))?;
        let fields = std::str::from_utf8(line).ok()?.split_whitespace();
        fields.map(|field| field.parse().ok()).collect()
    };
    let (parent, inner) = (*numbers("PPid:")?.first()?, *numbers("NSpid:")?.last()?);
    // A process that is being taken off the books has zeros here.
    (parent > 0 && inner > 0).then_some((parent, inner))
}

/// The children of a process with one thread; none if the kernel does not say.
pub(crate) fn children(pid: i32) -> Option<Vec<i32>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    text.split_whitespace()
        .map(|field| field.parse().ok())
        .collect()
}

/// Largest resident set of a process so far, in bytes.
pub(crate) fn peak_memory(pid: i32) -> u64 {
    let text = std::fs::read(format!("/proc/{pid}/status")).unwrap_or_default();
    kilobytes(&text, "VmHWM:").unwrap_or(0)
}

/// Memory of a process that is no file's, in bytes, whoever shares it.
pub(crate) fn anonymous_memory(pid: i32) -> u64 {
    let text = std::fs::read(format!("/proc/{pid}/status")).unwrap_or_default();
    let part = |name| kilobytes(&text, name).unwrap_or(0);
    part("RssAnon:").saturating_add(part("RssShmem:"))
}

/// Memory that a process has touched first, or copied, since it was forked, in bytes: at most as much
/// as it has faults.
pub(crate) fn touched_memory(pid: i32) -> u64 {
    let text = std::fs::read(format!("/proc/{pid}/stat")).unwrap_or_default();
    let faults = parse_faults(&text).unwrap_or(0);
    faults.saturating_mul(rustix::param::page_size() as u64)
}

pub(crate) fn parse_faults(text: &[u8]) -> Option<u64> {
    // The name in brackets is the process's own choice; fields are counted from its end.
    let end = text.iter().rposition(|byte| *byte == b')')?;
    let fields = std::str::from_utf8(&text[end + 1..]).ok()?;
    fields.split_whitespace().nth(7)?.parse().ok()
}

/// The bytes on the line that begins with `name`, which counts kilobytes.
pub(crate) fn kilobytes(text: &[u8], name: &str) -> Option<u64> {
    let mut lines = text.split(|byte| *byte == b'\n');
    let line = lines.find_map(|line| line.strip_prefix(name.as_bytes()))?;
    let number = std::str::from_utf8(line).ok()?.trim().strip_suffix(" kB")?;
    Some(number.trim().parse::<u64>().ok()?.saturating_mul(1024))
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
    #[cfg_attr(miri, ignore = "needs a kernel")]
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
