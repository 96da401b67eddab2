//! Keeps asking from where it runs, and prints what it counted; see `eastwest_scenarios::traffic`.

use anyhow::{Context, Result};
use eastwest_scenarios::traffic;

fn main() -> Result<()> {
    let plan = std::env::args().nth(1).context("usage: eastwest-traffic PLAN (as JSON)")?;
    let plan: traffic::Plan = serde_json::from_str(&plan).context("PLAN")?;
    println!("{}", serde_json::to_string(&traffic::run(&plan))?);
    Ok(())
}
