//! Names of a hosts file (hosts(5)), as CoreDNS' `hosts` serves them.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::wire::{Name, encode_name};

/// A `hosts` plugin.
#[derive(Debug)]
pub(crate) struct Hosts {
    pub(crate) zones: Vec<Name>,
    /// Followed as it changes.
    pub(crate) file: Option<PathBuf>,
    /// Entries of the Corefile itself.
    pub(crate) inline: String,
    pub(crate) ttl: u32,
    pub(crate) reverse: bool,
    /// Zones in which what is not here is for others to say; empty: nowhere.
    pub(crate) fallthrough: Vec<Name>,
    pub(crate) table: ArcSwap<Table>,
}

impl Hosts {
    /// Reads the file again.
    pub(crate) fn load(&self) {
        let file = self.file.as_ref().map(std::fs::read_to_string);
        let text = match file {
            Some(Ok(text)) => text,
            Some(Err(error)) => {
                tracing::debug!(path = ?self.file, %error, "hosts file");
                String::new()
            }
            None => String::new(),
        };
        let table = Table::parse([self.inline.as_str(), &text]);
        if **self.table.load() != table {
            self.table.store(Arc::new(table));
        }
    }
}

/// Names and addresses, both ways.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Table {
    /// By wire name in lower case.
    names: HashMap<Box<[u8]>, Vec<IpAddr>>,
    addresses: HashMap<IpAddr, Vec<Box<[u8]>>>,
}

impl Table {
    pub(crate) fn parse<'a>(texts: impl IntoIterator<Item = &'a str>) -> Self {
        let mut table = Self::default();
        for line in texts.into_iter().flat_map(str::lines) {
            let line = line.split('#').next().unwrap_or_default();
            let mut fields = line.split_whitespace();
            let address =
                fields.next().and_then(|a| a.split('%').next()).and_then(|a| a.parse::<IpAddr>().ok());
            let Some(ip) = address else { continue };
            for name in fields.filter_map(encode_name) {
                let name: Box<[u8]> = name.to_ascii_lowercase().into();
                let addresses = table.names.entry(name.clone()).or_default();
                if !addresses.contains(&ip) {
                    addresses.push(ip);
                    table.addresses.entry(ip).or_default().push(name);
                }
            }
        }
        table
    }

    pub(crate) fn addresses(&self, name: &[u8]) -> Option<&[IpAddr]> {
        self.names.get(name).map(Vec::as_slice)
    }

    pub(crate) fn names(&self, ip: IpAddr) -> &[Box<[u8]>] {
        self.addresses.get(&ip).map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hosts_file() {
        let text =
            "127.0.0.1 localhost # this\n::1 localhost\n10.0.0.1\tA.test b.test\nx y\n10.0.0.1 a.test\n";
        let table = Table::parse([text, "fe80::1%eth0 c.test"]);
        let of = |name: &str| table.addresses(&encode_name(name).unwrap()).map(<[_]>::len);
        assert_eq!((of("localhost"), of("a.test"), of("c.test"), of("y")), (Some(2), Some(1), Some(1), None));
        assert_eq!(table.names("10.0.0.1".parse().unwrap()).len(), 2);
    }
}
