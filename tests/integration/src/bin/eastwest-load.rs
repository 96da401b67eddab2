//! Keeps asking from where it runs, and says what it saw; see `eastwest_integration::load`.

use anyhow::{Context, Result};
use eastwest_integration::load;

fn main() -> Result<()> {
    let plan =
        std::env::args().nth(1).context("usage: eastwest-load PLAN (as JSON); it ends with its input")?;
    load::serve(&serde_json::from_str(&plan).context("PLAN")?)
}
