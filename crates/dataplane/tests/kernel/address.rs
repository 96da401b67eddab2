use std::net::{IpAddr, UdpSocket};

use eastwest_dataplane::address::{DEVICE, ensure, remove};
use ipnet::IpNet;

use crate::services::addr;
use crate::world::{block_on, node, run};

fn ranges(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().expect("a range")).collect()
}

#[test]
fn addresses_are_ours_and_other_service_addresses_go_nowhere() {
    node(|_| {
        block_on(async {
            let addresses: Vec<IpAddr> = ["169.254.20.10", "10.96.0.10", "fd00:10:96::a"].map(addr).to_vec();
            let both = ranges(&["10.96.0.0/16", "fd00:10:96::/112"]);
            for _ in 0..2 {
                ensure(&addresses, &both).await.expect("ensures");
                for addr in &addresses {
                    UdpSocket::bind((*addr, 53)).unwrap_or_else(|error| panic!("{addr}: {error}"));
                }
                for target in ["10.96.0.1", "fd00:10:96::1"] {
                    let bind = if target.contains(':') { "[::]:0" } else { "0.0.0.0:0" };
                    let socket = UdpSocket::bind(bind).expect("binds");
                    let error = socket.connect((target, 80)).expect_err("blackhole");
                    assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{target}: {error}");
                }
                // Own traffic to the DNS address is local.
                let socket = UdpSocket::bind("0.0.0.0:0").expect("binds");
                socket.connect("10.96.0.10:53").expect("local");
            }
            // Other settings: what is not wanted goes.
            ensure(&addresses[..1], &both[..1]).await.expect("ensures");
            let shown = run(&format!("ip -o addr show dev {DEVICE}"));
            assert!(shown.contains("169.254.20.10/32") && !shown.contains("10.96.0.10"), "{shown}");
            assert!(!shown.contains("fd00:10:96::a"), "{shown}");
            assert_eq!(run("ip -6 route show type blackhole"), "");
            assert!(run("ip -4 route show type blackhole").contains("10.96.0.0/16"));
            for _ in 0..2 {
                remove().await.expect("removes");
            }
            assert!(!run("ip -o link").contains(DEVICE));
            assert_eq!(run("ip -4 route show type blackhole"), "");
        });
    });
}
