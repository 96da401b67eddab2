use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use eastwest_client::{Client, Error, ListOptions, path};
use eastwest_model::{Node, NodeState, Resource, Revision};
use http::Method;
use serde_json::Value;
use tokio::time::Instant;

use crate::args::{To, duration};
use crate::kinds::{display, objects};
use crate::output::say;
use crate::server;

#[derive(clap::Args, Debug)]
pub struct WaitArgs {
    /// TYPE NAME… or TYPE/NAME…; none with --for=programmed: all that is written so far
    #[arg(value_name = "TYPE NAME")]
    objects: Vec<String>,
    /// programmed (on every node), delete, or condition=TYPE[=STATUS]
    #[arg(long = "for", value_name = "WHAT")]
    what: What,
    #[arg(long, default_value = "30s", value_parser = duration)]
    timeout: Duration,
    #[arg(short, long)]
    namespace: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum What {
    Programmed,
    Delete,
    Condition { type_: String, status: String },
}

impl std::str::FromStr for What {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        match (s, s.strip_prefix("condition=")) {
            ("programmed", _) => Ok(What::Programmed),
            ("delete", _) => Ok(What::Delete),
            (_, Some(condition)) if !condition.is_empty() => {
                let (type_, status) = condition.split_once('=').unwrap_or((condition, "True"));
                Ok(What::Condition { type_: type_.into(), status: status.into() })
            }
            _ => Err("programmed, delete or condition=TYPE[=STATUS]".into()),
        }
    }
}

/// How often to ask: short against what a person or a script notices.
const PAUSE: Duration = Duration::from_millis(50);

pub async fn run(to: To, args: WaitArgs) -> Result<ExitCode> {
    let (named, of_kind) = objects(&args.objects)?;
    if let (true, Some(kind)) = (named.is_empty(), of_kind) {
        bail!("which of the {}? give their names", kind.plural());
    }
    let client = server::connect(&to).await?;
    let deadline = Instant::now() + args.timeout;
    if named.is_empty() {
        if args.what != What::Programmed {
            bail!("what for? give TYPE and NAME");
        }
        let all = client.list::<Node>(None, &ListOptions::default()).await?;
        let revision = all.metadata.resource_version.parse().context("revision of the server")?;
        programmed(&client, revision, args.timeout).await?;
        say!("revision {revision} programmed on every node");
        return Ok(ExitCode::SUCCESS);
    }
    let namespace = args.namespace.as_deref().unwrap_or(client.default_namespace());
    for (kind, name) in named {
        let shown = display(kind, &name);
        let object_path = path(kind, Some(namespace), Some(&name));
        let get = || client.json::<Value>(Method::GET, &object_path, &[], None);
        match &args.what {
            What::Programmed => {
                let object = get().await?;
                let revision = revision_of(&object).context("its resourceVersion is no revision")?;
                programmed(&client, revision, deadline.saturating_duration_since(Instant::now())).await?;
                say!("{shown} programmed");
            }
            What::Delete => {
                until(deadline, &shown, async || match get().await {
                    Err(e) if e.is_not_found() => Ok(None),
                    Err(e) => Err(e),
                    Ok(_) => Ok(Some("is still there".into())),
                })
                .await?;
                say!("{shown} is gone");
            }
            What::Condition { type_, status } => {
                until(deadline, &shown, async || Ok(lacks(&get().await?, type_, status))).await?;
                say!("{shown} condition met");
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Asks until there is nothing to say against it.
async fn until(
    deadline: Instant,
    what: &str,
    ask: impl AsyncFn() -> Result<Option<String>, Error>,
) -> Result<()> {
    loop {
        let Some(missing) = ask().await? else { return Ok(()) };
        if Instant::now() >= deadline {
            bail!("timed out: {what} {missing}");
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn lacks(object: &Value, type_: &str, status: &str) -> Option<String> {
    let conditions = object["status"]["conditions"].as_array();
    let found = conditions
        .into_iter()
        .flatten()
        .find(|c| c["type"].as_str().is_some_and(|t| t.eq_ignore_ascii_case(type_)));
    match found.and_then(|c| c["status"].as_str()) {
        Some(s) if s.eq_ignore_ascii_case(status) => None,
        Some(s) => Some(format!("has condition {type_}={s}")),
        None => Some(format!("has no condition {type_}")),
    }
}

pub fn revision_of(object: &Value) -> Option<Revision> {
    object["metadata"]["resourceVersion"].as_str()?.parse().ok()
}

/// Returns when every node's agent reports that it has programmed `revision`.
pub async fn programmed(client: &Client, revision: Revision, timeout: Duration) -> Result<()> {
    let deadline = Instant::now() + timeout;
    let what = format!("revision {revision}");
    until(deadline, &what, async || {
        let nodes = client.list::<Node>(None, &ListOptions::default()).await?.items;
        let states = client.list::<NodeState>(None, &ListOptions::default()).await?.items;
        let behind: Vec<String> = nodes.iter().filter_map(|n| behind(n, &states, revision)).collect();
        Ok((!behind.is_empty()).then(|| format!("is not programmed by {}", behind.join(", "))))
    })
    .await
}

fn behind(node: &Node, states: &[NodeState], revision: Revision) -> Option<String> {
    let name = &node.metadata().name;
    match states.iter().find(|s| s.metadata.name == *name).map(|s| &s.status) {
        Some(s) if s.applied_revision >= revision => None,
        Some(s) if s.connected => Some(format!("{name} (has {})", s.applied_revision)),
        Some(s) => Some(format!("{name} (has {}, not connected)", s.applied_revision)),
        None => Some(format!("{name} (no report)")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_to_wait_for() {
        let condition = |t: &str, s: &str| What::Condition { type_: t.into(), status: s.into() };
        for (text, want) in [
            ("programmed", Some(What::Programmed)),
            ("delete", Some(What::Delete)),
            ("condition=Ready", Some(condition("Ready", "True"))),
            ("condition=Ready=False", Some(condition("Ready", "False"))),
            ("condition=", None),
            ("jsonpath=x", None),
        ] {
            assert_eq!(text.parse::<What>().ok(), want, "{text}");
        }
    }

    #[test]
    fn conditions() {
        let object = json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}});
        assert_eq!(lacks(&object, "ready", "false"), None);
        assert_eq!(lacks(&object, "Ready", "True").as_deref(), Some("has condition Ready=False"));
        assert_eq!(lacks(&json!({}), "Ready", "True").as_deref(), Some("has no condition Ready"));
    }

    #[test]
    fn nodes_that_are_behind() {
        let node = Node {
            metadata: eastwest_model::ObjectMeta { name: "n".into(), ..Default::default() },
            ..Default::default()
        };
        let mut state = NodeState { metadata: node.metadata.clone(), ..NodeState::default() };
        state.status.applied_revision = Revision(7);
        state.status.connected = true;
        for (states, revision, want) in [
            (vec![state.clone()], 7, None),
            (vec![state], 8, Some("n (has 7)")),
            (vec![], 1, Some("n (no report)")),
        ] {
            assert_eq!(behind(&node, &states, Revision(revision)).as_deref(), want);
        }
    }
}
