use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{FieldError, ObjectMeta, validate};

/// A name of the user's own in a zone the cluster owns.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DnsRecord {
    pub api_version: String,
    pub kind: String,
    pub metadata: ObjectMeta,
    pub spec: DnsRecordSpec,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DnsRecordSpec {
    /// Fully qualified owner name; a final dot may be left out.
    pub name: String,
    #[serde(rename = "type")]
    pub type_: DnsRecordType,
    /// Seconds, 0 to 2147483647 (RFC 2181 §8). Absent: the zone's default, 5 s for names of the cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl: Option<u32>,
    /// Record data in presentation form, one string a record.
    pub values: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub enum DnsRecordType {
    #[default]
    A,
    AAAA,
    CNAME,
    TXT,
    SRV,
    MX,
    PTR,
}

impl DnsRecord {
    pub(crate) fn default_fields(&mut self) {}

    pub(crate) fn validate(&self) -> Vec<FieldError> {
        let mut errors = Vec::new();
        validate::dns_subdomain(&mut errors, "metadata.name", &self.metadata.name);
        validate::metadata(&mut errors, &self.metadata);
        validate::dns_name(&mut errors, "spec.name", &self.spec.name);
        if self.spec.ttl.is_some_and(|t| t > i32::MAX as u32) {
            errors.push(FieldError::invalid(
                "spec.ttl",
                self.spec.ttl.unwrap_or(0),
                "0 to 2147483647 seconds",
            ));
        }
        if self.spec.values.is_empty() {
            errors.push(FieldError::required("spec.values", "at least one value"));
        }
        if self.spec.type_ == DnsRecordType::CNAME && self.spec.values.len() > 1 {
            errors.push(FieldError::too_many("spec.values", self.spec.values.len(), 1));
        }
        for (i, v) in self.spec.values.iter().enumerate() {
            let field = format!("spec.values[{i}]");
            match self.spec.type_ {
                DnsRecordType::A if v.parse::<std::net::Ipv4Addr>().is_err() => {
                    errors.push(FieldError::invalid(&field, v, "an IPv4 address"));
                }
                DnsRecordType::AAAA if v.parse::<std::net::Ipv6Addr>().is_err() => {
                    errors.push(FieldError::invalid(&field, v, "an IPv6 address"));
                }
                DnsRecordType::CNAME | DnsRecordType::PTR => validate::dns_name(&mut errors, &field, v),
                DnsRecordType::MX if !well_formed(v, 1) => {
                    errors.push(FieldError::invalid(&field, v, "'PREFERENCE NAME'"));
                }
                DnsRecordType::SRV if !well_formed(v, 3) => {
                    errors.push(FieldError::invalid(&field, v, "'PRIORITY WEIGHT PORT TARGET'"));
                }
                _ => {}
            }
        }
        errors
    }

    pub(crate) fn validate_update(&self, _old: &Self) -> Vec<FieldError> {
        Vec::new()
    }
}

/// `numbers` 16-bit numbers, then one name.
fn well_formed(value: &str, numbers: usize) -> bool {
    let fields: Vec<_> = value.split_whitespace().collect();
    fields.len() == numbers + 1 && fields[..numbers].iter().all(|n| n.parse::<u16>().is_ok())
}
