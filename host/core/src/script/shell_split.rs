//! Splits a shell script into commands.
//!
//! This is not a shell parser: it only finds the newlines at which no construct is open. If it is not sure, it gives up instead
//! of guessing: a line inserted into the middle of a construct would change the script, whereas a missing announcement is
//! harmless.

/// The commands of `text`, each from its first character to the end of its last line, without the blank lines between them. If
/// a part cannot be parsed, everything from there on is one command.
pub(super) fn commands(text: &str) -> Vec<&str> {
    let mut commands = Vec::new();
    let mut scanner = Scanner {
        text,
        rest: text,
        open: Vec::new(),
        here_documents: Vec::new(),
        leading: true,
        in_word: false,
        continues: false,
    };
    loop {
        scanner.skip_blank();
        let begin = scanner.rest;
        if begin.is_empty() {
            return commands;
        }
        let understood = scanner.command();
        let length = begin.len() - scanner.rest.len();
        let command = if understood { begin.get(..length).unwrap_or(begin) } else { begin };
        commands.push(command.trim_end_matches('\n'));
        if !understood {
            return commands;
        }
    }
}

/// A construct that must be closed before a command can end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Open {
    If,
    Loop,
    Case,
    Brace,
    Paren,
    /// `$(`, inside or outside double quotes.
    Substitution,
    Quotes,
}

/// A here-document whose body begins after this line.
#[derive(Debug)]
struct HereDocument {
    end: String,
    strip_tabs: bool,
    /// The delimiter has no quotes, so the shell expands the body.
    is_expanded: bool,
}

struct Scanner<'a> {
    text: &'a str,
    /// The part of `text` that is left.
    rest: &'a str,
    open: Vec<Open>,
    here_documents: Vec<HereDocument>,
    /// The next word may be a reserved word.
    leading: bool,
    /// The text before `rest` belongs to a word that goes on: `"$PWD"` in `"$PWD"#default`.
    in_word: bool,
    /// The line ended in `|`, `&&`, `||` or `name()`, so the command continues.
    continues: bool,
}

impl<'a> Scanner<'a> {
    fn skip_blank(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\n']);
    }

    /// Advances to the end of the command; false if the end cannot be found.
    fn command(&mut self) -> bool {
        self.leading = true;
        self.in_word = false;
        self.continues = false;
        while let Some(next) = self.rest.chars().next() {
            let understood = if self.open.last() == Some(&Open::Quotes) { self.quoted(next) } else { self.plain(next) };
            match understood {
                Some(true) => return true,
                Some(false) => {}
                None => return false,
            }
        }
        self.open.is_empty() && self.here_documents.is_empty()
    }

    /// Processes one token inside double quotes.
    fn quoted(&mut self, next: char) -> Option<bool> {
        match next {
            '"' => {
                self.open.pop();
                self.in_word = true;
                self.skip(1)?;
            }
            '\\' => self.skip_escaped()?,
            '$' => self.dollar()?,
            '`' => self.skip_past('`')?,
            _ => self.skip(next.len_utf8())?,
        }
        Some(false)
    }

    /// Processes one token outside quotes; `Some(true)` at the end of the command.
    fn plain(&mut self, next: char) -> Option<bool> {
        match next {
            // A comment begins only where a word could begin.
            '#' if !self.in_word => {
                self.rest = self.rest.get(self.rest.find('\n').unwrap_or(self.rest.len())..)?;
                return Some(false);
            }
            '\n' | ' ' | '\t' | ';' | '&' | '|' | '(' | ')' | '<' | '>' => self.in_word = false,
            _ => {}
        }
        match next {
            '\n' => return self.newline(),
            ' ' | '\t' => self.skip(1)?,
            '\\' if self.rest.starts_with("\\\n") => self.skip_escaped_newline()?,
            ';' => {
                self.skip(1)?;
                self.leading = true;
            }
            '&' | '|' => {
                // `|&` is bash's pipe for both streams.
                let double = self.rest.get(1..2) == Some(self.rest.get(..1)?) || self.rest.starts_with("|&");
                self.continues = double || next == '|';
                self.skip(if double { 2 } else { 1 })?;
                self.leading = true;
            }
            '(' | ')' => self.paren(next)?,
            '<' | '>' => self.redirect()?,
            _ => self.word()?,
        }
        Some(false)
    }

