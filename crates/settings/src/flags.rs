use std::collections::BTreeMap;
use std::ffi::OsString;
use std::marker::PhantomData;
use std::path::PathBuf;

use clap::builder::ValueRange;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use crate::load::{Error, Loaded, load};
use crate::{Key, Settings};

/// The flags of a set of settings, with `--config` and `--print-config`: flatten it into the binary's clap struct.
#[derive(Clone, Debug)]
pub struct Flags<S> {
    config: Option<PathBuf>,
    print_config: bool,
    /// What was given, by field.
    given: BTreeMap<&'static str, String>,
    settings: PhantomData<fn() -> S>,
}

impl<S: Settings> Flags<S> {
    /// Whether the user asked for the resulting configuration instead of a run.
    pub fn print_config(&self) -> bool {
        self.print_config
    }

    /// Merges all layers. `env` is the process's environment (`std::env::vars_os()`); what does not begin with
    /// `EASTWEST_` is ignored. Reads the file of `--config` or `EASTWEST_CONFIG`.
    pub fn load(&self, env: impl IntoIterator<Item = (OsString, OsString)>) -> Result<Loaded<S>, Error> {
        load(self.config.clone(), env, &self.given)
    }
}

fn arg(key: &Key) -> Arg {
    let default = (key.default)();
    let mut help = key.doc.trim().to_owned();
    if help.ends_with('.') {
        help.pop();
    }
    if key.choice {
        help.push_str(&format!(" [one of: {}]", (key.accepted)()));
    }
    if !default.is_empty() {
        help.push_str(&format!(" [default: {default}]"));
    }
    let arg = Arg::new(key.field)
        .long(key.kebab())
        .help(help)
        .value_name(key.field.rsplit('_').next().unwrap_or(key.field).to_ascii_uppercase())
        .action(if key.list { ArgAction::Append } else { ArgAction::Set })
        .help_heading("Settings (also in YAML in camelCase, and as EASTWEST_… in the environment)")
        .global(true);
    if key.switch {
        arg.num_args(ValueRange::from(0..=1)).require_equals(true).default_missing_value("true")
    } else {
        arg
    }
}

impl<S: Settings> Args for Flags<S> {
    fn augment_args(command: Command) -> Command {
        command
            .arg(
                Arg::new("config")
                    .long("config")
                    .value_name("FILE")
                    .help("YAML file with settings [env: EASTWEST_CONFIG]")
                    .value_parser(clap::value_parser!(PathBuf))
                    .global(true),
            )
            .arg(
                Arg::new("print_config")
                    .long("print-config")
                    .help("Print the resulting settings, each with its source, and exit")
                    .action(ArgAction::SetTrue)
                    .global(true),
            )
            .args(S::keys().iter().map(arg))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl<S: Settings> FromArgMatches for Flags<S> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut given = BTreeMap::new();
        for key in S::keys() {
            if let Some(values) = matches.get_many::<String>(key.field) {
                given.insert(key.field, values.map(String::as_str).collect::<Vec<_>>().join(","));
            }
        }
        Ok(Self {
            config: matches.get_one::<PathBuf>("config").cloned(),
            print_config: matches.get_flag("print_config"),
            given,
            settings: PhantomData,
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
