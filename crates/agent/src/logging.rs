//! Logs to standard error; the level changes while running.

use anyhow::Context as _;
use eastwest_settings::choice;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, fmt, reload};

choice! {
    /// Form of a log line.
    pub enum Format { Text = "text", Json = "json" }
}

/// Changes the level of the running process.
#[derive(Clone)]
pub struct Level(reload::Handle<EnvFilter, Registry>);

/// Installs the process's logger.
pub fn init(level: &str, format: Format) -> anyhow::Result<Level> {
    let (filter, handle) = reload::Layer::new(parse(level)?);
    let registry = tracing_subscriber::registry().with(filter);
    let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
    match format {
        Format::Text => {
            registry.with(fmt::layer().with_writer(std::io::stderr).with_ansi(colours)).try_init()
        }
        Format::Json => registry.with(fmt::layer().json().with_writer(std::io::stderr)).try_init(),
    }
    .context("logging")?;
    Ok(Level(handle))
}

impl Level {
    pub fn set(&self, level: &str) -> anyhow::Result<()> {
        self.0.reload(parse(level)?).context("logging")
    }
}

fn parse(level: &str) -> anyhow::Result<EnvFilter> {
    EnvFilter::try_new(level).with_context(|| {
        format!("logLevel {level:?}; accepted: error, warn, info, debug, trace, or TARGET=LEVEL,…")
    })
}
