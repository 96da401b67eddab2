//! The table on a real kube-proxy: where it does something else than the table says, the table names it and says why.
//! `K8S_IMAGE` is the archive that `scripts/image` made; `SCENARIO=text` plays those whose name contains the text.

use std::path::PathBuf;

use eastwest_scenarios::kubernetes::OnKubernetes;
use eastwest_scenarios::{Proxy, Table, check};

fn on_kube_proxy(name: &str, mode: &str) {
    let table = Table::services().expect("the table reads");
    let image = std::env::var("K8S_IMAGE").expect("K8S_IMAGE: the archive of eastwest's image");
    let options = ["--proxy", mode, "--dns", "none"];
    let probe = PathBuf::from(env!("CARGO_BIN_EXE_eastwest-probe"));
    let cluster = OnKubernetes::up(&table, name, &options, &image, probe);
    let cluster = cluster.unwrap_or_else(|e| panic!("{e:?}"));
    check(&cluster, &table, Proxy::KubeProxy);
}

#[test]
fn nftables() {
    on_kube_proxy("kp_nft", "nftables");
}

#[test]
fn iptables() {
    on_kube_proxy("kp_ipt", "iptables");
}
