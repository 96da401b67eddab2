//! What a kube-proxy left, as `nft` and `iptables` put it into a network namespace of the test's own. Needs root.

use std::io::Write;
use std::process::{Command, Stdio};

use eastwest_dataplane::kube_proxy::{Removed, remove};
use nix::sched::{CloneFlags, unshare};

/// As the nftables mode writes it: sets, maps of verdicts, and chains that refer to each other.
const NFTABLES: &str = r#"
table ip kube-proxy {
    comment "rules for kube-proxy"
    set cluster-ips {
        type ipv4_addr
        elements = { 10.96.0.1 }
    }
    chain mark-for-masquerade {
        meta mark set meta mark or 0x4000
    }
    chain endpoint-2CNEL5QR-default/kubernetes/tcp/https__10.0.0.1/6443 {
        ip saddr 10.0.0.1 jump mark-for-masquerade
        meta l4proto tcp dnat to 10.0.0.1:6443
    }
    chain service-2QRHZV4L-default/kubernetes/tcp/https {
        numgen random mod 1 vmap { 0 : goto endpoint-2CNEL5QR-default/kubernetes/tcp/https__10.0.0.1/6443 }
    }
    map service-ips {
        type ipv4_addr . inet_proto . inet_service : verdict
        elements = { 10.96.0.1 . tcp . 443 : goto service-2QRHZV4L-default/kubernetes/tcp/https }
    }
    chain services {
        ip daddr . meta l4proto . th dport vmap @service-ips
    }
    chain nat-output {
        type nat hook output priority -100; policy accept;
        jump services
    }
}
table ip6 kube-proxy {
    chain nat-output {
        type nat hook output priority -100; policy accept;
    }
}
table ip mine {
    chain out {
        type filter hook output priority 0; policy accept;
        counter
    }
}
"#;

/// As the iptables mode writes it, with rules of somebody else between.
const IPTABLES: &str = r#"*nat
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:KUBE-MARK-MASQ - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-SEP-IT2ZTR26TO4XFPTO - [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-SVC-NPX46M4PTMTKRN6Y - [0:0]
:MINE - [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A OUTPUT -m comment --comment "not KUBE-SERVICES" -j MINE
-A POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING
-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MASQUERADE --random-fully
-A KUBE-SEP-IT2ZTR26TO4XFPTO -s 10.0.0.1/32 -j KUBE-MARK-MASQ
-A KUBE-SEP-IT2ZTR26TO4XFPTO -p tcp -m tcp -j DNAT --to-destination 10.0.0.1:6443
-A KUBE-SERVICES -d 10.96.0.1/32 -p tcp -m tcp --dport 443 -j KUBE-SVC-NPX46M4PTMTKRN6Y
-A KUBE-SVC-NPX46M4PTMTKRN6Y -m statistic --mode random --probability 0.50000000000 -j KUBE-SEP-IT2ZTR26TO4XFPTO
-A MINE -j RETURN
COMMIT
"#;

fn run(command: &str, input: &str) -> String {
    let mut words = command.split(' ');
    let mut child = Command::new(words.next().unwrap())
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{command}: {e}; scripts/setup installs it"));
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn removed() -> Removed {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(remove()).unwrap()
}

#[test]
fn all_of_it_goes_and_nothing_else() {
    assert_eq!(nix::unistd::geteuid().as_raw(), 0, "needs root: it makes a network namespace");
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    assert_eq!(removed(), Removed::default(), "on a node that never had one");

    run("nft -f -", NFTABLES);
    run("iptables-nft-restore", IPTABLES);
    let six = [
        ("10.0.0.1/32", "fd00::1/128"),
        ("10.96.0.1/32", "fd00::2/128"),
        ("10.0.0.1:6443", "[fd00::1]:6443"),
    ];
    let six = six.into_iter().fold(IPTABLES.to_owned(), |text, (four, six)| text.replace(four, six));
    run("ip6tables-nft-restore", &six);
    run("iptables-legacy-restore", IPTABLES);
    run("ip link add kube-ipvs0 type bridge", "");
    let mut done = removed();
    done.removed.sort();
    assert_eq!(
        done.removed,
        [
            "5 chains of iptables-legacy",
            "5 chains of table ip nat",
            "5 chains of table ip6 nat",
            "device kube-ipvs0",
            "table ip kube-proxy",
            "table ip6 kube-proxy",
        ],
        "{done:?}"
    );
    assert!(done.left.is_empty(), "{done:?}");

    let rules = ["nft list ruleset", "iptables-nft-save", "ip6tables-nft-save", "iptables-legacy-save"];
    for command in rules {
        let text = run(command, "").replace("not KUBE-SERVICES", "");
        assert!(!text.contains("KUBE-") && !text.contains("kube-proxy"), "{command}: {text}");
    }
    assert!(run("nft list tables", "").contains("table ip mine"));
    for command in &rules[1..] {
        assert!(run(command, "").contains("-j MINE"), "{command}: what others wrote stays");
    }
    assert_eq!(removed(), Removed::default(), "once is enough");
}