    fn newline(&mut self) -> Option<bool> {
        self.skip(1)?;
        self.leading = true;
        for here in std::mem::take(&mut self.here_documents) {
            self.skip_body(&here)?;
        }
        Some(self.open.is_empty() && !self.continues)
    }

    fn skip_body(&mut self, here: &HereDocument) -> Option<()> {
        loop {
            let (line, rest) = match self.rest.split_once('\n') {
                Some(parts) => parts,
                None => (self.rest, ""),
            };
            let ended = here.end == if here.strip_tabs { line.trim_start_matches('\t') } else { line };
            if (self.rest.is_empty() || here.is_expanded && continues_on_next_line(line)) && !ended {
                return None;
            }
            self.rest = rest;
            if ended {
                return Some(());
            }
        }
    }

    fn paren(&mut self, next: char) -> Option<()> {
        self.skip(1)?;
        self.leading = true;
        self.continues = false;
        if next == '(' {
            let blanks = self.rest.len() - self.rest.trim_start_matches([' ', '\t']).len();
            if self.rest.get(blanks..)?.starts_with(')') {
                // `name()`: the function's body follows on this line or a later one.
                self.continues = true;
                return self.skip(blanks + 1);
            }
            self.open.push(Open::Paren);
            return Some(());
        }
        match self.open.last()? {
            // The end of a `case` pattern; commands follow.
            Open::Case => return Some(()),
            Open::Substitution => {
                self.open.pop();
                (self.leading, self.in_word) = (false, true);
            }
            Open::Paren => {
                self.open.pop();
                // In a `case`, `(pattern)` was closed and commands follow; elsewhere operators follow.
                self.leading = self.open.last() == Some(&Open::Case);
            }
            _ => return None,
        }
        Some(())
    }

    fn redirect(&mut self) -> Option<()> {
        let operator = self.rest.len() - self.rest.trim_start_matches(['<', '>', '&', '|']).len();
        let text = self.rest.get(..operator)?;
        self.skip(operator)?;
        self.leading = false;
        if text != "<<" {
            return Some(());
        }
        let strip_tabs = self.rest.starts_with('-');
        self.skip(usize::from(strip_tabs))?;
        self.rest = self.rest.trim_start_matches([' ', '\t']);
        let length = self.rest.find([' ', '\t', '\n', ';', '&', '|', '<', '>', '(', ')']).unwrap_or(self.rest.len());
        let word = self.rest.get(..length)?;
        let end: String = word.chars().filter(|c| !matches!(c, '\'' | '"' | '\\')).collect();
        // A delimiter with a quoted blank or an expansion is rare and not supported.
        let simple = word.matches('\'').count() % 2 == 0 && word.matches('"').count() % 2 == 0 && !word.contains(['$', '`']);
        if end.is_empty() || !simple || word.ends_with('\\') {
            return None;
        }
        let is_expanded = end == word;
        self.here_documents.push(HereDocument { end, strip_tabs, is_expanded });
        self.skip(length)
    }

    /// Processes a word. Quotes and substitutions in it may stay open for the next tokens.
    fn word(&mut self) -> Option<()> {
        (self.continues, self.in_word) = (false, true);
        let begin = self.rest;
        while let Some(next) = self.rest.chars().next() {
            match next {
                ' ' | '\t' | '\n' | ';' | '&' | '|' | '(' | ')' | '<' | '>' => break,
                '\\' if self.rest.starts_with("\\\n") => self.skip_escaped_newline()?,
                '\\' => self.skip_escaped()?,
                '\'' => {
                    self.skip(1)?;
                    self.skip_past_plain('\'')?;
                }
                '"' => {
                    self.skip(1)?;
                    self.open.push(Open::Quotes);
                    self.leading = false;
                    return Some(());
                }
                '`' => self.skip_past('`')?,
                '$' => {
                    let depth = self.open.len();
                    self.dollar()?;
                    if self.open.len() > depth {
                        return Some(());
                    }
                }
                _ => self.skip(next.len_utf8())?,
            }
        }
        let word = begin.get(..begin.len() - self.rest.len())?;
        self.reserved(word.trim_end_matches("\\\n"))
    }

