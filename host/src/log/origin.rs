//! Who says something in a log, and how much of it is kept.

use beespace_core::output::Stream;

/// One who speaks in a step's log. Each has a mask and lines of its own, so that what one says never tears apart what another does, and a log
/// that is taken up again knows of each how far it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Origin {
    /// The round of a step type's plan, from 0. Who speaks in a later round ends those of earlier ones.
    pub round: u16,
    /// The container's place in the plan of that round, from 0.
    pub container: u16,
    stream_code: u8,
}

impl Origin {
    /// The host itself: before, between and after all containers.
    pub const HOST: Self = Self { round: u16::MAX, container: u16::MAX, stream_code: 2 };

    /// A stream of a container; the host, where the stream is the host's.
    #[must_use]
    pub fn new(round: u16, container: u16, stream: Stream) -> Self {
        match stream {
            Stream::Stdout => Self { round, container, stream_code: 0 },
            Stream::Stderr => Self { round, container, stream_code: 1 },
            Stream::Host => Self::HOST,
        }
    }

    /// Which of the three kinds of output it is.
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

/// The only container of a step that has one.
impl From<Stream> for Origin {
    fn from(stream: Stream) -> Self {
        Self::new(0, 0, stream)
    }
}

/// Where a source stands at the end of a frame: what another writer needs to know to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OriginOffset {
    pub(super) origin: Origin,
    /// Bytes of it that this and earlier frames account for.
    pub(super) stored: u64,
    /// How many of the next bytes belong to a secret whose mask is already here.
    pub(super) covered: u64,
    /// Its line is open after the last record.
    pub(super) is_open: bool,
    /// Its next line goes on with one that was cut.
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

    /// `None` where the bytes are none of ours.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (round, rest) = bytes.split_first_chunk()?;
        let (container, rest) = rest.split_first_chunk()?;
        let (&[code, flags], rest) = rest.split_first_chunk()?;
        let (stored, rest) = rest.split_first_chunk()?;
        let (covered, rest) = rest.split_first_chunk()?;
        let source = Origin { round: u16::from_le_bytes(*round), container: u16::from_le_bytes(*container), stream_code: code };
        (rest.is_empty() && code <= Origin::HOST.stream_code && flags <= 3).then_some(Self {
            origin: source,
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
    fn a_place_reads_what_it_wrote() {
        let source = Origin::new(3, 11, Stream::Stderr);
        let place = OriginOffset { origin: source, stored: 1 << 40, covered: 7, is_open: true, is_cut: false };
        let mut bytes = Vec::new();
        place.encode(&mut bytes);
        assert_eq!(bytes.len(), OriginOffset::LEN);
        assert_eq!(OriginOffset::decode(&bytes), Some(place));
        assert_eq!(OriginOffset::decode(&bytes[1..]), None);
        assert_eq!(Origin::new(3, 11, Stream::Host), Origin::HOST);
    }
}
