//! The tables on eastwest, with both pod hooks. `SCENARIO=text` plays those whose name contains the text.

use std::path::PathBuf;

use eastwest_lab::{Options, PodHook};
use eastwest_scenarios::lab::OnLab;
use eastwest_scenarios::{Proxy, Table, check};

fn on_lab(name: &str, table: anyhow::Result<Table>, pod_hook: PodHook) {
    let table = table.expect("the table reads");
    let agent_args = table.agents.clone();
    let options = Options { name: name.into(), pod_hook, agent_args, ..Options::default() };
    let lab = OnLab::up(&table, options, PathBuf::from(env!("CARGO_BIN_EXE_eastwest-probe")));
    let lab = lab.unwrap_or_else(|e| panic!("{e:?}"));
    check(&lab, &table, Proxy::Eastwest);
}

#[test]
fn services_with_tc() {
    on_lab("scen_tc", Table::services(), PodHook::Tc);
}

#[test]
fn services_with_xdp() {
    on_lab("scen_xdp", Table::services(), PodHook::Xdp);
}

#[test]
fn masquerading_all_with_tc() {
    on_lab("scen_mtc", Table::masquerade_all(), PodHook::Tc);
}

#[test]
fn masquerading_all_with_xdp() {
    on_lab("scen_mxdp", Table::masquerade_all(), PodHook::Xdp);
}
