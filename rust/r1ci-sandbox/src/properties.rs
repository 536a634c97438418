//! Properties of everything that reads what comes from outside: replies of a zygote, texts of the
//! kernel with names that a script chose, output, sources, complaints of a child, limits; and in
//! `properties/kernel.rs` trees and descriptors. Each is held against a model that is plain to see.

#[cfg(not(miri))]
mod kernel;

use std::time::{Duration, Instant};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use crate::capture::{Capture, Captured};
use crate::error::SandboxError;
use crate::policy::Limits;
use crate::report::{Ending, Exception, ExitReason, LastWords, Stop, judge, parse_remark};
use crate::wire::{Reply, Word, parse_reply, parse_word};
use crate::{files, identity, kinds, running, usage};

/// Fewer rounds under miri, which is a thousand times slower.
fn rounds(usual: u32) -> ProptestConfig {
    ProptestConfig {
        cases: if cfg!(miri) { 8 } else { usual },
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

fn bytes(most: usize) -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..=most)
}

/// Messages near those that are understood: right or almost right in size, kind and note.
fn messages() -> impl Strategy<Value = Vec<u8>> {
    let near = |kind: u8, size: usize| {
        (vec(any::<u8>(), size - 2..=size), 0..5_u8).prop_map(move |(rest, note)| {
            let mut message = vec![kind];
            message.extend(rest);
            if let Some(last) = message.last_mut() {
                *last = note;
            }
            message
        })
    };
    prop_oneof![near(b'X', 38), near(b'F', 13), bytes(80)]
}

