//! `eastwest demo`: a cluster in network namespaces, and what its Services do, shown with what was really seen.

mod load;
mod steps;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use eastwest_lab::{Family, Lab, Network, Options, PodHook};

use crate::interrupt::TakesDown;
use crate::output::say;

#[derive(clap::Args, Debug)]
pub struct DemoArgs {
    /// Leave the lab up afterwards
    #[arg(long)]
    keep: bool,
    /// Name of the lab
    #[arg(long, default_value = "demo")]
    name: String,
    #[arg(long, default_value = "ptp", value_name = "ptp|bridge|vxlan")]
    network: Network,
    /// Where agents hook pods' devices
    #[arg(long, default_value = "tc", value_name = "tc|xdp")]
    pod_hook: PodHook,
}

/// Counts what held, and prints each step as it ends.
struct Stage {
    lab: Lab,
    held: usize,
    failed: usize,
}

impl Stage {
    /// A step is one claim; what it returns is what was seen. A step that fails does not end the demo: the next may tell
    /// more.
    fn step(&mut self, title: &str, f: impl FnOnce(&Lab) -> Result<Vec<String>>) {
        let (mark, seen) = match f(&self.lab) {
            Ok(seen) => {
                self.held += 1;
                ('✓', seen)
            }
            Err(e) => {
                self.failed += 1;
                ('✗', vec![crate::output::chain(&e)])
            }
        };
        say!("{mark} {title}");
        for line in seen {
            say!("    {line}");
        }
    }
}

pub fn run(args: DemoArgs) -> Result<ExitCode> {
    let started = Instant::now();
    say!("A cluster of three nodes, each a network namespace on this machine with the real agent in it.\n");
    let interrupt = TakesDown::lab(&args.name)?;
    let options = Options {
        name: args.name.clone(),
        nodes: 3,
        network: args.network,
        family: Family::Dual,
        pod_hook: args.pod_hook,
        ..Options::default()
    };
    let lab = Lab::up(options)?;
    let mut stage = Stage { lab, held: 0, failed: 0 };
    let built = started.elapsed();
    stage.step("controller and agents run, and have found each other", |lab| steps::cluster(lab, built));
    if stage.failed == 0 {
        steps::all(&mut stage);
    }
    let Stage { mut lab, held, failed } = stage;

    let name = args.name;
    let all = held + failed;
    let seconds = started.elapsed().as_secs_f64();
    if failed == 0 {
        say!("\nAll {all} steps held, in {seconds:.1} s.");
    } else {
        say!("\n{failed} of {all} steps failed, in {seconds:.1} s.");
    }
    if args.keep {
        lab.keep();
        say!("The lab is still up. Look around with");
        say!("  eastwest --lab {name} status");
        say!("  eastwest --lab {name} get services -A");
        say!("  eastwest --lab {name} dns web");
        say!("  eastwest lab --name {name} exec client-pod -- curl -s http://web");
        say!("  eastwest lab --name {name} status       # pods, processes, logs, kubeconfig");
        say!("  eastwest lab --name {name} down");
    } else {
        lab.down()?;
        let again = "eastwest demo --keep (make demo ARGS=--keep)";
        if failed == 0 {
            say!("The lab is down again, nothing is left. To look around in it: {again}");
        } else {
            say!("The lab is down again. For its logs: {again}");
        }
        say!("A lab of your own: eastwest lab up --help. How it works: ARCHITECTURE.md");
    }
    drop(interrupt);
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
