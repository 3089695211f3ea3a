//! The tables. Keys are bytes in an order that makes the common reading a range: ids are UUIDv7 and so in the order of time.

use redb::TableDefinition;

/// All tables have this shape; what lies in them is told by the family that owns them.
pub type Table = TableDefinition<'static, &'static [u8], &'static [u8]>;

macro_rules! tables {
    ($($(#[$doc:meta])* $name:ident = $text:literal),+ $(,)?) => {
        $($(#[$doc])* pub const $name: Table = TableDefinition::new($text);)+
        /// Every table, so that opening a new file makes them all.
        pub const ALL: &[Table] = &[$($name),+];
    };
}

tables! {
    /// `instance` → its id; `key` → id of the key that seals; `schema` → number of the last migration.
    META = "meta",
    /// repository id → row.
    REPOSITORY = "repository",
    /// lower-case `owner/name` → repository id. The last one seen under the name.
    REPOSITORY_NAME = "repository_name",
    /// SHA-256 of a hook's key → repository id.
    HOOK = "hook",
    /// repository id, full ref → the commit it last recorded.
    LAST_SEEN_REF = "last_seen_ref",
    /// delivery id → row.
    DELIVERY = "delivery",
    /// delivery id → the signed JSON.
    DELIVERY_BODY = "delivery_body",
    /// repository id, kind of key, key → delivery id: who tells of the same twice.
    DELIVERY_SEEN = "delivery_seen",
    /// repository id, delivery id.
    DELIVERY_OF_REPOSITORY = "delivery_of_repository",
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
    /// repository id, branch → the last build of it that ran to an end.
    LAST_RUN = "last_run",
    /// build id, stage number → row.
    STAGE = "stage",
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
    /// binding, thread, sequence → notice id: those that are not settled, in line.
    NOTICE_OF_THREAD = "notice_of_thread",
    /// binding → why nothing goes through it.
    BINDING_HELD = "binding_held",
    /// binding, thread → what the notifier returned last.
    RECEIPT = "receipt",
    /// binding, thread → the last sequence number given.
    NOTICE_SEQUENCE = "notice_sequence",
    /// plugin, binding, key → value with revision.
    KV = "kv",
    /// place → sealed value.
    SEALED = "sealed",
    /// SHA-256 of a session's token → row.
    SESSION = "session",
    /// delivery id → attempts, whose turn it takes, and when next. The other queues are made alike.
    DELIVERY_QUEUE = "delivery_queue",
    /// build id.
    PREPARE_QUEUE = "prepare_queue",
    /// build id, stage number.
    RUN_QUEUE = "run_queue",
    /// binding, thread.
    NOTICE_QUEUE = "notice_queue",
    /// queue, whose turn, when next, id: the rows of a queue in the order in which they are taken.
    QUEUE_OF_TURN = "queue_of_turn",
    /// Nothing, but while a file that failed is tried.
    PROBE = "probe",
}

/// Puts parts of a key one after the other. Texts are ended by a zero byte, which no text of ours contains.
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

/// The id that ends a key made by [`Key::id`].
pub(super) fn last_id(key: &[u8]) -> Option<uuid::Uuid> {
    let at = key.len().checked_sub(16)?;
    uuid::Uuid::from_slice(key.get(at..)?).ok()
}