proptest! {
    #![proptest_config(rounds(4_000))]

    #[test]
    fn nothing_but_a_report_is_read_without_a_handle(message in messages()) {
        let report = message.len() == 38 && message[0] == b'X' && message[37] <= 2;
        match parse_reply(&message, None) {
            Some(Reply::Gone) => prop_assert!(message.is_empty()),
            Some(Reply::Exited(execution, ending)) => {
                prop_assert!(report);
                prop_assert_eq!(&message[1..9], &execution.to_ne_bytes());
                prop_assert_eq!(&message[9..13], &ending.status.to_ne_bytes());
            }
            Some(other) => prop_assert!(false, "{:?}", other),
            None => prop_assert!(!message.is_empty() && !report),
        }
    }

    #[test]
    fn a_report_is_read_as_it_was_written(
        execution: u64, status: i32, times: [u64; 2], peak: u64, note in 0..3_u8,
    ) {
        let mut message = vec![b'X'];
        message.extend(execution.to_ne_bytes());
        message.extend(status.to_ne_bytes());
        message.extend(times.iter().flat_map(|time| time.to_ne_bytes()));
        message.extend(peak.to_ne_bytes());
        message.push(note);
        let Some(Reply::Exited(number, ending)) = parse_reply(&message, None) else {
            return Err(TestCaseError::fail("not read"));
        };
        let cpu = u128::from(times[0]) + u128::from(times[1]);
        let peak = u128::from(peak) * 1024;
        prop_assert_eq!((number, ending.status), (execution, status));
        prop_assert_eq!(ending.cpu.as_micros(), cpu.min(u64::MAX.into()));
        prop_assert_eq!(u128::from(ending.peak_rss_bytes), peak.min(u64::MAX.into()));
        let notes = [LastWords::None, LastWords::Ended, LastWords::OutOfMemory];
        prop_assert_eq!(ending.last_words, notes[usize::from(note)]);
    }

    #[test]
    fn a_state_is_read_whatever_the_name(
        name in bytes(20), letter in select(b"RSDTtZXI".as_slice()), threads: u64,
        between in vec(any::<i64>(), 16), after in vec(any::<u64>(), 0..33),
    ) {
        let texts = |numbers: &[String]| numbers.join(" ");
        let between = texts(&between.iter().map(ToString::to_string).collect::<Vec<_>>());
        let after = texts(&after.iter().map(ToString::to_string).collect::<Vec<_>>());
        let rest = format!(") {} {between} {threads} {after}\n", char::from(letter));
        let stat = [b"7 (", name.as_slice(), rest.as_bytes()].concat();
        let state = usage::parse_state(&stat).expect("a state");
        prop_assert_eq!(state.threads, threads);
        prop_assert_eq!(state.sleeps, b"STI".contains(&letter));
    }

    #[test]
    fn no_text_of_the_kernel_is_a_surprise(text in bytes(60), map in "[0-9 \n]{0,60}") {
        let _ = usage::parse_state(&text);
        let _ = usage::parse_ancestry(&[b"PPid:", text.as_slice(), b"\nNSpid:", &text].concat());
        let _ = usage::kilobytes(&[b"VmHWM:", text.as_slice()].concat(), "VmHWM:");
        let _ = identity::covers(&map, (1, 5));
        let last = format!("{} {map} {}", u64::MAX, u64::MAX);
        let _ = identity::covers(&last, (1, 5));
    }

    #[test]
    fn a_state_s_words_are_few(
        message in prop_oneof![bytes(7), "[BDE][\0-\x03]{0,5}".prop_map(Into::into)],
    ) {
        let read = match message.as_slice() {
            [b'B', number @ ..] if number.len() == 4 => {
                Some(Word::Begun(i32::from_ne_bytes(number.try_into().expect("four"))))
            }
            [b'E', ..] => Some(Word::Failed),
            [b'D', status, 1] => Some(Word::Done(*status, LastWords::Ended)),
            [b'D', status, 2] => Some(Word::Done(*status, LastWords::OutOfMemory)),
            _ => None,
        };
        prop_assert_eq!(parse_word(&message), read);
    }

    #[test]
    fn a_remark_is_read_as_far_as_it_goes(
        texts in vec(bytes(40), 3), cut: Index, noise in bytes(90),
    ) {
        let field = |text: &Vec<u8>| [&(text.len() as u16).to_le_bytes(), text.as_slice()].concat();
        let page: Vec<u8> = texts.iter().flat_map(field).collect();
        let page = &page[..page.len() - cut.index(page.len() + 1)];
        let (mut end, mut whole) = (0, Vec::new());
        for text in &texts {
            end += 2 + text.len();
            let read = String::from_utf8_lossy(text).into_owned();
            whole.push((end <= page.len()).then_some(read));
        }
        let [kind, message, call] = whole.try_into().expect("three");
        let (exception, refused) = parse_remark(page);
        let message = message.unwrap_or_default();
        let kind = kind.filter(|kind| !kind.is_empty());
        prop_assert_eq!(exception, kind.map(|kind| Exception { kind, message }));
        prop_assert_eq!(refused, call.filter(|call| !call.is_empty()));
        let _ = parse_remark(&noise);
    }

    #[test]
    fn a_complaint_keeps_its_words(
        step in ".{0,9}(: error [0-9]{1,3})?.{0,9}", number: i32, other in ".{0,40}",
    ) {
        let said = running::spell_out(&format!("{step}: error {number}"));
        let error = std::io::Error::from_raw_os_error(number);
        prop_assert_eq!(said, format!("{step}: {error}"));
        if !other.contains(": error ") {
            prop_assert_eq!(running::spell_out(&other), other);
        }
    }
}

/// Parts that make overlaps, borders and near misses of `from` likely.
fn pieces() -> impl Strategy<Value = Vec<u8>> {
    const PARTS: &[&[u8]] = &[b"/a", b"/a/", b"a", b"/", b"\xc3", b"\xa9", b"\n"];
    vec(select(PARTS), 0..20).prop_map(|parts| parts.concat())
}

const WORDS: &[&str] = &[
    "numpy", "sympy", "torch", "num", "_", "numpy_", "x", "\u{e9}", ".", "\n",
];

/// Bytes as text of one character each, so that the standard library's own `replace` can serve.
fn latin(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}

