//! The table on eastwest, with both pod hooks. `SCENARIO=text` plays those whose name contains the text.

use std::path::PathBuf;

use eastwest_lab::{Options, PodHook};
use eastwest_scenarios::lab::OnLab;
use eastwest_scenarios::{Proxy, Table, play};

fn on_lab(name: &str, pod_hook: PodHook) {
    let table = Table::services().expect("the table reads");
    let options = Options { name: name.into(), pod_hook, ..Options::default() };
    let lab = OnLab::up(&table, options, PathBuf::from(env!("CARGO_BIN_EXE_eastwest-probe")));
    let lab = lab.unwrap_or_else(|e| panic!("{e:?}"));
    let only = std::env::var("SCENARIO").unwrap_or_default();
    let outcome = play(&lab, &table, Proxy::Eastwest, &only);
    assert!(outcome.asked > 0, "no scenario's name contains {only:?}");
    println!("{} questions, {} differences", outcome.asked, outcome.differences.len());
    assert!(
        outcome.differences.is_empty(),
        "{} of {}:\n{}",
        outcome.differences.len(),
        outcome.asked,
        outcome.differences.join("\n")
    );
}

#[test]
fn services_with_tc() {
    on_lab("scen_tc", PodHook::Tc);
}

#[test]
fn services_with_xdp() {
    on_lab("scen_xdp", PodHook::Xdp);
}
