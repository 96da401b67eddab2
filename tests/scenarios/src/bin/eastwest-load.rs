//! Keeps asking from where it runs, and prints what it counted; see `eastwest_scenarios::load`.

use anyhow::{Context, Result};
use eastwest_scenarios::load;

fn main() -> Result<()> {
    let plan = std::env::args().nth(1).context("usage: eastwest-load PLAN (as JSON)")?;
    let plan: load::Plan = serde_json::from_str(&plan).context("PLAN")?;
    println!("{}", serde_json::to_string(&load::run(&plan))?);
    Ok(())
}
