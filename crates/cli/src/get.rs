use std::process::ExitCode;

use anyhow::{Context, Result, anyhow, bail};
use eastwest_client::lines::{Lines, MAX_LINE};
use eastwest_client::{Client, path};
use eastwest_model::Kind;
use http::{HeaderMap, HeaderValue, Method, header};
use serde_json::{Value, json};

use crate::args::To;
use crate::kinds::{display, kind, name_of, objects};
use crate::output::{Format, Table, cell, put, say};
use crate::server;

#[derive(clap::Args, Debug)]
pub struct GetArgs {
    /// TYPE, TYPE NAME… or TYPE/NAME…
    #[arg(required = true, value_name = "TYPE [NAME]")]
    objects: Vec<String>,
    #[arg(short, long, conflicts_with = "all_namespaces")]
    namespace: Option<String>,
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Label selector: k=v, k!=v, k in (a,b), k, !k, …
    #[arg(short = 'l', long)]
    selector: Option<String>,
    #[arg(long)]
    field_selector: Option<String>,
    /// Go on with what changes
    #[arg(short, long)]
    watch: bool,
    #[arg(short, long, value_enum)]
    output: Option<Format>,
    #[arg(long)]
    no_headers: bool,
}

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

pub async fn run(to: To, args: GetArgs) -> Result<ExitCode> {
    if let [several] = args.objects.as_slice()
        && several.contains(',')
    {
        return get_kinds(to, several, &args).await;
    }
    let (named, of_kind) = objects(&args.objects)?;
    if args.all_namespaces && !named.is_empty() {
        bail!("an object has one namespace: leave out -A, or the name");
    }
    if !named.is_empty() && (args.selector.is_some() || args.field_selector.is_some()) {
        bail!("selectors choose among many: leave them out, or the name");
    }
    let client = server::connect(&to).await?;
    let namespace =
        (!args.all_namespaces).then(|| args.namespace.as_deref().unwrap_or(client.default_namespace()));
    let query = query(&args);
    match (named.as_slice(), of_kind) {
        ([], Some(kind)) => {
            let path = path(kind, namespace, None);
            let list = fetch(&client, &path, &query, &args).await?;
            print(&list, &args, kind, args.all_namespaces && kind.namespaced())?;
            if args.watch {
                watch(&client, &path, query, &list, kind, &args).await?;
            }
        }
        ([(kind, name)], _) => {
            let object = fetch(&client, &path(*kind, namespace, Some(name)), &[], &args).await?;
            print(&object, &args, *kind, false)?;
            if args.watch {
                let query = vec![("fieldSelector", format!("metadata.name={name}"))];
                watch(&client, &path(*kind, namespace, None), query, &object, *kind, &args).await?;
            }
        }
        (several, _) => {
            if args.watch {
                bail!("a watch follows one TYPE or one object");
            }
            return get_several(&client, several, namespace, &args).await;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// `TYPE,TYPE`: a table each.
async fn get_kinds(to: To, kinds: &str, args: &GetArgs) -> Result<ExitCode> {
    let kinds = kinds.split(',').map(kind).collect::<Result<Vec<_>>>()?;
    if args.watch || matches!(args.output, Some(Format::Json | Format::Yaml)) {
        bail!("several types at once are shown as tables or names, and not watched");
    }
    let client = server::connect(&to).await?;
    let namespace =
        (!args.all_namespaces).then(|| args.namespace.as_deref().unwrap_or(client.default_namespace()));
    for (i, kind) in kinds.into_iter().enumerate() {
        if i > 0 && args.output != Some(Format::Name) {
            say!();
        }
        let list = fetch(&client, &path(kind, namespace, None), &query(args), args).await?;
        print(&list, args, kind, args.all_namespaces && kind.namespaced())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Objects by name: those there are, and the rest on standard error.
async fn get_several(
    client: &Client,
    objects: &[(Kind, String)],
    namespace: Option<&str>,
    args: &GetArgs,
) -> Result<ExitCode> {
    let mut code = ExitCode::SUCCESS;
    let mut items = Vec::new();
    for (kind, name) in objects {
        match fetch(client, &path(*kind, namespace, Some(name)), &[], args).await {
            Ok(object) => items.push((*kind, object)),
            Err(e) => {
                eprintln!("error: {e}");
                code = ExitCode::FAILURE;
            }
        }
    }
    if matches!(args.output, Some(Format::Json | Format::Yaml)) {
        let items: Vec<_> = items.into_iter().map(|(_, o)| o).collect();
        let list = json!({"apiVersion": "v1", "kind": "List", "metadata": {}, "items": items});
        print(&list, args, Kind::Service, false)?;
        return Ok(code);
    }
    // Rows of one kind make one table, in the order in which the kinds were named.
    let mut rest = items.into_iter().peekable();
    while let Some((kind, mut first)) = rest.next() {
        while let Some((_, mut next)) = rest.next_if(|(k, _)| *k == kind) {
            if let (Some(rows), Some(more)) = (first["rows"].as_array_mut(), next["rows"].as_array_mut()) {
                rows.append(more);
            } else {
                print(&next, args, kind, false)?;
            }
        }
        print(&first, args, kind, false)?;
    }
    Ok(code)
}

fn query(args: &GetArgs) -> Vec<(&'static str, String)> {
    [("labelSelector", &args.selector), ("fieldSelector", &args.field_selector)]
        .into_iter()
        .filter_map(|(key, value)| Some((key, value.clone()?)))
        .collect()
}

fn headers(args: &GetArgs) -> HeaderMap {
    let plain = matches!(args.output, Some(Format::Json | Format::Yaml | Format::Name));
    let accept = HeaderValue::from_static(if plain { "application/json" } else { TABLE });
    HeaderMap::from_iter([(header::ACCEPT, accept)])
}

async fn fetch(client: &Client, path: &str, query: &[(&str, String)], args: &GetArgs) -> Result<Value> {
    let response = client.raw(Method::GET, path, query, headers(args), None).await?;
    let body = response.bytes().await.context("read the answer")?;
    serde_json::from_slice(&body).context("read the answer")
}

fn items(value: &Value) -> Vec<&Value> {
    match value["items"].as_array() {
        Some(items) => items.iter().collect(),
        None => vec![value],
    }
}

fn print(value: &Value, args: &GetArgs, kind: Kind, with_namespace: bool) -> Result<()> {
    match args.output {
        Some(Format::Json) => say!("{}", serde_json::to_string_pretty(value)?),
        Some(Format::Yaml) => put(&serde_yaml_ng::to_string(value)?),
        Some(Format::Name) => {
            for item in items(value) {
                say!("{}", display(kind, name_of(item)));
            }
        }
        None | Some(Format::Wide) => {
            let mut table = table(value, args, with_namespace)?;
            if table.rows.is_empty() && !args.watch {
                let place = match (&args.namespace, args.all_namespaces || !kind.namespaced()) {
                    (_, true) => String::new(),
                    (Some(ns), _) => format!(" in namespace {ns}"),
                    (None, _) => " in namespace default".into(),
                };
                eprintln!("no {}{place}", kind.plural());
                return Ok(());
            }
            if args.no_headers {
                let widths = table.widths();
                put(&table.rows_as(&widths));
            } else {
                table.head.iter_mut().for_each(|h| *h = h.to_uppercase());
                put(&table.to_string());
            }
        }
    }
    Ok(())
}

/// From the server's table; from a server that makes none, the names.
fn table(value: &Value, args: &GetArgs, with_namespace: bool) -> Result<Table> {
    let wide = args.output == Some(Format::Wide);
    let mut table = Table::default();
    let Some(columns) = value["columnDefinitions"].as_array() else {
        if value["rows"].is_array() {
            bail!("the server's table has no columns");
        }
        table.head = vec!["NAMESPACE".into(), "NAME".into()];
        table.rows = items(value)
            .into_iter()
            .map(|i| vec![cell(&i["metadata"]["namespace"]), name_of(i).to_owned()])
            .collect();
        return Ok(table);
    };
    let shown: Vec<bool> = columns.iter().map(|c| wide || c["priority"].as_i64().unwrap_or(0) == 0).collect();
    let namespace_head = with_namespace.then(|| "NAMESPACE".to_owned());
    let heads = columns.iter().zip(&shown).filter(|(_, shown)| **shown);
    table.head = namespace_head.into_iter().chain(heads.map(|(c, _)| cell(&c["name"]))).collect();
    for row in value["rows"].as_array().into_iter().flatten() {
        let namespace = with_namespace.then(|| cell(&row["object"]["metadata"]["namespace"]));
        let cells = row["cells"].as_array().into_iter().flatten().zip(&shown).filter(|(_, shown)| **shown);
        table.rows.push(namespace.into_iter().chain(cells.map(|(c, _)| cell(c))).collect());
    }
    Ok(table)
}

async fn watch(
    client: &Client,
    path: &str,
    mut query: Vec<(&'static str, String)>,
    listed: &Value,
    kind: Kind,
    args: &GetArgs,
) -> Result<()> {
    let from = &listed["metadata"]["resourceVersion"];
    let from = from.as_str().ok_or_else(|| anyhow!("the server's list has no resourceVersion"))?;
    query.extend([("watch", "true".into()), ("resourceVersion", from.to_owned())]);
    let with_namespace = args.all_namespaces && kind.namespaced();
    let widths = match args.output {
        None | Some(Format::Wide) => table(listed, args, with_namespace)?.widths(),
        _ => Vec::new(),
    };
    let mut response = client.raw(Method::GET, path, &query, headers(args), None).await?;
    let mut lines = Lines::new(MAX_LINE);
    // A table's columns may come with its first event alone.
    let mut columns = listed["columnDefinitions"].clone();
    while let Some(chunk) = response.chunk().await.context("read the watch")? {
        lines.push(&chunk);
        while let Some(line) = lines.next_line()? {
            let mut event: Value = serde_json::from_slice(&line).context("read the watch")?;
            let mut object = event["object"].take();
            match event["type"].as_str() {
                Some("BOOKMARK") => continue,
                Some("ERROR") => bail!("{}", object["message"].as_str().unwrap_or("the watch failed")),
                _ => {}
            }
            if object["kind"] == "Table" {
                if object["columnDefinitions"].as_array().is_some_and(|c| !c.is_empty()) {
                    columns = object["columnDefinitions"].clone();
                } else {
                    object["columnDefinitions"] = columns.clone();
                }
                put(&table(&object, args, with_namespace)?.rows_as(&widths));
            } else {
                print(&object, args, kind, false)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Only {
        #[command(flatten)]
        get: GetArgs,
    }

    fn args(words: &[&str]) -> GetArgs {
        Only::parse_from(["get"].iter().chain(words)).get
    }

    fn sample() -> Value {
        json!({
            "kind": "Table",
            "columnDefinitions": [
                {"name": "Name", "priority": 0}, {"name": "Type", "priority": 0}, {"name": "Selector", "priority": 1},
            ],
            "rows": [
                {"cells": ["web", "ClusterIP", "app=web"], "object": {"metadata": {"namespace": "shop"}}},
                {"cells": ["db", null, 3], "object": {"metadata": {"namespace": "default"}}},
            ],
        })
    }

    #[test]
    fn tables() {
        for (words, namespace, want) in [
            (&["svc"][..], false, "Name   Type\nweb    ClusterIP\ndb     <none>\n"),
            (
                &["svc", "-o", "wide"],
                false,
                "Name   Type        Selector\nweb    ClusterIP   app=web\ndb     <none>      3\n",
            ),
            (
                &["svc", "-A"],
                true,
                "NAMESPACE   Name   Type\nshop        web    ClusterIP\ndefault     db     <none>\n",
            ),
        ] {
            assert_eq!(table(&sample(), &args(words), namespace).unwrap().to_string(), want);
        }
    }

    #[test]
    fn a_server_without_tables_gives_names() {
        let list = json!({"items": [{"metadata": {"name": "a", "namespace": "n"}}]});
        let shown = table(&list, &args(&["svc"]), false).unwrap().to_string();
        assert_eq!(shown, "NAMESPACE   NAME\nn           a\n");
    }
}
