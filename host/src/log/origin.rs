//! The origin of log output, and the amount of each origin's output that is stored.

use beespace_core::output::Stream;

/// An origin of output in a step's log: one stream of one container, or the host. Each origin is masked and split into lines
/// separately, so the output of one never tears the lines of another. A resumed log knows how much of each origin's output is
/// stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Origin {
    /// The round of the step, from 0. Output of a later round ends the origins of earlier rounds.
    pub round: u16,
    /// The index of the container in that round's plan, from 0.
    pub container: u16,
    stream_code: u8,
}

impl Origin {
    /// The host itself, which writes before, between and after the containers.
    pub const HOST: Self = Self { round: u16::MAX, container: u16::MAX, stream_code: 2 };

    /// A stream of a container; [`Self::HOST`] for [`Stream::Host`].
    #[must_use]
    pub fn new(round: u16, container: u16, stream: Stream) -> Self {
        match stream {
            Stream::Stdout => Self { round, container, stream_code: 0 },
            Stream::Stderr => Self { round, container, stream_code: 1 },
            Stream::Host => Self::HOST,
        }
    }

    /// The kind of output.
    #[must_use]
    pub fn stream(self) -> Stream {
        match self.stream_code {
            0 => Stream::Stdout,
            1 => Stream::Stderr,
            _ => Stream::Host,
        }
    }

    pub(super) fn is_host(self) -> bool {
        self == Self::HOST
    }
}

/// A stream of the first container of the first round: the only container of a simple step.
impl From<Stream> for Origin {
    fn from(stream: Stream) -> Self {
        Self::new(0, 0, stream)
    }
}

/// The state of an origin at the end of a frame: all that a later writer needs to resume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OriginOffset {
    pub(super) origin: Origin,
    /// Bytes of the origin's output that this and earlier frames cover.
    pub(super) stored: u64,
    /// The number of following bytes that belong to a secret whose mask is already written.
    pub(super) covered: u64,
    /// Whether the origin's line is open after the last record.
    pub(super) is_open: bool,
    /// Whether the origin's next line continues one that was cut.
    pub(super) is_cut: bool,
}

impl OriginOffset {
    pub(super) const LEN: usize = 2 + 2 + 1 + 1 + 8 + 8;

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend(self.origin.round.to_le_bytes());
        out.extend(self.origin.container.to_le_bytes());
        out.push(self.origin.stream_code);
        out.push(u8::from(self.is_open) | u8::from(self.is_cut) << 1);
        out.extend(self.stored.to_le_bytes());
        out.extend(self.covered.to_le_bytes());
    }

    /// Decodes an offset; `None` if the bytes are invalid.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (round, rest) = bytes.split_first_chunk()?;
        let (container, rest) = rest.split_first_chunk()?;
        let (&[code, flags], rest) = rest.split_first_chunk()?;
        let (stored, rest) = rest.split_first_chunk()?;
        let (covered, rest) = rest.split_first_chunk()?;
        let origin = Origin { round: u16::from_le_bytes(*round), container: u16::from_le_bytes(*container), stream_code: code };
        (rest.is_empty() && code <= Origin::HOST.stream_code && flags <= 3).then_some(Self {
            origin,
            stored: u64::from_le_bytes(*stored),
            covered: u64::from_le_bytes(*covered),
            is_open: flags & 1 != 0,
            is_cut: flags & 2 != 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_offset_round_trips() {
        let origin = Origin::new(3, 11, Stream::Stderr);
        let offset = OriginOffset { origin, stored: 1 << 40, covered: 7, is_open: true, is_cut: false };
        let mut bytes = Vec::new();
        offset.encode(&mut bytes);
        assert_eq!(bytes.len(), OriginOffset::LEN);
        assert_eq!(OriginOffset::decode(&bytes), Some(offset));
        assert_eq!(OriginOffset::decode(&bytes[1..]), None);
        assert_eq!(Origin::new(3, 11, Stream::Host), Origin::HOST);
    }
}
