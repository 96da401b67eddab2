use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use figment::providers::{Format, Yaml};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};

use crate::{Key, Settings};

/// What is wrong with the settings. The text is for the person who wrote them.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read the settings file {path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("settings file {path} is not YAML with one setting a line: {reason}")]
    Yaml { path: PathBuf, reason: String },
    #[error("unknown setting {key} (from {origin}){}", nearest.as_ref().map(|n| format!(": did you mean {n}?")).unwrap_or_default())]
    UnknownKey { key: String, origin: Source, nearest: Option<String> },
    #[error("bad value {value:?} for {key} (from {origin}); accepted: {accepted}")]
    Value { key: String, value: String, origin: Source, accepted: String },
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    Default,
    File(PathBuf),
    /// The variable's name.
    Env(String),
    Flag,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Default => f.write_str("default"),
            Source::File(path) => write!(f, "file:{}", path.display()),
            Source::Env(name) => write!(f, "env {name}"),
            Source::Flag => f.write_str("flag"),
        }
    }
}

/// The settings that hold, and where each came from.
#[derive(Clone, Debug)]
pub struct Loaded<S> {
    pub settings: S,
    values: Vec<(String, String, bool, Source)>,
}

impl<S> Loaded<S> {
    /// The source of a setting by its name in YAML.
    pub fn source(&self, camel: &str) -> Option<&Source> {
        self.values.iter().find(|(key, ..)| key == camel).map(|(.., source)| source)
    }

    /// `key: value  # from SOURCE`, a line each; YAML that can be given back with `--config`.
    pub fn print(&self) -> String {
        let mut out = String::new();
        for (key, value, list, source) in &self.values {
            let value = if *list {
                let items = value.split(',').filter(|v| !v.is_empty()).map(quoted);
                format!("[{}]", items.collect::<Vec<_>>().join(", "))
            } else {
                quoted(value)
            };
            out.push_str(&format!("{key}: {value}  # from {source}\n"));
        }
        out
    }
}

/// A YAML scalar: quoted unless it is plainly one word.
fn quoted(value: &str) -> String {
    let plain = value.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./".contains(&b))
        && value.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'/');
    if plain { value.to_owned() } else { format!("{value:?}") }
}

/// One layer for figment, which merges them and remembers by tag which layer a value came from.
struct Layer {
    name: &'static str,
    values: Dict,
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name)
    }
    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.values.clone()))
    }
}

pub(crate) fn load<S: Settings>(
    config: Option<PathBuf>,
    env: impl IntoIterator<Item = (OsString, OsString)>,
    flags: &BTreeMap<&'static str, String>,
) -> Result<Loaded<S>, Error> {
    let keys = S::keys();
    let text = |v: &str| Value::from(v.to_owned());
    let default = keys.iter().map(|k| (k.field.to_owned(), text(&(k.default)()))).collect();
    let flags = flags.iter().map(|(k, v)| ((*k).to_owned(), text(v))).collect();
    let (env, env_config) = from_env(keys, env)?;
    let path = config.or(env_config);
    let file = path.as_deref().map(|p| from_file(keys, p)).transpose()?.unwrap_or_default();

    let merged = Figment::new()
        .merge(Layer { name: "default", values: default })
        .merge(Layer { name: "file", values: file })
        .merge(Layer { name: "env", values: env })
        .merge(Layer { name: "flag", values: flags });
    let values: Vec<_> = keys
        .iter()
        .map(|key| {
            let value = merged.find_value(key.field).ok();
            let layer = value.as_ref().and_then(|v| merged.get_metadata(v.tag())).map(|m| m.name.to_string());
            let source = match layer.as_deref() {
                Some("file") => Source::File(path.clone().unwrap_or_default()),
                Some("env") => Source::Env(key.env()),
                Some("flag") => Source::Flag,
                _ => Source::Default,
            };
            let value = value.and_then(|v| v.into_string()).unwrap_or_default();
            (key.camel(), value, key.list, source)
        })
        .collect();
    let settings = S::build(&mut |index| values[index].1.clone()).map_err(|(index, reason)| {
        let (key, value, _, origin) = values[index].clone();
        let mut accepted = (keys[index].accepted)().into_owned();
        if !reason.is_empty() {
            accepted.push_str(&format!(" ({reason})"));
        }
        Error::Value { key, value, origin, accepted }
    })?;
    Ok(Loaded { settings, values })
}

