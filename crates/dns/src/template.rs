//! CoreDNS' `template`: answers made of the question. Of Go's template language only placeholders are known; anything
//! else is an error when the Corefile is read, never a wrong answer.

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{Name as HickoryName, Record};
use hickory_proto::serialize::txt::Parser;
use regex::Regex;

use crate::wire::Name;

/// Of a record without one, seconds; as CoreDNS.
const DEFAULT_TTL: u32 = 3600;

/// One `template` plugin.
#[derive(Clone, Debug)]
pub(crate) struct Template {
    pub(crate) zones: Vec<Name>,
    /// `None`: any.
    pub(crate) qtype: Option<u16>,
    pub(crate) matches: Vec<Regex>,
    pub(crate) answer: Vec<Text>,
    pub(crate) additional: Vec<Text>,
    pub(crate) authority: Vec<Text>,
    pub(crate) rcode: ResponseCode,
    pub(crate) fallthrough: Vec<Name>,
}

/// A record's text with placeholders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Text(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Plain(String),
    Name,
    Class,
    Type,
    Zone,
    Remote,
    Group(String),
    Match(usize),
}

/// A placeholder that is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{{{{{0}}}}} is not known here: use .Name, .Zone, .Type, .Class, .Remote, .Group.NAME, index .Match N, or a regular expression's groups"
)]
pub(crate) struct Unknown(pub(crate) String);

/// What placeholders stand for.
pub(crate) struct Values<'a> {
    pub(crate) name: &'a str,
    pub(crate) zone: &'a str,
    pub(crate) qtype: &'a str,
    pub(crate) remote: &'a str,
    pub(crate) captures: Option<&'a regex::Captures<'a>>,
}

impl Text {
    pub(crate) fn parse(text: &str) -> Result<Self, Unknown> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, tail)) = rest.split_once("{{") {
            let (inner, after) = tail.split_once("}}").ok_or_else(|| Unknown(tail.to_owned()))?;
            if !before.is_empty() {
                pieces.push(Piece::Plain(before.to_owned()));
            }
            let words: Vec<&str> = inner.trim().trim_matches('-').split_whitespace().collect();
            pieces.push(match words[..] {
                [".Name"] => Piece::Name,
                [".Class"] => Piece::Class,
                [".Type"] => Piece::Type,
                [".Zone"] => Piece::Zone,
                [".Remote"] => Piece::Remote,
                [group] if group.starts_with(".Group.") => Piece::Group(group[7..].to_owned()),
                ["index", ".Match", n] => Piece::Match(n.parse().map_err(|_| Unknown(inner.to_owned()))?),
                ["index", ".Group", name] => Piece::Group(name.trim_matches('"').to_owned()),
                _ => return Err(Unknown(inner.to_owned())),
            });
            rest = after;
        }
        if !rest.is_empty() {
            pieces.push(Piece::Plain(rest.to_owned()));
        }
        Ok(Self(pieces))
    }

    fn fill(&self, values: &Values<'_>) -> String {
        let group = |m: Option<regex::Match<'_>>| m.map_or(String::new(), |m| m.as_str().to_owned());
        let piece = |p: &Piece| match p {
            Piece::Plain(text) => text.clone(),
            Piece::Name => values.name.to_owned(),
            Piece::Class => "IN".to_owned(),
            Piece::Type => values.qtype.to_owned(),
            Piece::Zone => values.zone.to_owned(),
            Piece::Remote => values.remote.to_owned(),
            Piece::Group(name) => group(values.captures.and_then(|c| c.name(name))),
            Piece::Match(n) => group(values.captures.and_then(|c| c.get(*n))),
        };
        self.0.iter().map(piece).collect()
    }

    /// The records that the filled-in text is; `None` when it is none.
    pub(crate) fn records(&self, values: &Values<'_>) -> Option<Vec<Record>> {
        let line = self.fill(values);
        let (_, sets) = Parser::new(format!("$TTL {DEFAULT_TTL}\n{line}\n"), None, Some(HickoryName::root()))
            .parse()
            .ok()?;
        Some(sets.values().flat_map(|s| s.records_without_rrsigs().cloned()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders() {
        let regex = Regex::new(r"^ip-(?P<a>\d+)-(?P<b>\d+)\.test\.$").unwrap();
        let name = "ip-10-3.test.";
        let captures = regex.captures(name).unwrap();
        let values =
            Values { name, zone: "test.", qtype: "A", remote: "10.0.0.1", captures: Some(&captures) };
        for (text, expected) in [
            ("{{ .Name }} 60 IN A 10.0.{{ .Group.a }}.{{ .Group.b }}", "ip-10-3.test. 60 IN A 10.0.10.3"),
            ("{{.Name}} IN {{ .Type }} 192.0.2.{{ index .Match 1 }}", "ip-10-3.test. 3600 IN A 192.0.2.10"),
            ("{{ .Zone }} 5 IN TXT \"{{ .Remote }}\"", "test. 5 IN TXT 10.0.0.1"),
        ] {
            let records = Text::parse(text).unwrap().records(&values).unwrap();
            let shown: Vec<String> = records.iter().map(ToString::to_string).collect();
            assert_eq!(shown, [expected], "{text}");
        }
        assert!(Text::parse("{{ if .Name }}x").is_err());
        assert!(Text::parse("{{ .Name").is_err());
        assert!(Text::parse("{{ .Name }} IN A nonsense").unwrap().records(&values).is_none());
    }
}
