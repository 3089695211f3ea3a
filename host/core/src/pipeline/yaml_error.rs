//! The YAML parser's errors in words for people who write pipeline files, with the remedy for common mistakes.

use granit_parser::{ErrorKind, ScanError};

use super::diagnostics::quote;

/// A message and its remedy.
type Explanation = (String, Option<&'static str>);

const QUOTE_IT: &str = "quote the text";

/// The message for a syntax error, and its remedy. `depth` is the deepest nesting that is allowed.
pub(super) fn explain(error: &ScanError, depth: usize) -> Explanation {
    let kind = error.kind();
    if *kind == ErrorKind::RecursionLimitExceeded {
        return (format!("lists and maps are nested deeper than {depth}"), None);
    }
    let known = of_structure(kind).or_else(|| of_brackets(kind)).or_else(|| of_text(kind));
    known.unwrap_or_else(|| (format!("invalid YAML: {}", error.info()), None))
}

/// Indentation, keys and list entries.
fn of_structure(kind: &ErrorKind) -> Option<Explanation> {
    let (message, help) = match kind {
        ErrorKind::TabInBlockIndentation
        | ErrorKind::TabInIndentation
        | ErrorKind::TabNotAllowed
        | ErrorKind::TabAtBlockScalarStart
        | ErrorKind::TabInPlainScalar => ("the indentation contains a tab", Some("use spaces")),
        ErrorKind::MappingValueNotAllowed => ("unexpected `:`", Some("quote text that contains `: `, and check the indentation")),
        ErrorKind::SimpleKeyExpected | ErrorKind::InvalidSimpleKey => (
            "this line is neither `key: value` nor an entry of a list",
            Some("add the `:` after a key or the `- ` before an entry; indent text that continues the line above"),
        ),
        ErrorKind::BlockSequenceEntryNotAllowed | ErrorKind::BlockEntryInFlowCollection => {
            ("an entry of a list (`- `) cannot begin here", Some("begin the list in the next line, or write it as `[a, b]`"))
        }
        ErrorKind::ExpectedBlockSequenceEntry | ErrorKind::ExpectedBlockMappingKey | ErrorKind::InvalidIndentation => {
            ("the indentation does not match the lines above", Some("entries of one list or map must begin in the same column"))
        }
        ErrorKind::InvalidBlockScalarHeader | ErrorKind::ZeroBlockScalarIndent => {
            ("only a comment may follow `|` or `>` on its line", Some("begin the text in the next line, and indent it"))
        }
        ErrorKind::InvalidQuotedScalarIndent | ErrorKind::InvalidFlowScalarIndent | ErrorKind::InvalidBlockScalarIndent => {
            ("a line of this text is not indented enough", Some("indent the text deeper than its key"))
        }
        _ => return None,
    };
    Some((message.to_owned(), help))
}

/// `[ ]` and `{ }`.
fn of_brackets(kind: &ErrorKind) -> Option<Explanation> {
    Some(match kind {
        ErrorKind::UnclosedFlowCollection { open } => (format!("this `{open}` is never closed"), None),
        ErrorKind::MismatchedFlowCollectionEnd { open, close } => {
            (format!("`{close}` cannot close the `{open}` before it"), None)
        }
        ErrorKind::MisplacedFlowCollectionEnd => ("this bracket closes nothing".to_owned(), Some(QUOTE_IT)),
        ErrorKind::InvalidColonPlacement | ErrorKind::ExpectedFlowSequenceSeparator | ErrorKind::ExpectedFlowMappingSeparator => {
            ("a list in `[ ]` or a map in `{ }` is not closed before this point".to_owned(), None)
        }
        _ => return None,
    })
}

/// Quotes, escapes, and characters with a meaning of their own.
fn of_text(kind: &ErrorKind) -> Option<Explanation> {
    let (message, help) = match kind {
        ErrorKind::UnexpectedCharacter { character } if character.is_control() => (
            format!("the control character {} is not allowed", quote(&character.to_string())),
            "write it as an escape in double quotes: `\"\\x07\"`",
        ),
        ErrorKind::UnexpectedCharacter { character } => {
            (format!("a value cannot begin with {}", quote(&character.to_string())), QUOTE_IT)
        }
        ErrorKind::UnclosedQuotedScalar => return Some(("this quote is never closed".to_owned(), None)),
        ErrorKind::InvalidTrailingSingleQuotedScalar | ErrorKind::InvalidTrailingDoubleQuotedScalar => {
            ("text follows the closing quote".to_owned(), "put all of it into one pair of quotes")
        }
        ErrorKind::UnknownQuotedScalarEscape | ErrorKind::InvalidQuotedScalarHexEscape => (
            "the text in double quotes has an unknown escape after `\\`".to_owned(),
            "use single quotes, or write `\\\\` for a backslash",
        ),
        ErrorKind::DocumentIndicatorInQuotedScalar => {
            ("a line of the quoted text begins with `---` or `...`".to_owned(), "indent the line")
        }
        ErrorKind::CommentInterceptedScalar => ("a comment interrupts this text".to_owned(), "move the comment"),
        ErrorKind::CommentNotSeparated => {
            ("a comment needs a blank before its `#`".to_owned(), "quote the text if the `#` belongs to it")
        }
        ErrorKind::MissingAnchorOrAliasName => ("the name after `&` or `*` is missing".to_owned(), QUOTE_IT),
        ErrorKind::UndeclaredTagHandle | ErrorKind::UnclosedVerbatimTag => {
            ("`!` begins a YAML tag; tags are not supported".to_owned(), QUOTE_IT)
        }
        _ => return None,
    };
    Some((message, Some(help)))
}
