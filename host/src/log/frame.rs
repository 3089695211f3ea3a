//! The frame: what is on disk, byte for byte.
//!
//! A log file is frames one after the other. A frame is a header of [`Header::LEN`] bytes (little endian, in the order of the
//! fields of [`Header`]) and the body: one zstd frame of records. A record is one piece of a line: flags, milliseconds after the
//! header's time, length, text; before the records the body has the [`Place`]s of those who speak. The header ends with checksums of the
//! body and of itself.

use beespace_core::output::Stream;
use beespace_core::time::Timestamp;
use bytes::Bytes;
use sha2::Digest as _;

use super::origin::OriginOffset;

/// `BLG` and the version of this layout.
const MAGIC: [u8; 4] = *b"BLG\x01";

/// No frame is larger than this before compression. Refuses bombs; what is written stays far below.
const MAX_FRAME_BYTES: usize = 512 * 1024;

const RECORD_HEADER_LEN: usize = 9;
const BEGINS: u8 = 1 << 2;
const ENDS: u8 = 1 << 3;
const CONTINUES: u8 = 1 << 4;

/// Flags of a header.
pub(super) mod flag {
    /// Nothing follows this frame.
    pub(in crate::log) const FINISHED: u32 = 1;
    /// With `FINISHED`: something is missing.
    pub(in crate::log) const INCOMPLETE: u32 = 1 << 1;
    /// The limit was reached.
    pub(in crate::log) const LIMITED: u32 = 1 << 2;
    /// The line before the first record has no end yet.
    pub(in crate::log) const OPEN_BEFORE: u32 = 1 << 3;
    /// A line is open after the last record.
    pub(in crate::log) const OPEN_AFTER: u32 = 1 << 4;
}

/// All that is to be known of a frame without its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Header {
    pub(super) flags: u32,
    /// Length of the body on disk and unpacked.
    pub(super) body_len: u32,
    pub(super) raw_len: u32,
    pub(super) records: u32,
    /// Lines that begin in this frame.
    pub(super) lines: u32,
    /// Length of this frame's part of the plain text.
    pub(super) text_len: u32,
    /// Where the frame begins in its file.
    pub(super) offset: u64,
    pub(super) records_before: u64,
    pub(super) lines_before: u64,
    pub(super) text_before: u64,
    /// Time of the first record.
    pub(super) at_ms: u64,
    /// Bytes dropped after the limit, so far.
    pub(super) dropped: u64,
    /// How many places the body begins with.
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

    /// Does this frame go on where `before` ended? A reader that went by numbers with gaps would not come to an end.
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

    /// `None` where the bytes are no whole, undamaged header.
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
        (usize::try_from(header.raw_len).ok()? <= MAX_FRAME_BYTES && usize::try_from(header.body_len).ok()? <= MAX_FRAME_BYTES)
            .then_some(header)
    }

    /// Packs places and records into a body and notes it here.
    pub(super) fn pack(&mut self, places: &[OriginOffset], records: &[u8]) -> std::io::Result<Vec<u8>> {
        let mut raw = Vec::with_capacity(places.len() * OriginOffset::LEN + records.len());
        places.iter().for_each(|place| place.encode(&mut raw));
        raw.extend_from_slice(records);
        let body = if raw.is_empty() { Vec::new() } else { zstd::bulk::compress(&raw, 1)? };
        self.offset_count = u32::try_from(places.len()).map_err(std::io::Error::other)?;
        self.raw_len = u32::try_from(raw.len()).map_err(std::io::Error::other)?;
        self.body_len = u32::try_from(body.len()).map_err(std::io::Error::other)?;
        self.body_checksum = checksum(&body);
        Ok(body)
    }

    /// Is this the body that was written?
    pub(super) fn matches(&self, body: &[u8]) -> bool {
        body.len() == self.body_len as usize && checksum(body) == self.body_checksum
    }

    /// Where everyone stands after this frame. `None` where the body is damaged.
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

    /// The records of this frame. `None` where the body is damaged.
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

/// One piece of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) stream: Stream,
    pub(super) at: Timestamp,
    /// It is the first piece of its line.
    pub(super) begins: bool,
    /// It is the last one. (A line whose last piece does not say so ends where another begins.)
    pub(super) ends: bool,
    /// With `lane`: the line goes on with one that was cut, by its length or by another stream.
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

/// Finds damage, not forgery: who can write here can also forge.
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
    fn a_frame_reads_what_it_wrote() {
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
    fn a_frame_follows_only_where_the_one_before_ended() {
        let (first, _) = sample();
        assert!(first.follows(None) && !first.follows(Some(&first)));
        let second = Header { records_before: 1, lines_before: 1, text_before: 16, ..first };
        assert!(second.follows(Some(&first)) && !second.follows(None));
    }

    #[test]
    fn numbers_at_their_ends_do_no_harm() {
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
    fn any_flipped_bit_is_noticed() {
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
