use crate::Map;

/// A label selector in the API's string form: `a=b,c!=d,e in (x,y),f notin (z),g,!h`
/// (apimachinery `labels.Parse`). Empty matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector(Vec<Requirement>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Requirement {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    NotExists(String),
}

impl LabelSelector {
    /// All of `labels` must be there with these values, as in a Service's `spec.selector`.
    pub fn equal_to(labels: &Map) -> Self {
        Self(labels.iter().map(|(k, v)| Requirement::In(k.clone(), vec![v.clone()])).collect())
    }

    /// Parses the query string form; the error says where it went wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut requirements = Vec::new();
        for term in split_terms(text)? {
            let term = term.trim();
            if term.is_empty() {
                continue;
            }
            requirements.push(parse_term(term)?);
        }
        Ok(Self(requirements))
    }

    pub fn matches(&self, labels: &Map) -> bool {
        self.0.iter().all(|r| match r {
            Requirement::In(k, vs) => labels.get(k).is_some_and(|v| vs.contains(v)),
            Requirement::NotIn(k, vs) => labels.get(k).is_none_or(|v| !vs.contains(v)),
            Requirement::Exists(k) => labels.contains_key(k),
            Requirement::NotExists(k) => !labels.contains_key(k),
        })
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Whether a Service's `spec.selector` picks an object with these labels. An empty selector picks nothing.
pub fn selects(selector: &Map, labels: &Map) -> bool {
    !selector.is_empty() && selector.iter().all(|(k, v)| labels.get(k) == Some(v))
}

fn split_terms(text: &str) -> Result<Vec<&str>, String> {
    let (mut terms, mut start, mut depth) = (Vec::new(), 0, 0usize);
    for (i, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => {
                depth = depth.checked_sub(1).ok_or_else(|| format!("')' without '(' at {i} in {text:?}"))?
            }
            ',' if depth == 0 => {
                terms.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    if depth > 0 {
        return Err(format!("'(' is not closed in {text:?}"));
    }
    terms.push(&text[start..]);
    Ok(terms)
}

fn parse_term(term: &str) -> Result<Requirement, String> {
    let key = |k: &str| -> Result<String, String> {
        let k = k.trim();
        if k.is_empty() || k.contains(char::is_whitespace) {
            return Err(format!("{term:?} has no valid label key"));
        }
        Ok(k.to_owned())
    };
    if let Some(k) = term.strip_prefix('!') {
        return Ok(Requirement::NotExists(key(k)?));
    }
    if let Some((k, v)) = term.split_once("!=") {
        return Ok(Requirement::NotIn(key(k)?, vec![v.trim().to_owned()]));
    }
    if let Some((k, v)) = term.split_once("==").or_else(|| term.split_once('=')) {
        return Ok(Requirement::In(key(k)?, vec![v.trim().to_owned()]));
    }
    if let Some((head, set)) = term.split_once('(') {
        let values = set
            .strip_suffix(')')
            .ok_or_else(|| format!("{term:?} has text after ')'"))?
            .split(',')
            .map(|v| v.trim().to_owned())
            .collect();
        let head = head.trim();
        return match head.rsplit_once(char::is_whitespace) {
            Some((k, "in")) => Ok(Requirement::In(key(k)?, values)),
            Some((k, "notin")) => Ok(Requirement::NotIn(key(k)?, values)),
            _ => Err(format!("{term:?}: expected 'KEY in (…)' or 'KEY notin (…)'")),
        };
    }
    Ok(Requirement::Exists(key(term)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selector_forms() {
        let labels: Map = [("app", "web"), ("tier", "front")].map(|(k, v)| (k.into(), v.into())).into();
        for (text, expected) in [
            ("", true),
            ("app=web", true),
            ("app==web,tier=front", true),
            ("app=db", false),
            ("app!=db", true),
            ("missing!=x", true),
            ("app in (db, web)", true),
            ("app notin (db,web)", false),
            ("tier", true),
            ("!tier", false),
            ("!gone , app in (web)", true),
        ] {
            assert_eq!(LabelSelector::parse(text).unwrap().matches(&labels), expected, "{text}");
        }
        for bad in ["app in (a", "a)b", "=x", "app between (a)", "two words"] {
            assert!(LabelSelector::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_empty_service_selector_selects_nothing() {
        assert!(!selects(&Map::new(), &Map::new()));
    }
}