    fn reserved(&mut self, word: &str) -> Option<()> {
        if !std::mem::take(&mut self.leading) {
            return Some(());
        }
        let close = |open: &mut Vec<Open>, wanted| (open.pop()? == wanted).then_some(());
        match word {
            "if" => self.open.push(Open::If),
            "while" | "until" | "for" | "select" => self.open.push(Open::Loop),
            "case" => self.open.push(Open::Case),
            "{" => self.open.push(Open::Brace),
            "fi" => return close(&mut self.open, Open::If),
            "done" => return close(&mut self.open, Open::Loop),
            "esac" => return close(&mut self.open, Open::Case),
            "}" => return close(&mut self.open, Open::Brace),
            "then" | "do" | "else" | "elif" | "!" => {}
            // Not in POSIX, and they change the grammar of what follows.
            "function" | "[[" | "((" | "coproc" | "time" => return None,
            _ => return Some(()),
        }
        self.leading = !matches!(word, "for" | "select" | "case");
        Some(())
    }

    /// Processes `$` and the construct that it opens.
    fn dollar(&mut self) -> Option<()> {
        self.skip(1)?;
        if self.rest.starts_with("\\\n") {
            return None;
        }
        if self.rest.starts_with("((") {
            return self.skip_arithmetic();
        }
        match self.rest.chars().next() {
            Some('(') => {
                self.open.push(Open::Substitution);
                self.leading = true;
                self.skip(1)
            }
            Some('{') => {
                let end = self.rest.find('}')?;
                let inside = self.rest.get(1..end)?;
                if inside.contains(['{', '\'', '"', '`', '\\', '\n', '(']) {
                    return None;
                }
                self.skip(end + 1)
            }
            // `$'…'` differs between shells.
            Some('\'') if self.open.last() != Some(&Open::Quotes) => None,
            _ => Some(()),
        }
    }

    fn skip_arithmetic(&mut self) -> Option<()> {
        let mut depth = 0_usize;
        for (at, c) in self.rest.char_indices() {
            match c {
                '(' => depth += 1,
                ')' => depth -= 1,
                '\'' | '"' | '`' | '\\' => return None,
                _ => {}
            }
            if depth == 0 {
                return self.skip(at + 1);
            }
        }
        None
    }

    /// Skips a newline that the shell removes. `None` if it joins what is before it with what is after it, for example the two
    /// halves of an operator or of a reserved word.
    fn skip_escaped_newline(&mut self) -> Option<()> {
        let is_blank = |c: Option<char>| c.is_none_or(|c| matches!(c, ' ' | '\t' | '\n'));
        let before = self.text.get(..self.text.len() - self.rest.len())?.chars().next_back();
        self.skip(2)?;
        (is_blank(before) || is_blank(self.rest.chars().next())).then_some(())
    }

    fn skip_escaped(&mut self) -> Option<()> {
        self.skip(1)?;
        let length = self.rest.chars().next().map_or(0, char::len_utf8);
        self.skip(length)
    }

    /// Skips from an opening character past its closing one; a backslash escapes a character.
    fn skip_past(&mut self, end: char) -> Option<()> {
        self.skip(end.len_utf8())?;
        while let Some(next) = self.rest.chars().next() {
            match next {
                '\\' => self.skip_escaped()?,
                _ => self.skip(next.len_utf8())?,
            }
            if next == end {
                return Some(());
            }
        }
        None
    }

    fn skip_past_plain(&mut self, end: char) -> Option<()> {
        let at = self.rest.find(end)?;
        self.skip(at + end.len_utf8())
    }

    fn skip(&mut self, bytes: usize) -> Option<()> {
        self.rest = self.rest.get(bytes..)?;
        Some(())
    }
}

/// Whether the next line of an expanded here-document may belong to this one, so that it does not end the document: the newline
/// is escaped, or an expansion may be open.
fn continues_on_next_line(line: &str) -> bool {
    let escapes = line.len() - line.trim_end_matches('\\').len();
    let is_unbalanced = |open: char, close: char| line.matches(open).count() != line.matches(close).count();
    escapes % 2 == 1
        || line.matches('`').count() % 2 == 1
        || line.contains("$(") && is_unbalanced('(', ')')
        || line.contains("${") && is_unbalanced('{', '}')
}

#[cfg(test)]
mod tests {
    use super::commands;

