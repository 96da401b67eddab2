use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use eastwest_client::{Error, WriteOptions};
use eastwest_model::Revision;
use serde_json::Value;

use crate::args::{To, duration};
use crate::kinds::{display, name_of, namespace_of};
use crate::output::say;
use crate::{manifest, server, wait};

#[derive(clap::Args, Debug)]
pub struct ApplyArgs {
    /// A manifest, a folder of them, or - for standard input; may be given several times
    #[arg(short, long = "filename", required = true, value_name = "FILE")]
    file: Vec<PathBuf>,
    /// For manifests that name no namespace
    #[arg(short, long)]
    namespace: Option<String>,
    /// Return when every node has programmed all of it
    #[arg(long)]
    wait: bool,
    /// How long to wait
    #[arg(long, default_value = "30s", value_parser = duration, requires = "wait")]
    timeout: Duration,
    /// Let the server check everything, and write nothing
    #[arg(long)]
    dry_run: bool,
}

/// Every manifest is tried, so that one run shows all that is wrong.
pub async fn run(to: To, args: ApplyArgs) -> Result<ExitCode> {
    let manifests = manifest::read(&args.file)?;
    let client = server::connect(&to).await?;
    let options = WriteOptions {
        dry_run: args.dry_run,
        field_validation: Some("Strict".into()),
        ..WriteOptions::default()
    };
    let mut failed = 0;
    let mut newest = Revision(0);
    for m in &manifests {
        match client.apply(&m.object, args.namespace.as_deref(), &options).await {
            Ok(applied) => {
                let note = if args.dry_run { " (dry run)" } else { "" };
                say!("{} {}{note}", display(applied.kind, name_of(&applied.object)), applied.outcome);
                newest = newest.max(wait::revision_of(&applied.object).unwrap_or_default());
            }
            Err(e) => {
                failed += 1;
                eprintln!("error: {}: {}", m.place, failure(&m.object, &e));
            }
        }
    }
    if failed > 0 {
        if manifests.len() > 1 {
            eprintln!("error: {failed} of {} objects not applied", manifests.len());
        }
        return Ok(ExitCode::FAILURE);
    }
    if args.wait && !args.dry_run {
        wait::programmed(&client, newest, args.timeout).await?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Which object, and each thing wrong with it on a line of its own.
fn failure(object: &Value, error: &Error) -> String {
    let kind = object["kind"].as_str().unwrap_or("object");
    let name = match (namespace_of(object), name_of(object)) {
        (Some(ns), name) => format!("{kind} {ns}/{name}"),
        (None, "") => kind.to_owned(),
        (None, name) => format!("{kind} {name}"),
    };
    let causes = match error {
        Error::Status(status) => status.details.as_ref().map_or(&[][..], |d| &d.causes),
        _ => &[],
    };
    let fields: Vec<_> = causes.iter().filter(|c| !c.field.is_empty()).collect();
    if fields.is_empty() {
        return format!("{name}: {error}");
    }
    let lines = fields.iter().map(|c| format!("\n  {}: {}", c.field, c.message));
    format!("{name}:{}", lines.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use eastwest_client::{Status, StatusCause};
    use serde_json::json;

    #[test]
    fn failures_name_object_and_fields() {
        let object = json!({"kind": "Service", "metadata": {"name": "web", "namespace": "shop"}});
        let mut status = Status { message: "is invalid".into(), code: 422, ..Status::default() };
        let plain = Error::Status(Box::new(status.clone()));
        assert_eq!(failure(&object, &plain), "Service shop/web: is invalid");
        let cause = |field: &str| StatusCause {
            field: field.into(),
            message: "Required value".into(),
            ..StatusCause::default()
        };
        let details = status.details.get_or_insert_default();
        details.causes = vec![cause("spec.ports[0].port"), cause("spec.type")];
        assert_eq!(
            failure(&object, &Error::Status(Box::new(status))),
            "Service shop/web:\n  spec.ports[0].port: Required value\n  spec.type: Required value"
        );
    }
}
