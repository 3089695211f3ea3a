//! Whether the clock may be trusted to remove old data. A clock that jumps ahead makes everything look old at once, so the
//! removal waits for a second look.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// The longest step between two looks that needs no explanation: looks are an hour apart, and a restart may take a while.
const LONGEST_STEP: Duration = Duration::from_secs(24 * 60 * 60);

/// How long the clock must go on regularly after a jump, until it is trusted again.
const CONFIRMED_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// The looks at the clock so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockCheck {
    last_look: Timestamp,
    suspicion: Option<ClockSuspicion>,
}

/// Why the clock is not trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockSuspicion {
    /// The first look after the jump.
    pub since: Timestamp,
    /// The length of the jump; none for the first look of a store, because nothing is known of the clock before.
    pub jump: Option<Duration>,
}

impl ClockSuspicion {
    /// When the clock will be trusted, if it goes on regularly.
    #[must_use]
    pub fn ends_at(&self) -> Timestamp {
        self.since + CONFIRMED_AFTER
    }
}

impl ClockCheck {
    /// The next look at the clock.
    #[must_use]
    pub fn look(previous: Option<Self>, now: Timestamp) -> Self {
        let suspicion = match previous {
            None => Some(ClockSuspicion { since: now, jump: None }),
            Some(previous) => {
                let step = now.since(previous.last_look);
                // A clock that goes back corrects an earlier jump.
                let still_waits = |earlier: &ClockSuspicion| now >= previous.last_look && now < earlier.ends_at();
                let earlier = previous.suspicion.filter(still_waits);
                if step > LONGEST_STEP { Some(ClockSuspicion { since: now, jump: Some(step) }) } else { earlier }
            }
        };
        Self { last_look: now, suspicion }
    }

    /// Why the clock is not trusted; none if it is.
    #[must_use]
    pub fn suspicion(&self) -> Option<ClockSuspicion> {
        self.suspicion
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000;

    fn after(looks: &[u64]) -> ClockCheck {
        let mut check = None;
        for hours in looks {
            check = Some(ClockCheck::look(check, Timestamp(hours * HOUR)));
        }
        check.unwrap()
    }

    fn is_trusted(looks: &[u64]) -> bool {
        after(looks).suspicion().is_none()
    }

    #[test]
    fn a_clock_is_trusted_after_a_day_of_regular_looks() {
        assert!(!is_trusted(&[0]));
        assert!(!is_trusted(&[0, 1, 2, 23]));
        assert!(is_trusted(&[0, 1, 23, 24]));
        assert!(is_trusted(&[0, 24, 48]), "a server that was off for a day");
        let first = after(&[5]).suspicion().unwrap();
        assert_eq!((first.ends_at(), first.jump), (Timestamp(29 * HOUR), None));
    }

    #[test]
    fn a_jump_ahead_waits_for_a_second_look() {
        let jumped = after(&[0, 24, 24 + 200 * 24]).suspicion().unwrap();
        assert_eq!(jumped.jump, Some(Duration::from_secs(200 * 24 * 3_600)));
        assert!(!is_trusted(&[0, 24, 5_000, 5_023]));
        assert!(is_trusted(&[0, 24, 5_000, 5_023, 5_024]));
        assert!(!is_trusted(&[0, 24, 5_000, 9_000]), "a second jump does not confirm the first one");
    }

    #[test]
    fn a_clock_that_goes_back_corrects_a_jump() {
        assert!(is_trusted(&[0, 24, 5_000, 25]));
        assert!(is_trusted(&[0, 24, 23]), "an earlier time makes nothing look old");
    }
}
