//! Finds out which module of a crate uses which, by reading its source text. Unit tests do not count.
//!
//! Every path that begins with `crate`, `self` or `super` is a use, in a `use` item and in code. If a path names something that a
//! parent module has imported, it counts as a use of the module that the import comes from; otherwise a re-export would hide a
//! cycle.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// A path such as `engine::docker::client`, without the leading `crate`.
pub(crate) type ModulePath = Vec<String>;

/// Modules, and the modules that each of them uses.
pub(crate) type Edges = BTreeMap<String, BTreeSet<String>>;

/// The modules of a crate and the paths in them.
#[derive(Debug, Default)]
pub(crate) struct ModuleGraph {
    modules: BTreeSet<ModulePath>,
    /// The paths that each module uses.
    uses: BTreeMap<ModulePath, BTreeSet<ModulePath>>,
    /// The imports of each module: the name, and the path that it stands for.
    imports: BTreeMap<ModulePath, BTreeMap<String, ModulePath>>,
}

impl ModuleGraph {
    /// Reads all files under the `src` folder of a crate. `main.rs` is another crate and is left out.
    pub(crate) fn read(src: &Path) -> Self {
        let mut files = BTreeMap::new();
        collect_files(src, &mut files);
        Self::of(&files.into_iter().map(|(path, text)| (module_of(path.strip_prefix(src).unwrap()), text)).collect())
    }

    /// Builds the graph from modules and their source texts. The empty path is the crate root.
    pub(crate) fn of(sources: &BTreeMap<ModulePath, String>) -> Self {
        let mut graph = Self::default();
        let parsed: Vec<_> = sources.iter().map(|(module, text)| (module, Parser::new(module, text).parse())).collect();
        let test_files: BTreeSet<&ModulePath> = parsed.iter().flat_map(|(_, file)| &file.test_modules).collect();
        let is_tested = |module: &ModulePath| (1..=module.len()).any(|length| test_files.contains(&module[..length].to_vec()));
        let parsed: Vec<_> = parsed.iter().filter(|(module, _)| !is_tested(module)).collect();
        graph.modules = parsed.iter().map(|(module, _)| (*module).clone()).collect();
        for (module, file) in parsed {
            let absolute = |path: &ModulePath| graph.absolute(module, path);
            let uses = file.paths.iter().filter_map(absolute).collect();
            let imports = file.imports.iter().filter_map(|(name, path)| Some((name.clone(), absolute(path)?))).collect();
            graph.uses.insert((*module).clone(), uses);
            graph.imports.insert((*module).clone(), imports);
        }
        graph
    }

    /// The modules directly in `scope` (empty: in the crate) that use each other. Everything below such a module counts as that
    /// module.
    pub(crate) fn edges(&self, scope: &[&str]) -> Edges {
        let scope: ModulePath = scope.iter().map(|&part| part.to_owned()).collect();
        let child = |path: &ModulePath| {
            let name = path.strip_prefix(scope.as_slice())?.first()?.clone();
            let is_module = self.modules.contains(&[scope.as_slice(), std::slice::from_ref(&name)].concat());
            is_module.then_some(name)
        };
        let mut edges = Edges::new();
        for (module, uses) in &self.uses {
            let Some(from) = child(module) else { continue };
            let targets = uses.iter().filter_map(|path| child(path).or_else(|| child(&self.behind_import(&scope, path)?)));
            let others: BTreeSet<String> = targets.filter(|to| *to != from).collect();
            edges.entry(from).or_default().extend(others);
        }
        edges
    }

    /// The modules that consist of several files.
    pub(crate) fn folders(&self) -> Vec<Vec<&str>> {
        let parents = self.modules.iter().filter_map(|module| module.split_last()).map(|(_, parent)| parent);
        let folders: BTreeSet<Vec<&str>> =
            parents.filter(|parent| !parent.is_empty()).map(|parent| parent.iter().map(String::as_str).collect()).collect();
        folders.into_iter().collect()
    }

    /// The path of a name that `scope` has imported.
    fn behind_import(&self, scope: &ModulePath, path: &ModulePath) -> Option<ModulePath> {
        let name = path.strip_prefix(scope.as_slice())?.first()?;
        self.imports.get(scope)?.get(name).cloned()
    }

    /// The path from the crate root; `None` for a path into another crate.
    fn absolute(&self, module: &ModulePath, path: &ModulePath) -> Option<ModulePath> {
        let first = path.first()?;
        if first == "crate" {
            return Some(path[1..].to_vec());
        }
        let child = [module.as_slice(), std::slice::from_ref(first)].concat();
        self.modules.contains(&child).then(|| [module.as_slice(), path.as_slice()].concat())
    }
}

/// A cycle of modules; the first module is repeated at the end.
pub(crate) fn find_cycle(edges: &Edges) -> Option<Vec<String>> {
    let mut finished = BTreeSet::new();
    edges.keys().find_map(|start| follow(start, edges, &mut Vec::new(), &mut finished))
}

