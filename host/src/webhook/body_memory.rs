//! Memory budgets ("rooms") for the bodies of deliveries, in bytes.
//!
//! A body whose key is known takes its beginning from a reserve and the rest from the room for large bodies. In both, one key
//! gets only a part, so the owner of a webhook cannot keep out the deliveries of another one. All unknown keys share one small
//! room, so an attacker without a key cannot keep out any delivery.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use beespace_core::digest::Digest;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The beginning of a body, which comes from the reserve. The payload of a usual push is a few KiB long.
const BEGINNING_BYTES: usize = 256 << 10;
/// The beginnings of all bodies with a known key.
const RESERVE_BYTES: usize = 32 << 20;
/// The beginnings of the bodies of one key.
const RESERVE_BYTES_PER_KEY: usize = 4 << 20;
/// The rest of all bodies with a known key, after their beginnings.
const LARGE_BYTES: usize = 64 << 20;
/// The rest of the bodies of one key: two of the longest bodies.
const LARGE_BYTES_PER_KEY: usize = 20 << 20;
/// All bodies with an unknown key: one of the longest fits.
const UNKNOWN_BYTES: usize = 16 << 20;

/// The rooms of a server.
#[derive(Debug)]
pub(super) struct BodyRooms {
    known: Room,
    unknown: Arc<Semaphore>,
    /// The parts of the keys that have a body in memory.
    keys: Mutex<HashMap<Digest, Weak<Room>>>,
}

/// Room for the beginnings of bodies, and for what follows them.
#[derive(Debug)]
struct Room {
    reserve: Arc<Semaphore>,
    large: Arc<Semaphore>,
}

impl Room {
    fn new(reserve: usize, large: usize) -> Self {
        Self { reserve: Arc::new(Semaphore::new(reserve)), large: Arc::new(Semaphore::new(large)) }
    }
}

impl Default for BodyRooms {
    fn default() -> Self {
        Self {
            known: Room::new(RESERVE_BYTES, LARGE_BYTES),
            unknown: Arc::new(Semaphore::new(UNKNOWN_BYTES)),
            keys: Mutex::default(),
        }
    }
}

impl BodyRooms {
    /// Room for a body whose key is known.
    pub(super) fn of_key(&self, key: Digest) -> BodyRoom {
        let part = self.part_of(key);
        BodyRoom {
            length: 0,
            beginning: vec![Share::new(&part.reserve), Share::new(&self.known.reserve)],
            rest: vec![Share::new(&part.large), Share::new(&self.known.large)],
            _part: Some(part),
        }
    }

    /// Room for a body whose key is unknown.
    pub(super) fn of_unknown_key(&self) -> BodyRoom {
        let share = || vec![Share::new(&self.unknown)];
        BodyRoom { length: 0, beginning: share(), rest: share(), _part: None }
    }

    /// The part of one key. Bodies that are in memory at the same time share it.
    fn part_of(&self, key: Digest) -> Arc<Room> {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(part) = keys.get(&key).and_then(Weak::upgrade) {
            return part;
        }
        keys.retain(|_, part| part.strong_count() > 0);
        let part = Arc::new(Room::new(RESERVE_BYTES_PER_KEY, LARGE_BYTES_PER_KEY));
        keys.insert(key, Arc::downgrade(&part));
        part
    }
}

/// No room is left for a body.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NoRoom;

/// The room that one body takes, until it is dropped.
#[derive(Debug)]
pub(super) struct BodyRoom {
    length: usize,
    beginning: Vec<Share>,
    rest: Vec<Share>,
    /// Keeps the part of its key.
    _part: Option<Arc<Room>>,
}

impl BodyRoom {
    /// Takes room for the next `bytes` of the body.
    ///
    /// # Errors
    /// [`NoRoom`]; nothing is waited for, because the sender would time out.
    pub(super) fn grow(&mut self, bytes: usize) -> Result<(), NoRoom> {
        let of_beginning = BEGINNING_BYTES.saturating_sub(self.length).min(bytes);
        self.length = self.length.saturating_add(bytes);
        let beginning = self.beginning.iter_mut().map(|share| (share, of_beginning));
        let rest = self.rest.iter_mut().map(|share| (share, bytes - of_beginning));
        beginning.chain(rest).try_for_each(|(share, bytes)| share.grow(bytes))
    }
}

