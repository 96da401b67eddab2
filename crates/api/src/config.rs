use std::net::IpAddr;

use eastwest_model::{DEFAULT_ZONE, IpFamily};
use ipnet::IpNet;

use crate::allocate::Range;

/// What the API must know of the cluster.
#[derive(Clone, Debug)]
pub struct Config {
    /// Ranges of ClusterIPs: one, or one of each family. The first one's family is the default family.
    pub service_ranges: Vec<IpNet>,
    /// Addresses of the cluster's DNS Service; each within a service range.
    pub dns_service_ips: Vec<IpAddr>,
    /// The DNS zone of cluster names.
    pub zone: String,
    /// All objects come from elsewhere: clients may not create any.
    pub read_only: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            service_ranges: vec![
                IpNet::new_assert(IpAddr::from([10, 96, 0, 0]), 16),
                IpNet::new_assert(IpAddr::from([0xfd00u16, 0x10, 0x96, 0, 0, 0, 0, 0]), 112),
            ],
            dns_service_ips: vec![
                IpAddr::from([10, 96, 0, 10]),
                IpAddr::from([0xfd00u16, 0x10, 0x96, 0, 0, 0, 0, 0xa]),
            ],
            zone: DEFAULT_ZONE.into(),
            read_only: false,
        }
    }
}

/// A configuration that cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("service ranges: give one range, or one IPv4 and one IPv6 range; got {0}")]
    Ranges(String),
    #[error("DNS service address {0} is in none of the service ranges, or not usable in it")]
    DnsAddress(IpAddr),
    #[error("DNS service addresses: at most one of each family; got {0}")]
    DnsFamilies(String),
}

impl Config {
    pub fn check(&self) -> Result<(), ConfigError> {
        let families: Vec<_> = self.ranges().map(|r| r.family()).collect();
        if families.is_empty() || families.len() > 2 || (families.len() == 2 && families[0] == families[1]) {
            let ranges: Vec<_> = self.service_ranges.iter().map(ToString::to_string).collect();
            return Err(ConfigError::Ranges(ranges.join(",")));
        }
        for ip in &self.dns_service_ips {
            if !self.ranges().any(|r| r.usable(*ip)) {
                return Err(ConfigError::DnsAddress(*ip));
            }
        }
        let ips = &self.dns_service_ips;
        if ips.len() > 2 || (ips.len() == 2 && ips[0].is_ipv4() == ips[1].is_ipv4()) {
            let ips: Vec<_> = ips.iter().map(ToString::to_string).collect();
            return Err(ConfigError::DnsFamilies(ips.join(",")));
        }
        Ok(())
    }

    pub fn ranges(&self) -> impl Iterator<Item = Range> + '_ {
        self.service_ranges.iter().map(|net| Range { net: *net })
    }

    pub fn range(&self, family: IpFamily) -> Option<Range> {
        self.ranges().find(|r| r.family() == family)
    }
}
