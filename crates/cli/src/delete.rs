use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, anyhow, bail};
use eastwest_client::WriteOptions;
use eastwest_model::Kind;

use crate::args::To;
use crate::kinds::{display, name_of, namespace_of, objects};
use crate::output::say;
use crate::{manifest, server};

#[derive(clap::Args, Debug)]
pub struct DeleteArgs {
    /// TYPE NAME… or TYPE/NAME…
    #[arg(required_unless_present = "file", conflicts_with = "file", value_name = "TYPE NAME")]
    objects: Vec<String>,
    /// The objects that a manifest names
    #[arg(short, long = "filename", value_name = "FILE")]
    file: Vec<PathBuf>,
    #[arg(short, long)]
    namespace: Option<String>,
    /// An object that is not there is no failure
    #[arg(long)]
    ignore_not_found: bool,
}

pub async fn run(to: To, args: DeleteArgs) -> Result<ExitCode> {
    let mut targets: Vec<(Kind, String, Option<String>)> = Vec::new();
    if args.file.is_empty() {
        let (objects, of_kind) = objects(&args.objects)?;
        if let (true, Some(kind)) = (objects.is_empty(), of_kind) {
            bail!("which of the {}? give their names", kind.plural());
        }
        targets.extend(objects.into_iter().map(|(kind, name)| (kind, name, None)));
    } else {
        for m in manifest::read(&args.file)? {
            let text = |key: &str| m.object[key].as_str().unwrap_or_default();
            let kind = Kind::of(text("apiVersion"), text("kind"))
                .ok_or_else(|| anyhow!("{}: no kind {:?} here", m.place, text("kind")))?;
            if name_of(&m.object).is_empty() {
                bail!("{}: metadata.name is required", m.place);
            }
            targets.push((kind, name_of(&m.object).into(), namespace_of(&m.object).map(str::to_owned)));
        }
    }
    let client = server::connect(&to).await?;
    let mut code = ExitCode::SUCCESS;
    for (kind, name, own_namespace) in targets {
        let namespace = own_namespace.or_else(|| args.namespace.clone());
        let namespace = namespace.as_deref().unwrap_or(client.default_namespace());
        match client.delete(kind, namespace, &name, &WriteOptions::default()).await {
            Ok(_) => say!("{} deleted", display(kind, &name)),
            Err(e) if e.is_not_found() && args.ignore_not_found => {}
            Err(e) => {
                eprintln!("error: {}: {e}", display(kind, &name));
                code = ExitCode::FAILURE;
            }
        }
    }
    Ok(code)
}