proptest! {
    #![proptest_config(rounds(2_000))]

    #[test]
    fn what_is_kept_is_head_and_tail(cap in 0..40_usize, parts in vec(bytes(30), 0..8)) {
        let mut capture = Capture::new(cap);
        for part in &parts {
            capture.push(part);
        }
        let all = parts.concat();
        prop_assert_eq!(capture.total, all.len() as u64);
        let kept = capture.take();
        if all.len() <= cap {
            prop_assert_eq!((kept.cut, kept.dropped), (all.len(), 0));
            prop_assert_eq!(kept.bytes, all);
        } else {
            let (head, tail) = (cap / 2, cap - cap / 2);
            prop_assert_eq!((kept.cut, kept.dropped), (head, (all.len() - cap) as u64));
            prop_assert_eq!(kept.bytes, [&all[..head], &all[all.len() - tail..]].concat());
        }
    }

    #[test]
    fn any_bytes_have_a_text(kept in bytes(60), at: Index) {
        let cut = at.index(kept.len() + 1);
        let captured = Captured { bytes: kept.clone(), cut, dropped: 1 };
        let (text, place) = captured.text();
        let halves = [&kept[..cut], &kept[cut..]].map(|half| String::from_utf8_lossy(half));
        prop_assert_eq!(text.chars().take(place).collect::<String>(), &*halves[0]);
        prop_assert_eq!(text.chars().skip(place).collect::<String>(), &*halves[1]);
    }

    #[test]
    fn replacing_is_what_text_replacing_is(
        kept in pieces(), at: Index, from in pieces(), to in bytes(4),
    ) {
        let cut = at.index(kept.len() + 1);
        let mut captured = Captured { bytes: kept.clone(), cut, dropped: 1 };
        captured.replace(&from, &to);
        let (from, to) = (latin(&from), latin(&to));
        let halves = [&kept[..cut], &kept[cut..]].map(|half| {
            let text = latin(half);
            if from.is_empty() { text } else { text.replace(&from, &to) }
        });
        prop_assert_eq!(captured.cut, halves[0].chars().count());
        prop_assert_eq!(latin(&captured.bytes), halves.concat());
    }

    #[test]
    fn a_module_is_named_by_a_whole_word(
        words in vec(select(WORDS), 0..12), noise in bytes(8), word in select(WORDS),
    ) {
        let source = [words.concat().as_bytes(), &noise].concat();
        let inside = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
        let named = |word: &str| source.split(|b| !inside(b)).any(|w| w == word.as_bytes());
        if word.bytes().all(|byte| inside(&byte)) {
            prop_assert_eq!(kinds::names(&source, word.as_bytes()), named(word));
        }
        let own = kinds::kinds(&["torch.nn".into()]);
        let place = [named("torch"), named("sympy"), named("numpy")].iter().position(|n| *n);
        prop_assert_eq!(kinds::choose(&own, &source), place.map_or(0, |place| 3 - place));
    }
}

const STOPS: [Option<Stop>; 9] = [
    None,
    Some(Stop::Wall),
    Some(Stop::Cpu),
    Some(Stop::Pids),
    Some(Stop::Output),
    Some(Stop::Disk),
    Some(Stop::Memory),
    Some(Stop::Cancelled),
    Some(Stop::Closing),
];

/// Wait statuses: any at all, exits, and deaths.
fn statuses() -> impl Strategy<Value = i32> {
    prop_oneof![any::<i32>(), (0..256).prop_map(|code| code << 8), 0..256]
}

proptest! {
    #![proptest_config(rounds(4_000))]

    #[test]
    fn only_a_clean_exit_is_a_success(
        status in statuses(), cpu: Duration, peak_rss_bytes: u64, resident: u64,
        stop in select(STOPS.as_slice()),
    ) {
        let limits = Limits::default();
        let judged = |last_words| {
            judge(&Ending { status, cpu, peak_rss_bytes, last_words }, stop, &limits, resident)
        };
        let (signal, code) = (status & 0x7f, (status >> 8) & 0xff);
        let said = [LastWords::None, LastWords::Ended, LastWords::OutOfMemory].map(judged);
        for (reason, exit_code, death, _) in &said {
            prop_assert_eq!(*reason == ExitReason::Ok, signal == 0 && code == 0);
            prop_assert_eq!(*exit_code, (signal == 0).then_some(code));
            prop_assert!(death.is_none_or(|number| number == signal && signal != 0));
            let ours = matches!(
                reason,
                ExitReason::Timeout | ExitReason::OutputLimit | ExitReason::Cancelled
                    | ExitReason::Infrastructure
            );
            prop_assert!(!ours || (signal == libc::SIGKILL && stop.is_some()));
            let cpu_used = cpu >= limits.cpu || stop == Some(Stop::Cpu);
            prop_assert!(*reason != ExitReason::CpuLimit || cpu_used);
            prop_assert_eq!(*reason == ExitReason::Refused, signal == libc::SIGSYS);
        }
        // The child's own word turns one failure into another, and only an exit by itself.
        let [nothing, ended, memory] = said.map(|verdict| verdict.0);
        prop_assert_eq!(nothing, ended);
        let exited = signal == 0 && code != 0;
        prop_assert!(memory == ended || (exited && memory == ExitReason::MemoryLimit));
    }
}

