//! Functions that the compiler has put into others, and perf does not see.
//!
//! The relay is built so that the frame path becomes one function. The line tables in its program
//! still know which was which.

use std::path::Path;

use addr2line::Loader;
use anyhow::{Result, anyhow, ensure};

use crate::stacks::short;

/// The program's line tables.
pub(crate) struct Inlined {
    loader: Option<Loader>,
    segments: Vec<Segment>,
}

/// A part of the program's file and where it is in memory.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Segment {
    offset: u64,
    address: u64,
    bytes: u64,
}

impl Inlined {
    /// Knows nothing: every address is one function, perf's.
    #[cfg(test)]
    pub(crate) fn none() -> Self {
        Self { loader: None, segments: Vec::new() }
    }

    /// Reads a program.
    ///
    /// # Errors
    /// When it is no 64-bit ELF file, or its debug information is not readable.
    pub(crate) fn load(program: &Path) -> Result<Self> {
        let segments = segments(&std::fs::read(program)?)?;
        let loader = Loader::new(program).map_err(|error| anyhow!("{error}"))?;
        Ok(Self { loader: Some(loader), segments })
    }

    /// The functions at an offset into the program's file that were put into another one,
    /// outermost first; those of the standard library count to who called them.
    pub(crate) fn functions(&self, offset: u64) -> Vec<String> {
        let covers =
            |segment: &&Segment| (segment.offset..segment.offset + segment.bytes).contains(&offset);
        let Some(segment) = self.segments.iter().find(covers) else {
            return Vec::new();
        };
        let address = offset - segment.offset + segment.address;
        let mut frames = self.loader.as_ref().and_then(|loader| loader.find_frames(address).ok());
        let mut names = Vec::new();
        while let Some(Ok(Some(frame))) = frames.as_mut().map(|frames| frames.next()) {
            let name = frame.function.and_then(|function| Some(short(&function.demangle().ok()?)));
            let file = frame.location.and_then(|location| location.file).unwrap_or_default();
            names.push((name.unwrap_or_default(), module(file)));
        }
        // The last is the function that all others were put into, and perf knows that.
        names.pop();
        let inlined = names.into_iter().rev().filter_map(|(name, module)| Some((name, module?)));
        inlined.map(|(name, module)| format!("{module}::{name}")).collect()
    }
}

/// The module that a source file is; none for those of the standard library. Line tables name
/// functions without their modules.
fn module(file: &str) -> Option<String> {
    // Beside the library itself there are the crates it is made of.
    if ["/library/", "/rust/deps/"].iter().any(|folder| file.contains(folder)) {
        return None;
    }
    let (folder, path) = file.rsplit_once("/src/")?;
    let folder = folder.rsplit('/').next().unwrap_or(folder);
    let crate_ = match file.contains("/registry/") {
        // The version behind the name.
        true => folder.rsplit_once('-').map_or(folder, |(name, _)| name).to_owned(),
        false if folder.starts_with("relay") => folder.to_owned(),
        false => format!("relay_{folder}"),
    };
    let path = path.strip_suffix(".rs")?.replace('/', "::");
    let path = ["lib", "main", "mod"].iter().fold(path.as_str(), |path, name| {
        path.strip_suffix(name).unwrap_or(path).trim_end_matches("::")
    });
    let name = crate_.replace('-', "_");
    Some(if path.is_empty() { name } else { format!("{name}::{path}") })
}

/// The loadable parts. Source: elf(5), `Elf64_Ehdr` and `Elf64_Phdr`.
fn segments(file: &[u8]) -> Result<Vec<Segment>> {
    ensure!(
        file.starts_with(b"\x7fELF\x02\x01"),
        "the program is no little-endian 64-bit ELF file"
    );
    let number = |at: usize, bytes: usize| {
        let bytes = file.get(at..at + bytes)?;
        Some(bytes.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte)))
    };
    let headers = || {
        let (first, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
        (0..count)
            .map(|index| usize::try_from(first + index * size).ok())
            .collect::<Option<Vec<_>>>()
    };
    let headers = headers().unwrap_or_default();
    let loadable = headers.into_iter().filter(|&at| number(at, 4) == Some(PT_LOAD));
    let segments = loadable.filter_map(|at| {
        let (offset, address, bytes) =
            (number(at + 8, 8)?, number(at + 16, 8)?, number(at + 32, 8)?);
        Some(Segment { offset, address, bytes })
    });
    Ok(segments.collect())
}

const PT_LOAD: u64 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_program_has_code_somewhere() {
        let program = std::env::current_exe().expect("it runs");
        let file = std::fs::read(program).expect("it is there");
        let segments = segments(&file).expect("it is one");
        assert!(segments.iter().any(|segment| segment.bytes > 0), "{segments:?}");
    }

    #[test]
    fn a_file_tells_the_module_and_the_standard_library_none() {
        for (file, expected) in [
            ("/w/dataplane/wire/src/envelope/string.rs", Some("relay_wire::envelope::string")),
            ("/w/dataplane/wire/src/lib.rs", Some("relay_wire")),
            ("/w/relay/src/main.rs", Some("relay")),
            ("/r/registry/src/index-0/memchr-2.7.5/src/memmem/mod.rs", Some("memchr::memmem")),
            ("/rustc/0/library/core/src/slice/iter.rs", None),
            ("/rust/deps/hashbrown-0.16.1/src/map.rs", None),
        ] {
            assert_eq!(module(file).as_deref(), expected);
        }
    }

    #[test]
    fn a_text_is_no_program() {
        assert!(segments(b"#!/bin/sh\n").is_err());
    }
}
