//! Manifests from files, folders and standard input, each with the line where it begins.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::Value;

#[derive(Clone, Debug)]
pub struct Manifest {
    /// `FILE:LINE`.
    pub place: String,
    pub object: Value,
}

/// What `-f` names, in order; of a folder its `.yaml`, `.yml` and `.json` files by name.
pub fn read(names: &[PathBuf]) -> Result<Vec<Manifest>> {
    let mut manifests = Vec::new();
    for name in names {
        if name == Path::new("-") {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).context("read standard input")?;
            manifests.extend(parse("standard input", &text)?);
        } else if name.is_dir() {
            for file in files(name)? {
                manifests.extend(parse(&file.display().to_string(), &read_file(&file)?)?);
            }
        } else {
            manifests.extend(parse(&name.display().to_string(), &read_file(name)?)?);
        }
    }
    if manifests.is_empty() {
        bail!("no objects in what -f names");
    }
    Ok(manifests)
}

fn read_file(file: &Path) -> Result<String> {
    fs::read_to_string(file).with_context(|| format!("read {}", file.display()))
}

fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("read {}", dir.display()))? {
        let path = entry?.path();
        let extension = path.extension().and_then(|e| e.to_str());
        if path.is_file() && matches!(extension, Some("yaml" | "yml" | "json")) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// The objects of a stream of YAML documents (JSON is one), with `List`s taken apart.
pub fn parse(file: &str, text: &str) -> Result<Vec<Manifest>> {
    let mut manifests = Vec::new();
    for (line, document) in documents(text) {
        let value =
            yaml(line, document).map_err(|(at, e)| anyhow::anyhow!("{file}:{}: {e}", at.unwrap_or(line)))?;
        let place = format!("{file}:{line}");
        match value {
            Value::Null => {}
            Value::Object(ref map) if map.get("kind").and_then(Value::as_str) == Some("List") => {
                let items = value["items"].as_array().cloned().unwrap_or_default();
                manifests.extend(items.into_iter().map(|object| Manifest { place: place.clone(), object }));
            }
            Value::Object(_) => manifests.push(Manifest { place, object: value }),
            _ => bail!("{place}: not an object: a manifest has apiVersion, kind and metadata"),
        }
    }
    Ok(manifests)
}

/// YAML or JSON to JSON; the error with its line in the file, where the parser knows it.
fn yaml(line: usize, text: &str) -> Result<Value, (Option<usize>, String)> {
    let json_like = text.trim_start().starts_with('{');
    if json_like && let Ok(value) = serde_json::from_str(text) {
        return Ok(value);
    }
    let located = |e: serde_yaml_ng::Error| (e.location().map(|l| l.line()), e.to_string());
    let mut value: Option<serde_yaml_ng::Value> = None;
    // Blank lines in front, so that the lines the parser speaks of are those of the file.
    let placed = "\n".repeat(line - 1) + text;
    for document in serde_yaml_ng::Deserializer::from_str(&placed) {
        value = Some(serde_yaml_ng::Value::deserialize(document).map_err(located)?);
    }
    let Some(mut value) = value else { return Ok(Value::Null) };
    value.apply_merge().map_err(located)?;
    serde_json::to_value(value).map_err(|e| (None, e.to_string()))
}

/// The documents of a YAML stream with the line of the first that is not blank or a comment, counted from 1.
fn documents(text: &str) -> Vec<(usize, &str)> {
    let mut documents = Vec::new();
    let (mut start, mut at, mut first) = (0, 0, 1);
    let mut push = |from: usize, to: usize, first: usize| {
        let body = &text[from..to];
        let blank = |l: &&str| l.trim().is_empty() || l.trim_start().starts_with('#');
        let skipped = body.lines().take_while(blank).count();
        if skipped < body.lines().count() {
            let skipped_bytes: usize = body.split_inclusive('\n').take(skipped).map(str::len).sum();
            documents.push((first + skipped, &body[skipped_bytes..]));
        }
    };
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let end = line.trim_end();
        if end == "---" || end.starts_with("--- ") || end == "..." {
            push(start, at, first);
            start = at + line.len();
            first = number + 2;
        }
        at += line.len();
    }
    push(start, text.len(), first);
    documents
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(text: &str) -> Vec<String> {
        let found = parse("f", text).unwrap();
        found.iter().map(|m| format!("{} {}", m.place, m.object["kind"].as_str().unwrap_or("?"))).collect()
    }

    #[test]
    fn documents_know_their_line() {
        for (text, want) in [
            ("kind: A\n", vec!["f:1 A"]),
            ("---\nkind: A\n---\n# what for\n\nkind: B\n", vec!["f:2 A", "f:6 B"]),
            ("# only a comment\n---\n", vec![]),
            ("kind: A\n---\n---\nkind: B", vec!["f:1 A", "f:4 B"]),
            ("{\"kind\": \"A\"}", vec!["f:1 A"]),
            ("kind: List\nitems:\n- kind: A\n- kind: B\n", vec!["f:1 A", "f:1 B"]),
            ("a: &x {kind: C}\n<<: *x\n", vec!["f:1 C"]),
        ] {
            assert_eq!(places(text), want, "{text:?}");
        }
    }

    #[test]
    fn errors_name_the_line() {
        for (text, want) in [
            ("kind: A\n---\nkind: B\nspec: [1, 2\n", "f:5: did not find"),
            ("kind: A\n---\n- 1\n", "f:3: not an object"),
            ("kind: A\n---\nkind: B\n\tspec: 1\n", "f:4"),
        ] {
            let error = parse("f", text).unwrap_err().to_string();
            assert!(error.starts_with(want), "{text:?}: {error}");
        }
    }
}
