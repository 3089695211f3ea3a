//! The frame: the format of a log on disk.
//!
//! A log file is a sequence of frames. A frame consists of a header and a body. The header has [`Header::LEN`] bytes: the fields
//! of [`Header`] in their order, little-endian, and last the checksums of the body and of the header itself. The body is one zstd
//! frame: the [`OriginOffset`]s of all origins, then the records. A record is a fragment of a line: flags, milliseconds after the
//! header's time, length, text.

use beespace_core::output::Stream;
use beespace_core::time::Timestamp;
use bytes::Bytes;
use sha2::Digest as _;

use super::origin::OriginOffset;

/// `BLG` and the version of the format.
const MAGIC: [u8; 4] = *b"BLG\x01";

/// The maximum size of a body, compressed and uncompressed. It protects readers from decompression bombs, and no frame beyond it
/// is written, because no reader would accept it.
pub(super) const MAX_FRAME_BYTES: usize = 1024 * 1024;

/// The bytes of a record before its text.
pub(super) const RECORD_HEADER_LEN: usize = 9;
const BEGINS: u8 = 1 << 2;
const ENDS: u8 = 1 << 3;
const CONTINUES: u8 = 1 << 4;

/// Flags of a header.
pub(super) mod flag {
    /// The log has ended; no frame follows.
    pub(in crate::log) const FINISHED: u32 = 1;
    /// With `FINISHED`: output is missing.
    pub(in crate::log) const INCOMPLETE: u32 = 1 << 1;
    /// The size limit was reached.
    pub(in crate::log) const LIMITED: u32 = 1 << 2;
    /// The last line before this frame is still open.
    pub(in crate::log) const OPEN_BEFORE: u32 = 1 << 3;
    /// The last line of this frame is still open.
    pub(in crate::log) const OPEN_AFTER: u32 = 1 << 4;
}

/// The metadata of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Header {
    pub(super) flags: u32,
    /// Length of the compressed body (`body_len`) and of the uncompressed body (`raw_len`).
    pub(super) body_len: u32,
    pub(super) raw_len: u32,
    pub(super) records: u32,
    /// The number of lines that begin in this frame.
    pub(super) lines: u32,
    /// Length of this frame's part of the plain text, in bytes.
    pub(super) text_len: u32,
    /// The frame's offset in the file.
    pub(super) offset: u64,
    pub(super) records_before: u64,
    pub(super) lines_before: u64,
    pub(super) text_before: u64,
    /// Time of the first record, in milliseconds since the epoch.
    pub(super) at_ms: u64,
    /// Bytes dropped after the limit so far.
    pub(super) dropped: u64,
    /// The number of origin offsets at the start of the body.
    pub(super) offset_count: u32,
    pub(super) body_checksum: u64,
}

impl Header {
    pub(super) const LEN: usize = 4 + 6 * 4 + 6 * 8 + 4 + 8 + 8;

    pub(super) fn end_offset(&self) -> u64 {
        self.offset.saturating_add(Self::LEN as u64).saturating_add(self.body_len.into())
    }

    pub(super) fn records_after(&self) -> u64 {
        self.records_before.saturating_add(self.records.into())
    }

    pub(super) fn lines_after(&self) -> u64 {
        self.lines_before.saturating_add(self.lines.into())
    }

    pub(super) fn text_after(&self) -> u64 {
        self.text_before.saturating_add(self.text_len.into())
    }

    /// Whether this frame continues where `before` ended. Without this check, a gap in the numbers would make a reader loop
    /// forever.
    pub(super) fn follows(&self, before: Option<&Self>) -> bool {
        let end = before.map_or((0, 0, 0), |before| (before.records_after(), before.lines_after(), before.text_after()));
        (self.records_before, self.lines_before, self.text_before) == end
    }

    pub(super) fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    fn u32_fields(&self) -> [u32; 6] {
        [self.flags, self.body_len, self.raw_len, self.records, self.lines, self.text_len]
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(Self::LEN);
        out.extend(MAGIC);
        self.u32_fields().iter().for_each(|word| out.extend(word.to_le_bytes()));
        let long = [self.offset, self.records_before, self.lines_before, self.text_before, self.at_ms, self.dropped];
        long.iter().for_each(|word| out.extend(word.to_le_bytes()));
        out.extend(self.offset_count.to_le_bytes());
        out.extend(self.body_checksum.to_le_bytes());
        out.extend(checksum(&out).to_le_bytes());
        out
    }

