//! The engine's representation of output and of times.

use beespace_core::output::{OutputOffsets, Stream};
use beespace_core::time::Timestamp;
use bollard::container::LogOutput;

use crate::clock::now;
use crate::engine::container_io::Output;

pub(super) fn to_output(frame: LogOutput, at: Timestamp) -> Output {
    let (stream, bytes) = match frame {
        LogOutput::StdErr { message } => (Stream::Stderr, message),
        // The other kinds belong to terminals, and no container has one.
        LogOutput::StdOut { message } | LogOutput::StdIn { message } | LogOutput::Console { message } => {
            (Stream::Stdout, message)
        }
    };
    Output { stream, at, bytes }
}

/// Output of a log with timestamps: removes the time that the engine puts in front of it, and uses it.
pub(super) fn parse_timestamped(frame: LogOutput) -> Option<Output> {
    let mut output = to_output(frame, now());
    let space = output.bytes.iter().position(|byte| *byte == b' ')?;
    let time = output.bytes.split_to(space);
    let _ = output.bytes.split_to(1);
    output.at = std::str::from_utf8(&time).ok().and_then(parse_time).unwrap_or(output.at);
    Some(output)
}

/// The part of some output that the receiver does not have yet. `skip` counts down what it has.
pub(super) fn unsent(mut output: Output, skip: &mut OutputOffsets) -> Option<Output> {
    let left = if output.stream == Stream::Stderr { &mut skip.stderr } else { &mut skip.stdout };
    let known = usize::try_from(*left).unwrap_or(usize::MAX).min(output.bytes.len());
    *left -= known as u64;
    let _ = output.bytes.split_to(known);
    (!output.bytes.is_empty()).then_some(output)
}

/// A time in the engine's format.
pub(super) fn parse_time(text: &str) -> Option<Timestamp> {
    let time = chrono::DateTime::parse_from_rfc3339(text).ok()?;
    // The year 1 means "not yet".
    u64::try_from(time.timestamp_millis()).ok().filter(|millis| *millis > 0).map(Timestamp)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn stored_output_is_not_sent_again() {
        let mut skip = OutputOffsets { stdout: 4, stderr: 0 };
        let output = |stream, text: &str| Output { stream, at: Timestamp(0), bytes: Bytes::copy_from_slice(text.as_bytes()) };
        assert_eq!(unsent(output(Stream::Stdout, "abc"), &mut skip), None);
        assert_eq!(unsent(output(Stream::Stderr, "x"), &mut skip), Some(output(Stream::Stderr, "x")));
        assert_eq!(unsent(output(Stream::Stdout, "def"), &mut skip), Some(output(Stream::Stdout, "ef")));
        assert_eq!(unsent(output(Stream::Stdout, "g"), &mut skip), Some(output(Stream::Stdout, "g")));
    }

    #[test]
    fn the_engines_timestamp_is_removed_from_output() {
        let message = Bytes::from_static(b"2026-11-25T01:40:00.123456789Z a b\n");
        let output = parse_timestamped(LogOutput::StdOut { message }).unwrap();
        assert_eq!((output.at, &*output.bytes), (Timestamp(1_795_570_800_123), &b"a b\n"[..]));
        assert_eq!(parse_time("0001-01-01T00:00:00Z"), None);
    }
}