/// The fields of `Limits` in the order of their check, with the values allowed; times in ns.
const FIELDS: [(&str, u128, u128); 8] = [
    ("cpu", 1, 1_000_000_000 << 32),
    ("wall", 1, 1_000_000_000 << 32),
    ("memory_bytes", 1, 1 << 50),
    ("output_bytes", 1, 1 << 50),
    ("file_bytes", 1, 1 << 50),
    ("threads", 1, 1 << 50),
    ("open_files", 8, 1 << 50),
    ("processes", 0, 1 << 16),
];

fn set(limits: &mut Limits, field: &str, value: u128) {
    let number = value as u64;
    let second = 1_000_000_000;
    let time = Duration::new((value / second) as u64, (value % second) as u32);
    match field {
        "cpu" => limits.cpu = time,
        "wall" => limits.wall = time,
        "memory_bytes" => limits.memory_bytes = number,
        "output_bytes" => limits.output_bytes = number as usize,
        "file_bytes" => limits.file_bytes = number,
        "threads" => limits.threads = number,
        "open_files" => limits.open_files = number,
        _ => limits.processes = number,
    }
}

proptest! {
    #![proptest_config(rounds(4_000))]

    #[test]
    fn limits_hold_within_their_bounds_and_no_further(
        choices in vec((0..7_u8, any::<u64>()), FIELDS.len()),
    ) {
        let mut limits = Limits::default();
        let mut wrong = None;
        for ((name, least, most), (choice, any)) in FIELDS.into_iter().zip(choices) {
            let value = match choice {
                0 => least,
                1 => most,
                2 => least.saturating_sub(1),
                3 => most + 1,
                4 => u128::from(any),
                _ => least + u128::from(any) % (most - least),
            };
            set(&mut limits, name, value);
            if wrong.is_none() && !(least..=most).contains(&value) {
                wrong = Some(name);
            }
        }
        match limits.check() {
            Ok(()) => {
                prop_assert_eq!(wrong, None);
                let now = Instant::now();
                prop_assert!(now.checked_add(limits.wall + limits.cpu).is_some());
            }
            Err(SandboxError::Limit { name }) => prop_assert_eq!(wrong, Some(name)),
            Err(other) => prop_assert!(false, "{}", other),
        }
    }
}

/// Paths good and bad, most of them of few parts so that they meet.
fn paths() -> impl Strategy<Value = Vec<String>> {
    let odd = select(&["", ".", "..", "z\0", "...", "\u{e9}", " "][..]).prop_map(String::from);
    let long = (250..260_usize).prop_map(|length| "x".repeat(length));
    let part = prop_oneof![20 => "[ab]", 1 => odd, 1 => long];
    let few = vec(part.clone(), 1..4).prop_map(|parts| parts.join("/"));
    let many = vec(part, 14..19).prop_map(|parts| parts.join("/"));
    vec(prop_oneof![6 => few, 1 => many], 0..5)
}

proptest! {
    #![proptest_config(rounds(4_000))]

    #[test]
    fn files_are_taken_by_plain_paths_that_do_not_meet(into in paths(), out in paths()) {
        let plain = |path: &String| {
            let parts: Vec<&str> = path.split('/').collect();
            let good = |part: &&str| !["", ".", ".."].contains(part) && part.len() <= 255;
            let short = parts.len() <= 16 && path.len() <= 1024;
            parts.iter().all(good) && short && !path.contains('\0')
        };
        let meet = |one: usize, other: usize| {
            let below = into[one].starts_with(&format!("{}/", into[other]));
            one != other && (below || into[one] == into[other])
        };
        let met = (0..into.len()).any(|one| (0..into.len()).any(|other| meet(one, other)));
        let request: Vec<_> = into.iter().map(|path| (path.clone(), vec![b'x'])).collect();
        let taken = files::check(&request, &out).is_ok();
        prop_assert_eq!(taken, !met && into.iter().chain(&out).all(plain));
    }
}
