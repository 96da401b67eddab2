//! Settings of the binaries in layers: defaults < YAML file (`--config`) < environment (`EASTWEST_*`) < flags. Every
//! value knows where it came from, an unknown key names the nearest known one, and a bad value says what is accepted.
//! Knows nothing of what the settings mean; the binaries declare them and call [`Flags::load`].
//!
//! One declaration gives all names: field `node_ip` is `--node-ip`, `EASTWEST_NODE_IP` and, in YAML, `nodeIp`. Lists
//! (`Vec<T>`) are comma lists in flags and environment, and either a comma list or a sequence in YAML.
//!
//! ```
//! use clap::Parser;
//! use eastwest_settings::{Flags, choice, settings};
//!
//! choice! {
//!     /// How pods are hooked.
//!     pub enum PodHook { Tc = "tc", Xdp = "xdp" }
//! }
//! settings! {
//!     /// Settings of the example.
//!     pub struct Settings {
//!         /// Name of this node.
//!         node_name: String = "node-1".to_owned(),
//!         /// Addresses of this node.
//!         node_ip: Vec<std::net::IpAddr> = Vec::new(),
//!         /// Kernel hook of pods' devices.
//!         pod_hook: PodHook = PodHook::Tc,
//!     }
//! }
//! #[derive(Parser)]
//! struct Cli {
//!     #[command(flatten)]
//!     settings: Flags<Settings>,
//! }
//!
//! let cli = Cli::parse_from(["example", "--node-ip", "192.0.2.1,2001:db8::1"]);
//! let loaded = cli.settings.load(std::env::vars_os()).unwrap();
//! assert_eq!(loaded.settings.node_ip.len(), 2);
//! if cli.settings.print_config() {
//!     print!("{}", loaded.print());
//! }
//! ```

mod declare;
mod flags;
mod load;
mod value;

pub use declare::{Key, Settings};
pub use flags::Flags;
pub use load::{Error, Loaded, Source};
pub use value::Setting;