/// The share of one body in one room.
#[derive(Debug)]
struct Share {
    room: Arc<Semaphore>,
    taken: Option<OwnedSemaphorePermit>,
}

impl Share {
    fn new(room: &Arc<Semaphore>) -> Self {
        Self { room: Arc::clone(room), taken: None }
    }

    fn grow(&mut self, bytes: usize) -> Result<(), NoRoom> {
        let bytes = u32::try_from(bytes).map_err(|_| NoRoom)?;
        let more = Arc::clone(&self.room).try_acquire_many_owned(bytes).map_err(|_| NoRoom)?;
        match &mut self.taken {
            Some(taken) => taken.merge(more),
            None => self.taken = Some(more),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST: usize = 10 << 20;

    fn key(name: &str) -> Digest {
        Digest::of(name)
    }

    fn body(mut room: BodyRoom, bytes: usize) -> Result<BodyRoom, NoRoom> {
        room.grow(bytes).map(|()| room)
    }

    #[test]
    fn bodies_with_unknown_keys_keep_out_only_each_other() {
        let rooms = BodyRooms::default();
        let held = body(rooms.of_unknown_key(), LONGEST).unwrap();
        assert!(body(rooms.of_unknown_key(), LONGEST).is_err());
        let crowd: Vec<_> = std::iter::from_fn(|| body(rooms.of_unknown_key(), 1 << 10).ok()).collect();
        assert_eq!(crowd.len(), (UNKNOWN_BYTES - LONGEST) >> 10);
        let real: Vec<_> = (0..4).map(|n| body(rooms.of_key(key(&n.to_string())), LONGEST).unwrap()).collect();
        drop((held, crowd, real));
        assert!(body(rooms.of_unknown_key(), LONGEST).is_ok());
    }

    #[test]
    fn one_key_keeps_out_no_other_key() {
        let rooms = BodyRooms::default();
        let large: Vec<_> = std::iter::from_fn(|| body(rooms.of_key(key("a")), LONGEST).ok()).collect();
        assert_eq!(large.len(), 2);
        let small: Vec<_> = std::iter::from_fn(|| body(rooms.of_key(key("a")), BEGINNING_BYTES).ok()).collect();
        assert!(!small.is_empty(), "large bodies leave the reserve to small ones");
        assert!(small.len() + large.len() <= RESERVE_BYTES_PER_KEY / BEGINNING_BYTES);
        assert!(body(rooms.of_key(key("b")), LONGEST).is_ok());
    }

    #[test]
    fn many_large_bodies_leave_the_reserve_to_small_ones() {
        let rooms = BodyRooms::default();
        let large: Vec<_> = (0..).map_while(|n| body(rooms.of_key(key(&format!("{n}"))), LONGEST).ok()).collect();
        assert!((6..=7).contains(&large.len()), "{}", large.len());
        assert!(body(rooms.of_key(key("late")), LONGEST).is_err());
        assert!(body(rooms.of_key(key("late")), BEGINNING_BYTES).is_ok());
    }

    #[test]
    fn a_body_counts_the_same_in_one_piece_and_in_many() {
        let rooms = BodyRooms::default();
        let mut room = rooms.of_key(key("a"));
        for _ in 0..LONGEST / 1_000 {
            room.grow(1_000).unwrap();
        }
        let left = rooms.known.large.available_permits();
        assert_eq!(LARGE_BYTES - left, LONGEST / 1_000 * 1_000 - BEGINNING_BYTES);
        drop(room);
        assert_eq!(rooms.known.large.available_permits(), LARGE_BYTES);
        drop(rooms.of_key(key("b")));
        assert_eq!(rooms.keys.lock().unwrap().len(), 1, "the part of a key without bodies is forgotten");
    }
}
