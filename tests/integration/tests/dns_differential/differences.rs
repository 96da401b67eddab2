//! The list of differences, and what two answers have of it.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use eastwest_integration::dns::{PARTS, Seen};
use hickory_proto::op::Message;
use regex::Regex;
use serde::Deserialize;

/// Examples shown of one kind of unlisted difference.
const EXAMPLES: usize = 2;

/// So many questions meet every entry.
const MANY: u64 = 100_000;

/// One entry. An absent field holds for anything; every part that differs must be named in `parts`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rule {
    /// What differs, in a few words.
    what: String,
    /// Why it is meant, or borne.
    #[serde(rename = "why")]
    reason: String,
    /// Of `NAME TYPE CLASS`, lower case.
    question: Option<String>,
    /// Of the whole Corefiles: in which rounds.
    #[serde(default)]
    rounds: Vec<String>,
    ours: Option<String>,
    theirs: Option<String>,
    /// What each record must look like that only one of the two has, `NAME TTL TYPE DATA` in lower case.
    only: Option<String>,
    /// What some record of ours must look like.
    has: Option<String>,
    /// What stands in our OPT and in theirs: `OURS / THEIRS`, `-` for none.
    edns: Option<String>,
    /// Which answer alone is cut (TC): `ours`, `theirs`.
    cut: Option<String>,
    /// Their answer is of more bytes.
    theirs_over: Option<usize>,
    parts: Vec<String>,
}

struct Compiled {
    rule: Rule,
    question: Option<Regex>,
    only: Option<Regex>,
    has: Option<Regex>,
    edns: Option<Regex>,
    met: u64,
}

pub struct Differences {
    rules: Vec<Compiled>,
    asked: u64,
    same: u64,
    /// What is not listed: how often, and how it looks.
    unlisted: BTreeMap<String, (u64, Vec<String>)>,
}

impl Differences {
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let rules: Vec<Rule> = serde_yaml_ng::from_str(&text).with_context(|| path.display().to_string())?;
        let compile = |rule: Rule| {
            ensure!(!rule.reason.is_empty(), "{}: no reason", rule.what);
            for part in &rule.parts {
                ensure!(PARTS.contains(&part.as_str()), "{}: no part {part}", rule.what);
            }
            let regex = |text: &Option<String>| text.as_deref().map(Regex::new).transpose();
            let (question, only) = (regex(&rule.question)?, regex(&rule.only)?);
            let (has, edns) = (regex(&rule.has)?, regex(&rule.edns)?);
            Ok(Compiled { rule, question, only, has, edns, met: 0 })
        };
        let rules = rules.into_iter().map(compile).collect::<Result<_>>()?;
        Ok(Self { rules, asked: 0, same: 0, unlisted: BTreeMap::new() })
    }

    /// Compares two answers to one request.
    pub fn judge(&mut self, round: &str, request: &[u8], ours: &[u8], theirs: &[u8]) -> Result<()> {
        let length = theirs.len();
        let (ours, theirs) = (Seen::read(request, ours).context("our answer")?, Seen::read(request, theirs)?);
        let mut parts = ours.differs(&theirs);
        self.asked += 1;
        // RA has an entry of its own, which every answer meets.
        self.same += u64::from(parts.iter().all(|p| *p == "ra"));
        let cut = match (ours.flags.contains("tc"), theirs.flags.contains("tc")) {
            (true, false) => "ours",
            (false, true) => "theirs",
            _ => "",
        };
        let question = question(request)?;
        let edns = |s: &Seen| s.edns.clone().unwrap_or_else(|| "-".to_owned());
        let both_edns = format!("{} / {}", edns(&ours), edns(&theirs));
        for c in &mut self.rules {
            let Rule { rounds, ours: o, theirs: t, parts: allowed, .. } = &c.rule;
            let holds = c.question.as_ref().is_none_or(|q| q.is_match(&question))
                && (rounds.is_empty() || rounds.iter().any(|r| r == round))
                && o.as_ref().is_none_or(|o| *o == ours.rcode)
                && t.as_ref().is_none_or(|t| *t == theirs.rcode)
                && c.rule.cut.as_ref().is_none_or(|c| c == cut)
                && c.rule.theirs_over.is_none_or(|over| length > over)
                && c.edns.as_ref().is_none_or(|r| r.is_match(&both_edns))
                && c.has.as_ref().is_none_or(|r| ours.records().any(|line| r.is_match(line)))
                && c.only.as_ref().is_none_or(|r| alone(&ours, &theirs).iter().all(|line| r.is_match(line)));
            if parts.is_empty() {
                break;
            }
            if !holds || !parts.iter().any(|p| allowed.iter().any(|a| a == p)) {
                continue;
            }
            c.met += 1;
            // What is left may be another entry's.
            parts.retain(|p| !allowed.iter().any(|a| a == p));
        }
        if parts.is_empty() {
            return Ok(());
        }
        let qtype = question.split(' ').nth(1).unwrap_or_default();
        let kind = format!("{round}: {parts:?} {qtype} ours {} theirs {}", ours.rcode, theirs.rcode);
        let entry = self.unlisted.entry(kind).or_default();
        entry.0 += 1;
        if entry.1.len() < EXAMPLES {
            entry.1.push(format!("{question}\n    ours:   {ours}\n    theirs: {theirs}"));
        }
        Ok(())
    }

    pub fn summary(&self) -> String {
        let mut text = format!("{} of {} the same but for RA", self.same, self.asked);
        for c in &self.rules {
            let _ = write!(text, "\n{:8} {}", c.met, c.rule.what);
        }
        text
    }

    /// An error when something is not listed, or in a long run an entry is not true any more.
    pub fn verdict(&self) -> Result<()> {
        let idle: Vec<&str> = self
            .rules
            .iter()
            .filter(|c| c.met == 0 && self.asked >= MANY)
            .map(|c| c.rule.what.as_str())
            .collect();
        ensure!(self.unlisted.is_empty(), "not listed in tests/dns/differences.yaml:\n{}", self.list());
        ensure!(idle.is_empty(), "listed, but no longer so: {idle:#?}");
        Ok(())
    }

    fn list(&self) -> String {
        let mut kinds: Vec<_> = self.unlisted.iter().collect();
        kinds.sort_by_key(|(_, (n, _))| std::cmp::Reverse(*n));
        kinds
            .iter()
            .map(|(kind, (n, examples))| format!("{n} × {kind}\n  {}\n", examples.join("\n  ")))
            .collect()
    }
}

/// Lines that only one of the two has.
fn alone(ours: &Seen, theirs: &Seen) -> Vec<String> {
    let sections = |s: &Seen| [s.answer.clone(), s.authority.clone(), s.additional.clone()];
    let (ours, theirs) = (sections(ours), sections(theirs));
    ours.iter().zip(&theirs).flat_map(|(o, t)| o.symmetric_difference(t).cloned()).collect()
}

/// `NAME TYPE CLASS`.
fn question(request: &[u8]) -> Result<String> {
    let message = Message::from_vec(request)?;
    let q = message.queries.first().context("a question")?;
    Ok(format!("{} {} {}", q.name().to_string().to_lowercase(), q.query_type(), q.query_class()))
}
