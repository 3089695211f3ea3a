//! The form in which a command says what it has to say.

/// For people or for programs. Data goes to stdout in either, words about it to stderr.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Output {
    /// Text, for people; may change with any version.
    #[default]
    Table,
    /// JSON, for programs; fields are only added.
    Json,
}
