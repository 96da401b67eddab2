//! Asks from where it runs, and prints what it saw; see `eastwest_scenarios::probe`.

use anyhow::{Context, Result};
use eastwest_scenarios::probe;

fn main() -> Result<()> {
    let probe = std::env::args().nth(1).context("usage: eastwest-probe PROBE (as JSON)")?;
    let probe: probe::Probe = serde_json::from_str(&probe).context("PROBE")?;
    println!("{}", serde_json::to_string(&probe::run(&probe))?);
    Ok(())
}
