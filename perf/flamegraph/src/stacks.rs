//! Samples, as perf prints them.

use std::collections::BTreeMap;

use crate::inlined::Inlined;

/// Equal stacks and how often each was seen.
#[derive(Debug, Default, Eq, PartialEq)]
pub(crate) struct Stacks(pub(crate) BTreeMap<Vec<Function>, u64>);

/// One function of a stack.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) place: Place,
}

/// Whose code it is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Place {
    /// A thread of the relay: no function, the foot of all its stacks.
    Thread,
    /// The relay's program, libraries linked into it included.
    Program,
    /// The C library and whatever else was loaded.
    Library,
    Kernel,
}

impl Stacks {
    /// Reads the output of `perf script --fields comm,ip,sym,dso`: per sample the thread's name,
    /// then a line per function from the innermost out, then an empty line.
    pub(crate) fn parse(script: &str, program: &str, inlined: &Inlined) -> Self {
        let mut stacks = Self::default();
        for sample in script.split("\n\n") {
            let mut lines = sample.lines().filter(|line| !line.trim().is_empty());
            let Some(thread) = lines.next() else {
                continue;
            };
            let name = thread.trim().to_owned();
            let mut stack = vec![Function { name, place: Place::Thread }];
            let lines: Vec<&str> = lines.collect();
            for line in lines.iter().rev() {
                stack.extend(functions(line.trim(), program, inlined));
            }
            // What the runtime does before a thread's own code says nothing.
            let own = stack.iter().rposition(|function| FEET.contains(&function.name.as_str()));
            if let Some(last) = own {
                stack.drain(1..=last);
            }
            *stacks.0.entry(stack).or_default() += 1;
        }
        stacks
    }

    /// All samples.
    pub(crate) fn sample_count(&self) -> u64 {
        self.0.values().sum()
    }
}

/// The functions of one line `address name (file)`, outermost first.
fn functions(line: &str, program: &str, inlined: &Inlined) -> Vec<Function> {
    let Some((address, rest)) = line.split_once(' ') else {
        return Vec::new();
    };
    let (name, file) = rest.rsplit_once(" (").unwrap_or((rest, ""));
    let file = file.trim_end_matches(')');
    let place = match file {
        _ if file == program => Place::Program,
        _ if file.starts_with("[kernel") || file == "[guest.kernel.kallsyms]" => Place::Kernel,
        _ => Place::Library,
    };
    let offset = u64::from_str_radix(address, 16).unwrap_or_default();
    let inside = if place == Place::Program { inlined.functions(offset) } else { Vec::new() };
    std::iter::once(short(name)).chain(inside).map(|name| Function { name, place }).collect()
}

/// A function's name without type parameters and hashes: `<A<T> as B>::f` is `A::f`.
pub(crate) fn short(name: &str) -> String {
    let name = name.trim();
    let (first, rest) = match name.strip_prefix('<').and_then(matching) {
        Some((inside, rest)) => (short(inside.split(" as ").next().unwrap_or(inside)), rest),
        None => (String::new(), name),
    };
    let mut plain = first;
    let mut depth = 0_usize;
    for part in rest.split_inclusive(['<', '>']) {
        // An arrow is no bracket.
        let closes = part.ends_with('>') && !part.ends_with("->");
        if depth == 0 {
            plain.push_str(part.trim_end_matches('<'));
        }
        depth = match part.chars().last() {
            Some('<') => depth + 1,
            Some('>') if closes => depth.saturating_sub(1),
            _ => depth,
        };
    }
    let plain = plain.replace("::::", "::");
    let hash = plain.rfind("::h").filter(|at| plain.len() - at == "::h".len() + 16);
    hash.map_or(plain.as_str(), |at| &plain[..at]).trim_end_matches(':').to_owned()
}

/// What stands before the bracket that closes one that was opened before, and what after.
fn matching(text: &str) -> Option<(&str, &str)> {
    let mut depth = 1;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'<' => depth += 1,
            b'>' if at == 0 || text.as_bytes()[at - 1] != b'-' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some((&text[..at], &text[at + 1..]));
        }
    }
    None
}

/// Below a thread's own code.
const FEET: [&str; 8] = [
    "clone3",
    "__clone3",
    "start_thread",
    "_start",
    "main",
    "std::sys::thread::unix::Thread::new::thread_start",
    "std::sys::backtrace::__rust_begin_short_backtrace",
    "core::ops::function::FnOnce::call_once{{vtable.shim}}",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_stacks_are_counted_together_from_the_thread_up() {
        let sample = "shard-0 \n\tffff1 tcp_sendmsg ([kernel.kallsyms])\n\t 12 syscall (/l/libc)\n\
                      \t 4a relay_shard::run (/b/relay)\n\t 8f start_thread (/l/libc)\n\n";
        let stacks = Stacks::parse(&sample.repeat(2), "/b/relay", &Inlined::none());
        let function = |name: &str, place| Function { name: name.into(), place };
        let expected = vec![
            function("shard-0", Place::Thread),
            function("relay_shard::run", Place::Program),
            function("syscall", Place::Library),
            function("tcp_sendmsg", Place::Kernel),
        ];
        assert_eq!(stacks.0.into_iter().collect::<Vec<_>>(), [(expected, 2)]);
    }

    #[test]
    fn names_lose_parameters_and_hashes() {
        for (name, expected) in [
            ("relay_shard::shard::Shard<D>::run", "relay_shard::shard::Shard::run"),
            ("<a::Uring as a::driver::Driver>::turn", "a::Uring::turn"),
            ("a::<impl a::Shard<D>>::serve", "a::serve"),
            ("<std::sys::Thread>::new::start", "std::sys::Thread::new::start"),
            ("a::b::h0123456789abcdef", "a::b"),
            ("<F as a::Call<fn(u8) -> u8>>::call", "F::call"),
            ("tcp_v4_rcv", "tcp_v4_rcv"),
        ] {
            assert_eq!(short(name), expected);
        }
    }
}
