//! `eastwest-agent cleanup --drain`: waits until nothing needs the programs any more.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use tokio::time::Instant;
use tracing::info;

const PERIOD: Duration = Duration::from_millis(500);

/// New connections are left to others from here on. Returns when those that are open have ended, or after `most`, and does
/// nothing when that is zero.
///
/// # Errors
/// When the kernel refuses.
pub async fn drain(pin_dir: &Path, most: Duration) -> anyhow::Result<()> {
    if most.is_zero() {
        return Ok(());
    }
    eastwest_dataplane::retire(pin_dir).await.context("new connections are not left to others")?;
    let end = Instant::now() + most;
    let mut open = eastwest_dataplane::forget_ended_flows(pin_dir)?;
    info!(open, most_s = most.as_secs(), "waiting for connections to end");
    while open > 0 && Instant::now() < end {
        tokio::time::sleep(PERIOD).await;
        open = eastwest_dataplane::forget_ended_flows(pin_dir)?;
    }
    info!(open, "connections that end now");
    Ok(())
}