    /// Decodes a header; `None` if it is truncated or damaged.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (content, sum) = bytes.get(..Self::LEN)?.split_at_checked(Self::LEN - 8)?;
        if u64::from_le_bytes(sum.try_into().ok()?) != checksum(content) {
            return None;
        }
        let mut rest = content.strip_prefix(&MAGIC)?;
        let header = Self {
            flags: take_u32(&mut rest)?,
            body_len: take_u32(&mut rest)?,
            raw_len: take_u32(&mut rest)?,
            records: take_u32(&mut rest)?,
            lines: take_u32(&mut rest)?,
            text_len: take_u32(&mut rest)?,
            offset: take_u64(&mut rest)?,
            records_before: take_u64(&mut rest)?,
            lines_before: take_u64(&mut rest)?,
            text_before: take_u64(&mut rest)?,
            at_ms: take_u64(&mut rest)?,
            dropped: take_u64(&mut rest)?,
            offset_count: take_u32(&mut rest)?,
            body_checksum: take_u64(&mut rest)?,
        };
        has_valid_size(header.raw_len as usize, header.body_len as usize).then_some(header)
    }

    /// Compresses offsets and records into a body, and sets the lengths and the checksum in this header. Fails if the body is
    /// larger than readers accept.
    pub(super) fn pack(&mut self, offsets: &[OriginOffset], records: &[u8]) -> std::io::Result<Vec<u8>> {
        let mut raw = Vec::with_capacity(offsets.len() * OriginOffset::LEN + records.len());
        offsets.iter().for_each(|offset| offset.encode(&mut raw));
        raw.extend_from_slice(records);
        let body = if raw.is_empty() { Vec::new() } else { zstd::bulk::compress(&raw, 1)? };
        if !has_valid_size(raw.len(), body.len()) {
            return Err(std::io::Error::other(format!("{} bytes do not fit into one frame", raw.len())));
        }
        self.offset_count = u32::try_from(offsets.len()).map_err(std::io::Error::other)?;
        self.raw_len = u32::try_from(raw.len()).map_err(std::io::Error::other)?;
        self.body_len = u32::try_from(body.len()).map_err(std::io::Error::other)?;
        self.body_checksum = checksum(&body);
        Ok(body)
    }

    /// Whether `body` matches the length and the checksum of this header.
    pub(super) fn matches(&self, body: &[u8]) -> bool {
        body.len() == self.body_len as usize && checksum(body) == self.body_checksum
    }

    /// The offsets of all origins at the end of this frame; `None` if the body is damaged.
    pub(super) fn offsets(&self, body: &[u8]) -> Option<Vec<OriginOffset>> {
        let raw = self.raw(body)?;
        raw.get(..self.offsets_len())?.chunks(OriginOffset::LEN).map(OriginOffset::decode).collect()
    }

    fn offsets_len(&self) -> usize {
        (self.offset_count as usize).saturating_mul(OriginOffset::LEN)
    }

    fn raw(&self, body: &[u8]) -> Option<Bytes> {
        if !self.matches(body) {
            return None;
        }
        if body.is_empty() {
            return Some(Bytes::new());
        }
        zstd::bulk::decompress(body, self.raw_len as usize).ok().map(Bytes::from)
    }

    /// The records of this frame; `None` if the body is damaged.
    pub(super) fn records(&self, body: &[u8]) -> Option<Vec<Record>> {
        let mut raw = self.raw(body)?;
        if raw.len() < self.offsets_len() {
            return None;
        }
        let raw = raw.split_off(self.offsets_len());
        let mut records = Vec::with_capacity((self.records as usize).min(raw.len() / RECORD_HEADER_LEN));
        let mut at = 0;
        while at < raw.len() {
            let mut head = raw.get(at..at + RECORD_HEADER_LEN)?;
            let (flags, delta, len) = (take_u8(&mut head)?, take_u32(&mut head)?, take_u32(&mut head)? as usize);
            at += RECORD_HEADER_LEN;
            raw.get(at..at.checked_add(len)?)?;
            records.push(Record {
                stream: stream_of(flags & 3)?,
                at: Timestamp(self.at_ms.saturating_add(delta.into())),
                begins: flags & BEGINS != 0,
                ends: flags & ENDS != 0,
                continues: flags & CONTINUES != 0,
                text: raw.slice(at..at + len),
            });
            at += len;
        }
        (records.len() == self.records as usize).then_some(records)
    }
}

/// A fragment of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) stream: Stream,
    pub(super) at: Timestamp,
    /// Whether it is the first fragment of its line.
    pub(super) begins: bool,
    /// Whether it is the last fragment of its line. A line without such a fragment ends where the next line begins.
    pub(super) ends: bool,
    /// With `begins`: whether the line continues an earlier one that was cut because of its length or by the output of another
    /// origin.
    pub(super) continues: bool,
    pub(super) text: Bytes,
}

impl Record {
    pub(super) fn encode(&self, frame_at: Timestamp, out: &mut Vec<u8>) {
        let flag = |is: bool, flag: u8| if is { flag } else { 0 };
        let flags = flag(self.begins, BEGINS) | flag(self.ends, ENDS) | flag(self.continues, CONTINUES);
        out.push(stream_code(self.stream) | flags);
        let delta = self.at.0.saturating_sub(frame_at.0);
        out.extend(u32::try_from(delta).unwrap_or(u32::MAX).to_le_bytes());
        out.extend(u32::try_from(self.text.len()).unwrap_or(u32::MAX).to_le_bytes());
        out.extend_from_slice(&self.text);
    }
}

