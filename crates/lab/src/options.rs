use serde::{Deserialize, Serialize};

/// What a lab is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Options {
    /// 1 to 12 of a-z, 0-9 and `_`, beginning with a letter.
    pub name: String,
    /// 1 to [`Plan::MAX_NODES`](crate::Plan::MAX_NODES).
    pub nodes: u16,
    pub network: Network,
    pub family: Family,
    pub pod_hook: PodHook,
    pub nic: Option<Nic>,
    /// Namespaces and pods alone, without controller and agents: what others are measured against.
    pub bare: bool,
    /// Further words of every agent's command line.
    #[serde(default)]
    pub agent_args: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            name: "lab".into(),
            nodes: 3,
            network: Network::default(),
            family: Family::default(),
            pod_hook: PodHook::default(),
            nic: None,
            bare: false,
            agent_args: Vec::new(),
        }
    }
}

macro_rules! words {
    ($(#[$doc:meta])* $ty:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal),+ $(,)? } default $default:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        pub enum $ty { $($(#[$vdoc])* #[serde(rename = $word)] $variant),+ }
        impl $ty {
            /// Every value, by the word that the command line and the state file have for it.
            pub const ALL: &'static [$ty] = &[$($ty::$variant),+];
            pub const fn word(self) -> &'static str {
                match self { $($ty::$variant => $word),+ }
            }
        }
        impl std::fmt::Display for $ty {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.word())
            }
        }
        impl std::str::FromStr for $ty {
            type Err = String;
            fn from_str(s: &str) -> Result<Self, String> {
                Self::ALL.iter().copied().find(|v| v.word() == s).ok_or_else(|| {
                    let known: Vec<_> = Self::ALL.iter().map(|v| v.word()).collect();
                    format!("one of {}", known.join(", "))
                })
            }
        }
        impl Default for $ty {
            fn default() -> Self { $ty::$default }
        }
    };
}

words! {
    /// How pods are wired inside a node and between nodes.
    Network {
        /// A veth pair a pod, a route each on the node; as kindnet and Calico do it.
        Ptp = "ptp",
        /// The pods of a node on one bridge, `cni0`; as the CNI plugin `bridge` and flannel do it.
        Bridge = "bridge",
        /// As `bridge`, and pods' packets cross between nodes in VXLAN; as flannel does it.
        Vxlan = "vxlan",
    } default Ptp
}
words! {
    /// The address families of the cluster.
    Family { Dual = "dual", Ipv4 = "ipv4", Ipv6 = "ipv6" } default Dual
}
words! {
    /// The agents' `--pod-hook`.
    PodHook { Tc = "tc", Xdp = "xdp" } default Tc
}
words! {
    /// The agents' `--nic`.
    Nic { XdpNative = "xdp-native", XdpGeneric = "xdp-generic", Tc = "tc" } default XdpNative
}
