//! Output formats of commands.

/// For people or for programs. In both, data goes to stdout and messages go to stderr.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Output {
    /// Text for people; the format may change in any version
    #[default]
    Table,
    /// JSON for programs; fields may be added, but not removed
    Json,
}
