//! The kernel's side of an agent: programs, hooks, answers and flows. It is opened while names are answered already, as the
//! verifier takes most of a start's time.

use std::net::IpAddr;
use std::sync::Arc;

use anyhow::Context as _;
use eastwest_dataplane::devices::DeviceOptions;
use eastwest_dataplane::{Beside, EbpfDataplane, NodeNames, Options, Programs};
use eastwest_dns::{Metrics, Resolver, ServerOptions};

use crate::names;
use crate::problems::Problems;

/// What is opened.
pub struct Kernel {
    pub options: Options,
    pub devices: DeviceOptions,
    /// Addresses of the node's DNS.
    pub dns: Vec<IpAddr>,
    /// Pods' packets are met by XDP.
    pub xdp: bool,
    /// Answers questions in the kernel.
    pub resolver: Option<Arc<Resolver>>,
    pub metrics: Arc<Metrics>,
}

/// What is there once it is open.
pub struct Opened {
    pub dataplane: EbpfDataplane,
    pub names: NodeNames,
    pub programs: Programs,
    pub beside: Beside,
    /// kube-proxy's rules are here too.
    pub found: bool,
}

impl Kernel {
    /// Blocks for as long as the kernel takes.
    ///
    /// # Errors
    /// When it does not take a program.
    pub fn open(self, problems: &Problems) -> anyhow::Result<Opened> {
        let dataplane = EbpfDataplane::open(&self.options).context("cannot program the kernel")?;
        let programs = dataplane.programs();
        self.devices.load(&programs).context("cannot program the kernel")?;
        let beside = dataplane.beside();
        let found = beside.look().unwrap_or_default();
        let names = dataplane.names();
        let served = names.serve(&programs, self.xdp, &self.dns);
        problems.set("dnsInKernel", served.err().map(|e| e.to_string()));
        // Before anything is said to be programmed: from then on the table is as true as the names.
        if let Some(resolver) = &self.resolver {
            resolver.publish(Arc::new(names::KernelAnswers(names.clone())), &ServerOptions::default());
        }
        let counted = names.clone();
        self.metrics.count_kernel(move || names::counts(&counted));
        Ok(Opened { dataplane, names, programs, beside, found })
    }
}
