//! The file's form: server blocks of directives, which may have blocks of their own (Caddy's file format of old).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::CorefileError;

/// A server block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) line: usize,
    pub(super) keys: Vec<String>,
    pub(super) directives: Vec<Directive>,
}

/// A line, and the lines in its braces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Directive {
    pub(crate) line: usize,
    pub(crate) name: String,
    pub(crate) args: Vec<String>,
    pub(crate) block: Vec<Directive>,
}

/// Files imported within files, and blocks within blocks, at most.
const DEPTH: usize = 16;
/// Of all files together.
const TOKENS: usize = 100_000;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Token {
    line: usize,
    text: String,
    quoted: bool,
}

struct Parser<'a> {
    variables: &'a BTreeMap<String, String>,
    snippets: BTreeMap<String, Vec<Directive>>,
    tokens: usize,
}

pub(super) fn parse(
    text: &str,
    dir: &Path,
    variables: &BTreeMap<String, String>,
) -> Result<Vec<Block>, CorefileError> {
    let mut parser = Parser { variables, snippets: BTreeMap::new(), tokens: 0 };
    let blocks = parser.file(text, dir, 0)?;
    if blocks.is_empty() {
        return Err(CorefileError::new(1, "no server block is in it; kubeadm's begins with `.:53 {`"));
    }
    Ok(blocks)
}

impl Parser<'_> {
    fn file(&mut self, text: &str, dir: &Path, depth: usize) -> Result<Vec<Block>, CorefileError> {
        let lines = self.lines(text)?;
        let mut at = 0;
        let mut blocks = Vec::new();
        while at < lines.len() {
            let line = &lines[at];
            let number = line[0].line;
            if line[0].text == "import" && !line[0].quoted {
                at += 1;
                for (path, text) in imported(line, dir)? {
                    let inner = self.deeper(number, depth)?;
                    let parent = path.parent().unwrap_or(dir).to_owned();
                    blocks.extend(self.file(&text, &parent, inner).map_err(|e| within(e, &path))?);
                }
                continue;
            }
            // Keys go on over lines that end with a comma.
            let mut keys = Vec::new();
            let mut opened = false;
            while at < lines.len() && !opened {
                let mut more = false;
                for token in &lines[at] {
                    if opened {
                        let what = format!("{:?} after the brace: begin a new line there", token.text);
                        return Err(CorefileError::new(token.line, what));
                    }
                    opened = is(token, "{");
                    if !opened {
                        more = token.text.ends_with(',');
                        keys.extend(token.text.split(',').filter(|k| !k.is_empty()).map(str::to_owned));
                    }
                }
                at += 1;
                if !more && !opened {
                    break;
                }
            }
            if !opened {
                // One block alone needs no braces.
                if !blocks.is_empty() {
                    return Err(CorefileError::new(number, "a `{` is missing at the end of this line"));
                }
                let mut rest = at;
                let directives = self.directives(&lines, &mut rest, dir, depth, false)?;
                return Ok(vec![Block { line: number, keys, directives }]);
            }
            let directives = self.directives(&lines, &mut at, dir, depth, true)?;
            match keys.first().and_then(|k| k.strip_prefix('(')?.strip_suffix(')')) {
                Some(name) => drop(self.snippets.insert(name.to_owned(), directives)),
                None if keys.is_empty() => {
                    return Err(CorefileError::new(number, "a server block needs a zone before its brace"));
                }
                None => blocks.push(Block { line: number, keys, directives }),
            }
        }
        Ok(blocks)
    }

    fn deeper(&self, line: usize, depth: usize) -> Result<usize, CorefileError> {
        if depth >= DEPTH {
            return Err(CorefileError::new(line, "nested too deep; does a file import itself?"));
        }
        Ok(depth + 1)
    }

    /// Lines up to the closing brace.
    fn directives(
        &mut self,
        lines: &[Vec<Token>],
        at: &mut usize,
        dir: &Path,
        depth: usize,
        closed: bool,
    ) -> Result<Vec<Directive>, CorefileError> {
        let mut out = Vec::new();
        while let Some(line) = lines.get(*at) {
            *at += 1;
            let number = line[0].line;
            if is(&line[0], "}") {
                if !closed || line.len() > 1 {
                    return Err(CorefileError::new(number, "a `}` too many, or something after it"));
                }
                return Ok(out);
            }
            if is(&line[0], "import") {
                out.extend(self.import(line, dir, depth)?);
                continue;
            }
            let mut words: Vec<&Token> = line.iter().collect();
            let opens = words.last().is_some_and(|t| is(t, "{"));
            // `{ }` on one line.
            let empty = words.len() > 2 && is(words[words.len() - 2], "{") && is(words[words.len() - 1], "}");
            if opens {
                words.pop();
            }
            if empty {
                words.truncate(words.len() - 2);
            }
            if let Some(token) = words.iter().find(|t| is(t, "{") || is(t, "}")) {
                return Err(CorefileError::new(token.line, "a brace must end its line, or stand alone"));
            }
            let Some((name, args)) = words.split_first() else {
                return Err(CorefileError::new(number, "a block without a name"));
            };
            let block = if opens {
                let inner = self.deeper(number, depth)?;
                self.directives(lines, at, dir, inner, true)?
            } else {
                Vec::new()
            };
            out.push(Directive {
                line: number,
                name: name.text.clone(),
                args: args.iter().map(|t| t.text.clone()).collect(),
                block,
            });
        }
        match closed {
            true => {
                let last = lines.last().and_then(|l| l.last()).map_or(1, |t| t.line);
                Err(CorefileError::new(last, "the file ends before a `}` that closes its block"))
            }
            false => Ok(out),
        }
    }

    fn import(&mut self, line: &[Token], dir: &Path, depth: usize) -> Result<Vec<Directive>, CorefileError> {
        let number = line[0].line;
        let name = line.get(1).map(|t| t.text.as_str()).unwrap_or_default();
        if let Some(snippet) = self.snippets.get(name) {
            let args: Vec<&str> = line[2..].iter().map(|t| t.text.as_str()).collect();
            return Ok(snippet.iter().map(|d| filled(d, &args)).collect());
        }
        let mut out = Vec::new();
        for (path, text) in imported(line, dir)? {
            let inner = self.deeper(number, depth)?;
            let parent = path.parent().unwrap_or(dir).to_owned();
            let read = |e| within(e, &path);
            let lines = self.lines(&text).map_err(read)?;
            out.extend(self.directives(&lines, &mut 0, &parent, inner, false).map_err(read)?);
        }
        Ok(out)
    }

    /// Words by line; none is empty.
    fn lines(&mut self, text: &str) -> Result<Vec<Vec<Token>>, CorefileError> {
        let mut lines: Vec<Vec<Token>> = Vec::new();
        let mut number = 1;
        let mut chars = text.chars().peekable();
        let mut current = 0;
        while let Some(&c) = chars.peek() {
            if c == '\n' {
                number += 1;
            }
            if c.is_whitespace() || c == '\u{feff}' {
                chars.next();
                continue;
            }
            if c == '#' {
                while chars.peek().is_some_and(|c| *c != '\n') {
                    chars.next();
                }
                continue;
            }
            let line = number;
            let mut word = String::new();
            let quoted = c == '"' || c == '`';
            if quoted {
                chars.next();
                let mut ended = false;
                while let Some(d) = chars.next() {
                    match d {
                        '\\' if c == '"' && chars.peek() == Some(&'"') => {
                            word.push('"');
                            chars.next();
                        }
                        d if d == c => {
                            ended = true;
                            break;
                        }
                        d => {
                            number += usize::from(d == '\n');
                            word.push(d);
                        }
                    }
                }
                if !ended {
                    return Err(CorefileError::new(line, "a quotation mark is not closed"));
                }
            } else {
                while let Some(d) = chars.next_if(|d| !d.is_whitespace()) {
                    word.push(d);
                }
            }
            self.tokens += 1;
            if self.tokens > TOKENS {
                return Err(CorefileError::new(line, "the file is too long"));
            }
            let text = self.expand(&word, line)?;
            if current != line {
                lines.push(Vec::new());
                current = line;
            }
            if let Some(last) = lines.last_mut() {
                last.push(Token { line, text, quoted });
            }
            current = current.max(number);
        }
        Ok(lines)
    }

    /// `{$NAME}` and `{%NAME%}` become the variable's value.
    fn expand(&self, word: &str, line: usize) -> Result<String, CorefileError> {
        let mut out = String::new();
        let mut rest = word;
        loop {
            let dollar = rest.find("{$").map(|at| (at, "}"));
            let percent = rest.find("{%").map(|at| (at, "%}"));
            let Some((at, end)) = dollar.into_iter().chain(percent).min() else { break };
            let Some((name, after)) = rest[at + 2..].split_once(end) else { break };
            let value = self.variables.get(name).ok_or_else(|| {
                CorefileError::new(line, format!("the environment of eastwest-agent has no variable {name}"))
            })?;
            out.push_str(&rest[..at]);
            out.push_str(value);
            rest = after;
        }
        Ok(out + rest)
    }
}

