//! The table on eastwest, with both pod hooks. `SCENARIO=text` plays those whose name contains the text.

use std::path::PathBuf;

use eastwest_lab::{Options, PodHook};
use eastwest_scenarios::lab::OnLab;
use eastwest_scenarios::{Proxy, Table, check};

fn on_lab(name: &str, pod_hook: PodHook) {
    let table = Table::services().expect("the table reads");
    let options = Options { name: name.into(), pod_hook, ..Options::default() };
    let lab = OnLab::up(&table, options, PathBuf::from(env!("CARGO_BIN_EXE_eastwest-probe")));
    let lab = lab.unwrap_or_else(|e| panic!("{e:?}"));
    check(&lab, &table, Proxy::Eastwest);
}

#[test]
fn services_with_tc() {
    on_lab("scen_tc", PodHook::Tc);
}

#[test]
fn services_with_xdp() {
    on_lab("scen_xdp", PodHook::Xdp);
}