/// Whether a body of this size is written and read. [`Header::pack`] and [`Header::decode`] agree on it.
fn has_valid_size(raw_len: usize, body_len: usize) -> bool {
    raw_len <= MAX_FRAME_BYTES && body_len <= MAX_FRAME_BYTES
}

fn stream_code(stream: Stream) -> u8 {
    match stream {
        Stream::Stdout => 0,
        Stream::Stderr => 1,
        Stream::Host => 2,
    }
}

fn stream_of(code: u8) -> Option<Stream> {
    match code {
        0 => Some(Stream::Stdout),
        1 => Some(Stream::Stderr),
        2 => Some(Stream::Host),
        _ => None,
    }
}

/// Detects damage, not forgery: an attacker who can write to the file can also compute the checksum.
fn checksum(bytes: &[u8]) -> u64 {
    let digest = sha2::Sha256::digest(bytes);
    digest.first_chunk().copied().map_or(0, u64::from_le_bytes)
}

fn take_u8(rest: &mut &[u8]) -> Option<u8> {
    let (byte, tail) = rest.split_first()?;
    *rest = tail;
    Some(*byte)
}

fn take_u32(rest: &mut &[u8]) -> Option<u32> {
    let (word, tail) = rest.split_first_chunk()?;
    *rest = tail;
    Some(u32::from_le_bytes(*word))
}

fn take_u64(rest: &mut &[u8]) -> Option<u64> {
    let (word, tail) = rest.split_first_chunk()?;
    *rest = tail;
    Some(u64::from_le_bytes(*word))
}

#[cfg(test)]
mod tests {
    use super::super::origin::Origin;
    use super::*;

    const PLACE: OriginOffset = OriginOffset { origin: Origin::HOST, stored: 7, covered: 3, is_open: false, is_cut: true };

    fn sample() -> (Header, Vec<u8>) {
        let record = Record {
            stream: Stream::Stderr,
            at: Timestamp(1_007),
            begins: true,
            ends: true,
            continues: false,
            text: Bytes::from_static(b"warning: unused"),
        };
        let mut raw = Vec::new();
        record.encode(Timestamp(1_000), &mut raw);
        let mut header = Header { records: 1, lines: 1, text_len: 16, at_ms: 1_000, ..Header::default() };
        let body = header.pack(&[PLACE], &raw).unwrap();
        (header, body)
    }

    #[test]
    fn a_frame_round_trips() {
        let (header, body) = sample();
        let encoded = header.encode();
        assert_eq!(encoded.len(), Header::LEN);
        assert_eq!(Header::decode(&encoded), Some(header));
        assert_eq!(header.offsets(&body), Some(vec![PLACE]));
        let records = header.records(&body).unwrap();
        assert_eq!(
            (records[0].stream, records[0].at, &records[0].text[..]),
            (Stream::Stderr, Timestamp(1_007), &b"warning: unused"[..])
        );
    }

    #[test]
    fn a_frame_that_no_reader_accepts_is_not_written() {
        let mut header = Header::default();
        let body = header.pack(&[], &vec![b'x'; MAX_FRAME_BYTES]).unwrap();
        assert_eq!(Header::decode(&header.encode()), Some(header));
        assert!(header.matches(&body));
        assert!(header.pack(&[], &vec![b'x'; MAX_FRAME_BYTES + 1]).is_err());
    }

    #[test]
    fn a_frame_follows_only_its_predecessor() {
        let (first, _) = sample();
        assert!(first.follows(None) && !first.follows(Some(&first)));
        let second = Header { records_before: 1, lines_before: 1, text_before: 16, ..first };
        assert!(second.follows(Some(&first)) && !second.follows(None));
    }

    #[test]
    fn maximum_numbers_do_not_overflow() {
        let (mut header, _) = sample();
        (header.offset, header.records_before, header.lines_before) = (u64::MAX, u64::MAX, u64::MAX);
        (header.text_before, header.at_ms) = (u64::MAX, u64::MAX);
        let mut raw = vec![BEGINS];
        raw.extend([0xff; 4]);
        raw.extend([0; 4]);
        let body = header.pack(&[], &raw).unwrap();
        let header = Header::decode(&header.encode()).unwrap();
        assert_eq!(header.records(&body).unwrap()[0].at, Timestamp(u64::MAX));
        assert_eq!((header.end_offset(), header.records_after(), header.lines_after()), (u64::MAX, u64::MAX, u64::MAX));
        assert_eq!(header.text_after(), u64::MAX);
    }

    #[test]
    fn every_flipped_bit_is_detected() {
        let (header, body) = sample();
        let encoded = header.encode();
        for bit in 0..encoded.len() * 8 {
            let mut bytes = encoded.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::decode(&bytes), None);
        }
        for bit in 0..body.len() * 8 {
            let mut bytes = body.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(header.records(&bytes), None);
        }
    }
}