fn follow(module: &String, edges: &Edges, path: &mut Vec<String>, finished: &mut BTreeSet<String>) -> Option<Vec<String>> {
    if let Some(start) = path.iter().position(|earlier| earlier == module) {
        return Some([&path[start..], std::slice::from_ref(module)].concat());
    }
    if finished.contains(module) {
        return None;
    }
    path.push(module.clone());
    let found = edges.get(module).into_iter().flatten().find_map(|next| follow(next, edges, path, finished));
    path.pop();
    finished.insert(module.clone());
    found
}

fn collect_files(folder: &Path, files: &mut BTreeMap<PathBuf, String>) {
    for entry in std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect_files(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("src/main.rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            files.insert(path, text);
        }
    }
}

/// `run/mod.rs` and `run.rs` are both the module `run`.
fn module_of(file: &Path) -> ModulePath {
    let stem = file.with_extension("");
    let parts = stem.iter().map(|part| part.to_string_lossy().into_owned());
    parts.filter(|part| part != "mod" && part != "lib").collect()
}

/// The content of one file.
#[derive(Debug, Default)]
struct ParsedFile {
    /// All paths; those with `self` and `super` begin at the crate root.
    paths: BTreeSet<ModulePath>,
    imports: BTreeMap<String, ModulePath>,
    /// Modules in separate files that only tests use.
    test_modules: BTreeSet<ModulePath>,
}

struct Parser<'a> {
    module: &'a ModulePath,
    tokens: Vec<String>,
    at: usize,
    /// The open modules within this file, each with the depth of its brace.
    inline: Vec<(String, usize)>,
    depth: usize,
    found: ParsedFile,
}

impl<'a> Parser<'a> {
    fn new(module: &'a ModulePath, text: &str) -> Self {
        Self { module, tokens: tokens(text), at: 0, inline: Vec::new(), depth: 0, found: ParsedFile::default() }
    }

    fn parse(mut self) -> ParsedFile {
        while self.at < self.tokens.len() {
            if self.looking_at(&["#", "[", "cfg", "(", "test", ")", "]"]) {
                self.skip_test_item();
                continue;
            }
            match self.peek(0) {
                "mod" if self.peek(2) == "{" => {
                    self.inline.push((self.peek(1).to_owned(), self.depth));
                    self.at += 2;
                }
                "{" => {
                    self.depth += 1;
                    self.at += 1;
                }
                "}" => {
                    self.depth = self.depth.saturating_sub(1);
                    if self.inline.last().is_some_and(|(_, depth)| *depth == self.depth) {
                        self.inline.pop();
                    }
                    self.at += 1;
                }
                // `use<'a>` is not an import but a list of captured lifetimes.
                "use" if self.peek(1) != "<" => {
                    self.at += 1;
                    self.use_tree(&ModulePath::new());
                }
                "crate" | "self" | "super" if self.peek(1) == "::" && self.peek_back() != "::" => self.path_in_code(),
                _ => self.at += 1,
            }
        }
        self.found
    }

    fn peek(&self, ahead: usize) -> &str {
        self.tokens.get(self.at + ahead).map_or("", String::as_str)
    }

    fn peek_back(&self) -> &str {
        self.at.checked_sub(1).and_then(|before| self.tokens.get(before)).map_or("", String::as_str)
    }

    fn looking_at(&self, wanted: &[&str]) -> bool {
        wanted.iter().enumerate().all(|(ahead, token)| self.peek(ahead) == *token)
    }

    /// Skips an item that only tests have, to its closing brace or its semicolon.
    fn skip_test_item(&mut self) {
        self.at += 7;
        while self.peek(0) == "#" {
            self.skip_group("[", "]");
        }
        // The tokens before the body: `pub(crate) mod helpers`, `use crate::x::`.
        let head: Vec<&str> = (0..8).map(|ahead| self.peek(ahead)).take_while(|token| !matches!(*token, ";" | "{")).collect();
        let is_use = head.contains(&"use");
        if let [.., "mod", name] = head.as_slice()
            && self.peek(head.len()) == ";"
        {
            let module = [self.module.as_slice(), &[(*name).to_owned()]].concat();
            self.found.test_modules.insert(module);
        }
        while self.at < self.tokens.len() {
            match self.peek(0) {
                ";" => {
                    self.at += 1;
                    return;
                }
                "{" => {
                    self.skip_group("{", "}");
                    if !is_use {
                        return;
                    }
                }
                _ => self.at += 1,
            }
        }
    }

    /// Skips the next group.
    fn skip_group(&mut self, open: &str, close: &str) {
        let mut depth = 0;
        while self.at < self.tokens.len() {
            let token = self.peek(0).to_owned();
            self.at += 1;
            if token == open {
                depth += 1;
            } else if token == close {
                depth -= 1;
                if depth == 0 {
                    return;
                }
            }
        }
    }