    #[test]
    fn a_command_ends_when_no_construct_is_open() {
        let cases: [(&str, &[&str]); 32] = [
            ("", &[]),
            ("\n\n  \n", &[]),
            ("a\nb\n", &["a", "b"]),
            ("a \\\n  b\nc", &["a \\\n  b", "c"]),
            ("a |\n\n b\nc", &["a |\n\n b", "c"]),
            ("a &&\nb ||\nc &\nd", &["a &&\nb ||\nc &", "d"]),
            ("echo 'x\ny'\nz", &["echo 'x\ny'", "z"]),
            ("echo \"x\ny $(a\nb \"q\") \\\" \"\nz", &["echo \"x\ny $(a\nb \"q\") \\\" \"", "z"]),
            ("if a; then\n b\nelif c\nthen d; else\n e; fi\nz", &["if a; then\n b\nelif c\nthen d; else\n e; fi", "z"]),
            ("for x in a b; do\n echo $x\ndone\nz", &["for x in a b; do\n echo $x\ndone", "z"]),
            ("while read l\ndo\n :\ndone <f\nz", &["while read l\ndo\n :\ndone <f", "z"]),
            ("case $x in\n a|b) c;;\n (d) e ;;\n *)\n f\nesac\nz", &["case $x in\n a|b) c;;\n (d) e ;;\n *)\n f\nesac", "z"]),
            ("f() {\n a\n}\ng()\n{\n b\n}\nf", &["f() {\n a\n}", "g()\n{\n b\n}", "f"]),
            ("(\n a\n)\n{ b\n}\nc", &["(\n a\n)", "{ b\n}", "c"]),
            ("cat <<E\na 'b\nE\nz", &["cat <<E\na 'b\nE", "z"]),
            ("cat <<-'E' | tr a b\n\tx\n\tE\nz", &["cat <<-'E' | tr a b\n\tx\n\tE", "z"]),
            ("cat <<A <<B\n1\nA\n2\nB\nz", &["cat <<A <<B\n1\nA\n2\nB", "z"]),
            ("echo $((1<<2)) ${x:-y} `a b`\nz", &["echo $((1<<2)) ${x:-y} `a b`", "z"]),
            ("# it's\na # don't\nb", &["# it's", "a # don't", "b"]),
            ("echo if; echo done {\nz", &["echo if; echo done {", "z"]),
            ("a >f 2>&1 &\nz", &["a >f 2>&1 &", "z"]),
            ("echo x#y 'a'\"b\"c\nz", &["echo x#y 'a'\"b\"c", "z"]),
            (
                "nix build \"$PWD\"#default \\\n  --print-build-logs\nz",
                &["nix build \"$PWD\"#default \\\n  --print-build-logs", "z"],
            ),
            ("echo \"$(pwd)\"#'a\nb'\nz", &["echo \"$(pwd)\"#'a\nb'", "z"]),
            ("echo $(pwd)#'a\nb'\nz", &["echo $(pwd)#'a\nb'", "z"]),
            ("a;# don't\n(b)# don't\nz", &["a;# don't", "(b)# don't", "z"]),
            ("a \\\n# don't\nb 'x\ny'\nz", &["a \\\n# don't", "b 'x\ny'", "z"]),
            ("if\\\n a; then\\\n if b\n then c; fi\nfi\nz", &["if\\\n a; then\\\n if b\n then c; fi\nfi", "z"]),
            ("f ( )\n{ a\n}\nz", &["f ( )\n{ a\n}", "z"]),
            ("a |&\nb\nz", &["a |&\nb", "z"]),
            ("case x in\n x) $(echo echo) esac\n;;\nesac\nz", &["case x in\n x) $(echo echo) esac\n;;\nesac", "z"]),
            ("cat <<'E'\na\\\nE\nz", &["cat <<'E'\na\\\nE", "z"]),
        ];
        for (text, expected) in cases {
            assert_eq!(commands(text), expected, "{text}");
        }
    }

    #[test]
    fn text_that_cannot_be_parsed_stays_whole() {
        for text in [
            "echo 'x\ny",
            "if a\nb",
            "cat <<E\nx\ny",
            "cat <<\"a b\"\nx\na b\ny",
            "echo $'it\\'s'\nb",
            "[[ a =~ \\( ]]\nb",
            "function f {\n a\n}\nb",
            "}\na",
            ")\na",
            "echo ${x:-\"}\"}\nb",
            "a \\",
            "cat <<E\na\\\nE\nE\nb",
            "cat <<E\n$(a\nE\n)\nE\nb",
            "i\\\nf true; then\n a\nfi\nb",
            "cat <\\\n<E\na\nE\nb",
            "cat <<E\\\nF\na\nEF\nb",
            "g(\\\n)\n{ a\n}\nb",
            "echo \"$\\\n(echo \")\nb",
        ] {
            let all = format!("first\n{text}");
            assert_eq!(commands(&all), ["first", text], "{text}");
        }
    }
}