fn is(token: &Token, text: &str) -> bool {
    !token.quoted && token.text == text
}

/// A snippet's line with `{args.N}` filled in.
fn filled(directive: &Directive, args: &[&str]) -> Directive {
    let fill = |text: &String| {
        let mut text = text.clone();
        for (i, arg) in args.iter().enumerate() {
            text = text.replace(&format!("{{args.{i}}}"), arg).replace(&format!("{{args[{i}]}}"), arg);
        }
        text
    };
    Directive {
        line: directive.line,
        name: fill(&directive.name),
        args: directive.args.iter().map(fill).collect(),
        block: directive.block.iter().map(|d| filled(d, args)).collect(),
    }
}

fn within(error: CorefileError, path: &Path) -> CorefileError {
    CorefileError { file: error.file.or_else(|| Some(path.to_owned())), ..error }
}

/// The files that an import means, by name; a pattern with `*` in its last part may mean none.
fn imported(line: &[Token], dir: &Path) -> Result<Vec<(PathBuf, String)>, CorefileError> {
    let number = line[0].line;
    let Some(what) = line.get(1) else {
        return Err(CorefileError::new(number, "import needs a file, or the name of a (snippet) above"));
    };
    let path = dir.join(&what.text);
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default().to_owned();
    let read = |path: PathBuf| match std::fs::read_to_string(&path) {
        Ok(text) => Ok((path, text)),
        Err(e) => Err(CorefileError::new(number, format!("{}: {e}", path.display()))),
    };
    let Some((before, after)) = name.split_once('*') else { return Ok(vec![read(path)?]) };
    let mut files = Vec::new();
    let entries = path.parent().and_then(|d| std::fs::read_dir(d).ok());
    for entry in entries.into_iter().flatten().flatten() {
        let file = entry.file_name();
        let file = file.to_string_lossy();
        let fits =
            file.len() >= before.len() + after.len() && file.starts_with(before) && file.ends_with(after);
        if fits && !file.starts_with('.') {
            files.push(entry.path());
        }
    }
    files.sort();
    files.into_iter().map(read).collect()
}