    /// Parses one branch of a `use`: a path, then a group, a star, another name, or nothing.
    fn use_tree(&mut self, prefix: &ModulePath) {
        let mut path = prefix.clone();
        loop {
            match self.peek(0) {
                "{" => {
                    self.at += 1;
                    while !matches!(self.peek(0), "}" | "") {
                        self.use_tree(&path);
                        if self.peek(0) == "," {
                            self.at += 1;
                        }
                    }
                    self.at += 1;
                    return;
                }
                "*" => {
                    self.at += 1;
                    self.add_import(None, &path);
                    return;
                }
                "::" => self.at += 1,
                "as" => {
                    let name = self.peek(1).to_owned();
                    self.at += 2;
                    self.add_import(Some(name), &path);
                    return;
                }
                ";" | "," | "}" | "" => {
                    self.add_import(path.last().cloned(), &path);
                    return;
                }
                part => {
                    path.push(part.to_owned());
                    self.at += 1;
                }
            }
        }
    }

    fn add_import(&mut self, name: Option<String>, path: &ModulePath) {
        let mut path = path.clone();
        if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
            path.pop();
        }
        let name = match name {
            Some(name) if name == "self" => path.last().cloned(),
            name => name,
        };
        let path = self.resolve(&path);
        // Names in an inline module are not names of the file's module.
        if let Some(name) = name.filter(|_| self.inline.is_empty()) {
            self.found.imports.insert(name, path.clone());
        }
        self.found.paths.insert(path);
    }

    fn path_in_code(&mut self) {
        let mut path = vec![self.peek(0).to_owned()];
        self.at += 1;
        while self.peek(0) == "::" && is_word(self.peek(1)) {
            path.push(self.peek(1).to_owned());
            self.at += 2;
        }
        let path = self.resolve(&path);
        self.found.paths.insert(path);
    }

    /// The path with leading `self` and `super` resolved. Other paths begin in this module or in another crate.
    fn resolve(&self, path: &ModulePath) -> ModulePath {
        let mut here: ModulePath = self.module.iter().chain(self.inline.iter().map(|(name, _)| name)).cloned().collect();
        if !path.first().is_some_and(|first| first == "self" || first == "super") {
            return path.clone();
        }
        let ups = path.iter().take_while(|part| *part == "super" || *part == "self").filter(|part| *part == "super").count();
        here.truncate(here.len().saturating_sub(ups));
        let rest = path.iter().skip_while(|part| *part == "super" || *part == "self");
        ["crate".to_owned()].into_iter().chain(here).chain(rest.cloned()).collect()
    }
}

fn is_word(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// The tokens of a source text, without comments and literals. `::` is one token.
fn tokens(text: &str) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    let at = |place: usize| chars.get(place).copied().unwrap_or('\0');
    let (mut found, mut place) = (Vec::new(), 0);
    while place < chars.len() {
        let (this, next) = (at(place), at(place + 1));
        place = match (this, next) {
            ('/', '/') => (place..chars.len()).find(|end| at(*end) == '\n').unwrap_or(chars.len()),
            ('/', '*') => block_comment_end(&chars, place),
            ('"', _) => string_end(&chars, place),
            ('\'', '\\') => (place + 3..chars.len()).find(|end| at(*end) == '\'').map_or(chars.len(), |end| end + 1),
            ('\'', _) if at(place + 2) == '\'' => place + 3,
            (':', ':') => {
                found.push("::".to_owned());
                place + 2
            }
            _ if this.is_alphanumeric() || this == '_' => {
                let end =
                    (place..chars.len()).find(|end| !(at(*end).is_alphanumeric() || at(*end) == '_')).unwrap_or(chars.len());
                let word: String = chars[place..end].iter().collect();
                let is_raw = matches!(word.as_str(), "r" | "br" | "cr") && matches!(at(end), '"' | '#');
                match raw_string_end(&chars, end).filter(|_| is_raw) {
                    Some(end) => end,
                    None => {
                        found.push(word);
                        end
                    }
                }
            }
            _ if this.is_whitespace() => place + 1,
            _ => {
                found.push(this.to_string());
                place + 1
            }
        };
    }
    found
}

fn block_comment_end(chars: &[char], start: usize) -> usize {
    let (mut depth, mut place) = (0, start);
    while let Some(pair) = chars.get(place..place + 2) {
        match pair {
            ['/', '*'] => depth += 1,
            ['*', '/'] => depth -= 1,
            _ => {
                place += 1;
                continue;
            }
        }
        place += 2;
        if depth == 0 {
            return place;
        }
    }
    chars.len()
}

fn string_end(chars: &[char], start: usize) -> usize {
    let mut place = start + 1;
    while let Some(char) = chars.get(place) {
        match char {
            '\\' => place += 2,
            '"' => return place + 1,
            _ => place += 1,
        }
    }
    chars.len()
}

/// The end of a raw string whose hashes begin at `start`; `None` if there is none, as in `r#type`.
fn raw_string_end(chars: &[char], start: usize) -> Option<usize> {
    let hashes = chars[start..].iter().take_while(|char| **char == '#').count();
    if chars.get(start + hashes) != Some(&'"') {
        return None;
    }
    let body = start + hashes + 1;
    let close: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
    let end = (body..chars.len()).find(|end| chars[*end..].starts_with(&close));
    Some(end.map_or(chars.len(), |end| end + close.len()))
}
