//! The tables. The byte order of their keys makes the frequent reads range scans: ids are UUIDv7, so they sort by time.

use redb::TableDefinition;

/// The type of every table. The module that owns a table defines its content.
pub type Table = TableDefinition<'static, &'static [u8], &'static [u8]>;

macro_rules! tables {
    ($($(#[$doc:meta])* $name:ident = $text:literal),+ $(,)?) => {
        $($(#[$doc])* pub const $name: Table = TableDefinition::new($text);)+
        /// All tables. Opening a store creates the missing ones.
        pub const ALL: &[Table] = &[$($name),+];
    };
}

tables! {
    /// `instance` → the instance's id; `key` → id of the encryption key; `format` → number of the store's format;
    /// `clock` → the last look at the clock.
    META = "meta",
    /// repository id → row.
    REPOSITORY = "repository",
    /// lower-case `owner/name` → id of the repository last seen under this name.
    REPOSITORY_NAME = "repository_name",
    /// SHA-256 of a webhook's key → repository id.
    HOOK = "hook",
    /// repository id, full ref → the last recorded commit.
    LAST_SEEN_REF = "last_seen_ref",
    /// repository id, number → what is known about a pull request.
    PULL_REQUEST = "pull_request",
    /// delivery id → row.
    DELIVERY = "delivery",
    /// delivery id → the signed JSON.
    DELIVERY_BODY = "delivery_body",
    /// repository id, kind of key, key → id of the first delivery with this key: finds repeated deliveries.
    DELIVERY_SEEN = "delivery_seen",
    /// repository id, delivery id.
    DELIVERY_OF_REPOSITORY = "delivery_of_repository",
    /// outcome, delivery id.
    DELIVERY_OF_OUTCOME = "delivery_of_outcome",
    /// build id → row.
    BUILD = "build",
    /// repository id, number → build id.
    BUILD_NUMBER = "build_number",
    /// repository id, build id.
    BUILD_OF_REPOSITORY = "build_of_repository",
    /// status, build id.
    BUILD_OF_STATUS = "build_of_status",
    /// repository id, status, build id.
    BUILD_OF_REPOSITORY_STATUS = "build_of_repository_status",
    /// repository id, branch → id of the branch's last finished build in which a stage ran.
    LAST_RUN = "last_run",
    /// build id, stage number → row.
    STAGE = "stage",
    /// build id, stage number → the parts of the row on which the status of the build depends.
    STAGE_SUMMARY = "stage_summary",
    /// decision id → row.
    DECISION = "decision",
    /// build id, decision id.
    DECISION_OF_BUILD = "decision_of_build",
    /// notice id → row.
    NOTICE = "notice",
    /// build id, notice id.
    NOTICE_OF_BUILD = "notice_of_build",
    /// state, notice id.
    NOTICE_OF_STATE = "notice_of_state",
    /// binding, name, sequence → id of an unfinished notice. Notices of one ordering key (binding, name) are sent in this order.
    UNFINISHED_NOTICE = "unfinished_notice",
    /// binding → why the notifier is suspended, and how far its notices reflect that.
    SUSPENDED_BINDING = "suspended_binding",
    /// binding → the builds whose notices the notifier has refused since it last delivered one.
    REFUSALS = "refusals",
    /// binding, name → the notifier's last receipt.
    RECEIPT = "receipt",
    /// binding, name → the last sequence number assigned.
    NOTICE_SEQUENCE = "notice_sequence",
    /// plugin, binding, key → value with revision.
    KV = "kv",
    /// repository id, name → row.
    SCHEDULE = "schedule",
    /// repository id → id of the build whose pipeline files defined the schedules last.
    SCHEDULE_SOURCE = "schedule_source",
    /// scope, name → encrypted secret.
    SECRET = "secret",
    /// SHA-256 of a session's token → row.
    SESSION = "session",
    /// delivery id → queue entry: attempts, fairness key, time of the next attempt. The other queues have the same layout.
    DELIVERY_QUEUE = "delivery_queue",
    /// build id.
    PREPARE_QUEUE = "prepare_queue",
    /// build id, stage number.
    RUN_QUEUE = "run_queue",
    /// binding, name.
    NOTICE_QUEUE = "notice_queue",
    /// repository id, name.
    SCHEDULE_QUEUE = "schedule_queue",
    /// queue, fairness key, time of the next attempt, id: the entries of a queue in the order of execution.
    QUEUE_ORDER = "queue_order",
    /// Empty, except while the writer checks that a failed disk accepts writes again.
    PROBE = "probe",
}

/// Builds a key by concatenation. A text ends with a zero byte; zero bytes within a text are dropped.
#[derive(Debug, Clone, Default)]
pub struct Key(Vec<u8>);

impl Key {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    #[must_use]
    pub fn id(mut self, id: uuid::Uuid) -> Self {
        self.0.extend_from_slice(id.as_bytes());
        self
    }

    #[must_use]
    pub fn byte(mut self, byte: u8) -> Self {
        self.0.push(byte);
        self
    }

    #[must_use]
    pub fn u16(mut self, number: u16) -> Self {
        self.0.extend_from_slice(&number.to_be_bytes());
        self
    }

    #[must_use]
    pub fn u64(mut self, number: u64) -> Self {
        self.0.extend_from_slice(&number.to_be_bytes());
        self
    }

    #[must_use]
    pub fn text(mut self, text: &str) -> Self {
        self.0.extend(text.bytes().filter(|byte| *byte != 0));
        self.0.push(0);
        self
    }

    #[must_use]
    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.0
    }
}

/// The id at the end of a key that was built with [`Key::id`].
pub(super) fn last_id(key: &[u8]) -> Option<uuid::Uuid> {
    let at = key.len().checked_sub(16)?;
    uuid::Uuid::from_slice(key.get(at..)?).ok()
}
