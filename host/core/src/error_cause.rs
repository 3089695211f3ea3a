//! The cause of an error as text for people.

use std::error::Error;
use std::iter::successors;

/// The text for an error without one.
const NO_CAUSE: &str = "no cause is known";

/// The text of the innermost error, which is the most specific one: `Connection refused` of `client error: tcp connect error:
/// Connection refused (os error 111)`. The system's number is left out. The text is never empty, so no message ends with a colon.
#[must_use]
pub fn root_cause(error: &(dyn Error + 'static)) -> String {
    let texts = successors(Some(error), |&error| error.source()).map(|error| without_number(&error.to_string()).to_owned());
    texts.filter(|text| !text.is_empty()).last().unwrap_or_else(|| NO_CAUSE.to_owned())
}

/// A text of the system without its error number, ` (os error 2)`.
fn without_number(text: &str) -> &str {
    text.split_once(" (os error ").map_or(text, |(text, _)| text).trim()
}

/// The end of a message that another program may have explained: `: TEXT`, or nothing if the text is empty.
#[must_use]
pub fn colon(text: &str) -> String {
    let text = text.trim();
    if text.is_empty() { String::new() } else { format!(": {text}") }
}

#[cfg(test)]
mod tests {
    use std::fmt;
    use std::io;

    use super::*;

    #[derive(Debug)]
    struct Outer(&'static str, Option<io::Error>);

    impl fmt::Display for Outer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    impl Error for Outer {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            self.1.as_ref().map(|error| error as &(dyn Error + 'static))
        }
    }

    #[test]
    fn the_cause_is_the_innermost_text_without_the_system_s_number() {
        let refused = || Some(io::Error::from_raw_os_error(111));
        assert_eq!(root_cause(&Outer("tcp connect error", refused())), "Connection refused");
        assert_eq!(root_cause(&Outer("outer", Some(io::Error::other("")))), "outer");
        assert_eq!(root_cause(&Outer(" ", None)), NO_CAUSE);
    }

    #[test]
    fn a_message_never_ends_with_a_colon() {
        assert_eq!((colon("no space"), colon(" \n")), (": no space".to_owned(), String::new()));
    }
}
