//! The names of the queues.

/// A queue. Each has one worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Queue {
    /// Deliveries that have not been processed.
    Delivery,
    /// Builds that have to be prepared: source, pipeline, plans.
    Prepare,
    /// Stages that may run, and running stages.
    Run,
    /// Ordering keys with a notice to send.
    Notice,
    /// Schedules that wait for their next time.
    Schedule,
}

impl Queue {
    pub const ALL: [Self; 5] = [Self::Delivery, Self::Prepare, Self::Run, Self::Notice, Self::Schedule];
    pub const COUNT: usize = Self::ALL.len();

    /// The queue's name in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Delivery => "delivery",
            Self::Prepare => "prepare",
            Self::Run => "run",
            Self::Notice => "notice",
            Self::Schedule => "schedule",
        }
    }
}