fn from_env(
    keys: &[Key],
    env: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<(Dict, Option<PathBuf>), Error> {
    let (mut values, mut config) = (Dict::new(), None);
    for (name, value) in env {
        let Some(name) = name.to_str().filter(|n| n.starts_with("EASTWEST_")) else { continue };
        // Where the lab, the demo and the tests find the binaries: of no binary a setting.
        if name == "EASTWEST_BIN_DIR" {
            continue;
        }
        if name == "EASTWEST_CONFIG" {
            config = Some(PathBuf::from(value));
            continue;
        }
        let Some(key) = keys.iter().find(|k| k.env() == name) else {
            if is_service_link(name) {
                continue;
            }
            let nearest = nearest(name, keys.iter().map(Key::env));
            return Err(Error::UnknownKey {
                key: name.to_owned(),
                origin: Source::Env(name.into()),
                nearest,
            });
        };
        let value = value.into_string().map_err(|bad| Error::Value {
            key: key.camel(),
            value: bad.to_string_lossy().into_owned(),
            origin: Source::Env(name.to_owned()),
            accepted: format!("{} (in UTF-8)", (key.accepted)()),
        })?;
        values.insert(key.field.to_owned(), Value::from(value));
    }
    Ok((values, config))
}

/// Kubernetes puts variables of every Service of the namespace into a pod; one called `eastwest-…` is no setting.
fn is_service_link(name: &str) -> bool {
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || name.split_once("_PORT").is_some_and(|(service, rest)| {
            service.len() > "EASTWEST_".len()
                && (rest.is_empty() || rest.trim_start_matches('_').starts_with(|c: char| c.is_ascii_digit()))
        })
}

fn from_file(keys: &[Key], path: &Path) -> Result<Dict, Error> {
    let content =
        std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    // An empty file, or one of comments only, is a valid YAML null.
    let parsed: Option<Dict> =
        Yaml::from_str(&content).map_err(|e| Error::Yaml { path: path.to_owned(), reason: e.to_string() })?;
    let origin = || Source::File(path.to_owned());
    let mut values = Dict::new();
    for (name, value) in parsed.unwrap_or_default() {
        let Some(key) = keys.iter().find(|k| k.camel() == name) else {
            let nearest = nearest(&name, keys.iter().map(Key::camel));
            return Err(Error::UnknownKey { key: name, origin: origin(), nearest });
        };
        let text = scalar(&value).or_else(|| match &value {
            Value::Array(_, items) if key.list => {
                items.iter().map(scalar).collect::<Option<Vec<_>>>().map(|i| i.join(","))
            }
            _ => None,
        });
        let text = text.ok_or_else(|| Error::Value {
            key: name,
            value: format!("a {}", value.to_actual()),
            origin: origin(),
            accepted: (key.accepted)().into_owned(),
        })?;
        values.insert(key.field.to_owned(), Value::from(text));
    }
    Ok(values)
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(_, s) => Some(s.clone()),
        Value::Char(_, c) => Some(c.to_string()),
        Value::Bool(_, b) => Some(b.to_string()),
        Value::Num(_, n) => n
            .to_u128()
            .map(|n| n.to_string())
            .or_else(|| n.to_i128().map(|n| n.to_string()))
            .or_else(|| n.to_f64().map(|n| n.to_string())),
        Value::Empty(..) => Some(String::new()),
        Value::Dict(..) | Value::Array(..) => None,
    }
}

/// The known name most like `name`, if any is alike.
fn nearest(name: &str, known: impl Iterator<Item = String>) -> Option<String> {
    let lower = name.to_ascii_lowercase().replace(['_', '-'], "");
    known
        .map(|k| (strsim::jaro_winkler(&lower, &k.to_ascii_lowercase().replace(['_', '-'], "")), k))
        .filter(|(similarity, _)| *similarity > 0.7)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, k)| k)
}
