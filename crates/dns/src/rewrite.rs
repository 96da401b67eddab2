//! CoreDNS' `rewrite`: another question in place of the one asked, and its answer under the name that was asked.

use regex::Regex;

use crate::wire::{CLASS_IN, encode_name, presentation};

/// One rule.
#[derive(Clone, Debug)]
pub(crate) struct Rewrite {
    pub(crate) what: What,
    /// Later rules are tried as well.
    pub(crate) goes_on: bool,
}

#[derive(Clone, Debug)]
pub(crate) enum What {
    Name {
        matcher: Matcher,
        to: String,
        answers: Vec<(Regex, String)>,
    },
    Type {
        from: u16,
        to: u16,
    },
    /// The TTL of answers to names that match, `from..=to` seconds.
    Ttl {
        matcher: Matcher,
        from: u32,
        to: u32,
    },
    Class {
        from: u16,
        to: u16,
    },
}

/// How a name is compared; all in lower case and with the final dot.
#[derive(Clone, Debug)]
pub(crate) enum Matcher {
    Exact(String),
    Prefix(String),
    Suffix(String),
    Substring(String),
    Regex(Regex),
}

impl Matcher {
    /// `name` with what matches replaced by `to`.
    fn replace(&self, name: &str, to: &str) -> Option<String> {
        match self {
            Self::Exact(from) => (name == from).then(|| to.to_owned()),
            Self::Prefix(from) => name.strip_prefix(from.as_str()).map(|rest| format!("{to}{rest}")),
            Self::Suffix(from) => name.strip_suffix(from.as_str()).map(|rest| format!("{rest}{to}")),
            Self::Substring(from) => name.contains(from.as_str()).then(|| name.replace(from.as_str(), to)),
            Self::Regex(regex) => regex.captures(name).map(|captures| groups(to, &captures)),
        }
    }

    fn matches(&self, name: &str) -> bool {
        self.replace(name, "").is_some()
    }
}

/// `{1}` in `to` is the first group, `{0}` all.
fn groups(to: &str, captures: &regex::Captures<'_>) -> String {
    let mut out = String::new();
    let mut rest = to;
    while let Some((before, tail)) = rest.split_once('{') {
        out.push_str(before);
        match tail.split_once('}').and_then(|(n, after)| Some((n.trim().parse::<usize>().ok()?, after))) {
            Some((n, after)) => {
                out.push_str(captures.get(n).map_or("", |m| m.as_str()));
                rest = after;
            }
            None => {
                out.push('{');
                rest = tail;
            }
        }
    }
    out + rest
}

/// What is asked in place of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rewritten {
    /// Wire form in lower case.
    pub(crate) name: Vec<u8>,
    pub(crate) qtype: u16,
    pub(crate) ttl: Option<(u32, u32)>,
    /// Rules for owner names of the answer besides the question's own.
    pub(crate) answers: Vec<(usize, usize)>,
}

/// Applies `rules` to a question; `None` when none of them fits.
pub(crate) fn apply(rules: &[Rewrite], name: &[u8], qtype: u16) -> Option<Rewritten> {
    let mut text = presentation(name).to_ascii_lowercase();
    // Octets that text has to escape are in no name that a rule means.
    if text.contains('\\') {
        return None;
    }
    let mut out = Rewritten { name: name.to_vec(), qtype, ttl: None, answers: Vec::new() };
    let mut any = false;
    for (i, rule) in rules.iter().enumerate() {
        let fits = match &rule.what {
            What::Name { matcher, to, answers } => match matcher.replace(&text, to) {
                // What is no name afterwards was not meant.
                Some(new) => encode_name(&new).is_some_and(|wire| {
                    out.name = wire.to_ascii_lowercase();
                    text = new;
                    out.answers.extend((0..answers.len()).map(|j| (i, j)));
                    true
                }),
                None => false,
            },
            What::Type { from, to } if out.qtype == *from => {
                out.qtype = *to;
                true
            }
            What::Ttl { matcher, from, to } if matcher.matches(&text) => {
                out.ttl = Some((*from, *to));
                true
            }
            // Only IN is served at all.
            What::Class { from, to } => *from == CLASS_IN && *to == CLASS_IN,
            What::Type { .. } | What::Ttl { .. } => false,
        };
        any |= fits;
        if fits && !rule.goes_on {
            break;
        }
    }
    any.then_some(out)
}

/// The owner name `name` of an answer as its rules have it.
pub(crate) fn answer_name(rules: &[Rewrite], which: &[(usize, usize)], name: &str) -> Option<String> {
    which.iter().find_map(|(i, j)| match &rules.get(*i)?.what {
        What::Name { answers, .. } => {
            let (regex, to) = answers.get(*j)?;
            Some(groups(to, &regex.captures(name)?))
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules() {
        let name = |matcher, to: &str| What::Name { matcher, to: to.into(), answers: Vec::new() };
        let one = |what| [Rewrite { what, goes_on: false }];
        for (what, asked, expected) in [
            (name(Matcher::Exact("a.test.".into()), "b.test."), "a.test.", Some("b.test.")),
            (name(Matcher::Exact("a.test.".into()), "b.test."), "x.a.test.", None),
            (name(Matcher::Prefix("old-".into()), "new-"), "old-a.test.", Some("new-a.test.")),
            (name(Matcher::Suffix(".test.".into()), ".example."), "a.test.", Some("a.example.")),
            (name(Matcher::Substring("x".into()), "y"), "axbx.test.", Some("ayby.test.")),
            (
                name(Matcher::Regex(Regex::new(r"^(.*)\.db\.test\.$").unwrap()), "{1}.{1}.svc.test."),
                "a.db.test.",
                Some("a.a.svc.test."),
            ),
            (name(Matcher::Prefix("a".into()), "..bad"), "a.test.", None),
        ] {
            let out = apply(&one(what), &encode_name(asked).unwrap(), 1);
            assert_eq!(out.map(|o| presentation(&o.name)).as_deref(), expected, "{asked}");
        }
        let types = one(What::Type { from: 255, to: 1 });
        assert_eq!(apply(&types, &encode_name("a.test").unwrap(), 255).map(|o| o.qtype), Some(1));
        let both = [
            Rewrite { what: name(Matcher::Exact("a.test.".into()), "b.test."), goes_on: true },
            Rewrite { what: name(Matcher::Exact("b.test.".into()), "c.test."), goes_on: false },
        ];
        let out = apply(&both, &encode_name("a.test").unwrap(), 1).unwrap();
        assert_eq!(presentation(&out.name), "c.test.");
    }
}
