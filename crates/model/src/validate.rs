//! What makes a field right, as Kubernetes' apimachinery `validation` package has it. Each check appends what is wrong.

use std::fmt::Display;
use std::net::IpAddr;

use crate::ObjectMeta;

/// One thing wrong with an object: where, and what would be accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct FieldError {
    /// Path as in the manifest: `spec.ports[0].port`.
    pub field: String,
    pub reason: Reason,
    pub message: String,
}

/// `metav1.CauseType` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    FieldValueRequired,
    FieldValueInvalid,
    FieldValueDuplicate,
    FieldValueNotSupported,
    FieldValueForbidden,
    FieldValueTooMany,
}

impl FieldError {
    fn new(field: &str, reason: Reason, message: String) -> Self {
        Self { field: field.to_owned(), reason, message }
    }
    pub fn required(field: &str, accepted: impl Display) -> Self {
        Self::new(field, Reason::FieldValueRequired, format!("Required value: {accepted}"))
    }
    pub fn invalid(field: &str, value: impl Display, accepted: impl Display) -> Self {
        let value = shorten(value.to_string());
        Self::new(field, Reason::FieldValueInvalid, format!("Invalid value: {value:?}: must be {accepted}"))
    }
    pub fn duplicate(field: &str, value: impl Display) -> Self {
        Self::new(field, Reason::FieldValueDuplicate, format!("Duplicate value: {:?}", value.to_string()))
    }
    pub fn not_supported(field: &str, value: impl Display, accepted: impl Display) -> Self {
        let value = shorten(value.to_string());
        let message = format!("Unsupported value: {value:?}: supported values: {accepted}");
        Self::new(field, Reason::FieldValueNotSupported, message)
    }
    pub fn forbidden(field: &str, why: impl Display) -> Self {
        Self::new(field, Reason::FieldValueForbidden, format!("Forbidden: {why}"))
    }
    pub fn immutable(field: &str) -> Self {
        Self::new(field, Reason::FieldValueInvalid, "Invalid value: field is immutable".to_owned())
    }
    pub fn too_many(field: &str, actual: usize, max: usize) -> Self {
        Self::new(
            field,
            Reason::FieldValueTooMany,
            format!("Too many: {actual}: must have at most {max} items"),
        )
    }
}

/// An error message does not repeat a megabyte of bad input.
fn shorten(mut value: String) -> String {
    if value.len() > 128 {
        let mut end = 128;
        while !value.is_char_boundary(end) {
            end -= 1;
        }
        value.truncate(end);
        value.push('…');
    }
    value
}

fn is_label(s: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    (1..=63).contains(&s.len())
        && s.bytes().all(|b| inner(b) || b == b'-')
        && s.bytes().next().is_some_and(inner)
        && s.bytes().last().is_some_and(inner)
}

/// RFC 1123 label, 1 to 63 characters.
pub fn dns_label(errors: &mut Vec<FieldError>, field: &str, value: &str) {
    if value.is_empty() {
        errors.push(FieldError::required(field, "a name"));
    } else if !is_label(value) {
        let accepted =
            "an RFC 1123 label: at most 63 of a-z, 0-9 and '-', beginning and ending with a letter or digit";
        errors.push(FieldError::invalid(field, value, accepted));
    }
}

/// RFC 1123 subdomain: labels joined by dots, at most 253 characters.
pub fn dns_subdomain(errors: &mut Vec<FieldError>, field: &str, value: &str) {
    if value.is_empty() {
        errors.push(FieldError::required(field, "a name"));
    } else if value.len() > 253 || !value.split('.').all(is_label) {
        let accepted =
            "an RFC 1123 subdomain: labels of a-z, 0-9 and '-' joined by '.', at most 253 characters";
        errors.push(FieldError::invalid(field, value, accepted));
    }
}

/// A DNS owner name: labels of 1 to 63 octets that may hold `_` and a leading `*`; an optional final dot.
pub fn dns_name(errors: &mut Vec<FieldError>, field: &str, value: &str) {
    let name = value.strip_suffix('.').unwrap_or(value);
    if name.is_empty() {
        errors.push(FieldError::required(field, "a DNS name"));
        return;
    }
    let label = |(i, l): (usize, &str)| {
        (1..=63).contains(&l.len())
            && (l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
                || (i == 0 && l == "*"))
    };
    if name.len() > 253 || !name.split('.').enumerate().all(label) {
        let accepted = "a DNS name: labels of at most 63 letters, digits, '-' and '_' joined by '.'";
        errors.push(FieldError::invalid(field, value, accepted));
    }
}

/// IANA service name (RFC 6335 §5.1): 1 to 15 of a-z, 0-9, `-`, with at least one letter.
pub fn port_name(errors: &mut Vec<FieldError>, field: &str, value: &str) {
    let good = is_label(value)
        && value.len() <= 15
        && value.bytes().any(|b| b.is_ascii_lowercase())
        && !value.contains("--");
    if !good {
        let accepted =
            "an IANA service name: at most 15 of a-z, 0-9 and single '-', with at least one letter";
        errors.push(FieldError::invalid(field, value, accepted));
    }
}

pub fn port(errors: &mut Vec<FieldError>, field: &str, value: i64) {
    if !(1..=65_535).contains(&value) {
        errors.push(FieldError::invalid(field, value, "1 to 65535"));
    }
}

pub fn ip(errors: &mut Vec<FieldError>, field: &str, value: &str) {
    if value.parse::<IpAddr>().is_err() {
        errors.push(FieldError::invalid(field, value, "an IPv4 or IPv6 address"));
    }
}

/// An address traffic can be sent to (core validation `ValidateEndpointIP`): not unspecified, loopback, link-local or
/// multicast, and not IPv4-mapped.
pub fn endpoint_ip(errors: &mut Vec<FieldError>, field: &str, value: &str) {
    let Ok(ip) = value.parse::<IpAddr>() else {
        errors.push(FieldError::invalid(field, value, "an IPv4 or IPv6 address"));
        return;
    };
    let why = match ip {
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => "an address that is not IPv4-mapped",
        _ if ip.is_unspecified() => "an address that is not unspecified",
        _ if ip.is_loopback() => "an address outside the loopback range",
        _ if ip.is_multicast() => "an address outside the multicast range",
        IpAddr::V4(v4) if v4.is_link_local() => "an address outside the link-local range (169.254.0.0/16)",
        IpAddr::V6(v6) if v6.is_unicast_link_local() => "an address outside the link-local range (fe80::/10)",
        _ => return,
    };
    errors.push(FieldError::invalid(field, value, why));
}

/// Label or annotation key: `[prefix/]name`.
fn is_qualified_name(key: &str) -> bool {
    let name = match key.split_once('/') {
        Some((prefix, name)) => {
            if prefix.len() > 253 || !prefix.split('.').all(is_label) {
                return false;
            }
            name
        }
        None => key,
    };
    !name.is_empty() && is_label_value(name)
}

/// Empty, or 1 to 63 of letters, digits, `-`, `_`, `.`, beginning and ending with a letter or digit.
fn is_label_value(v: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric();
    v.is_empty()
        || (v.len() <= 63
            && v.bytes().all(|b| inner(b) || matches!(b, b'-' | b'_' | b'.'))
            && v.bytes().next().is_some_and(inner)
            && v.bytes().last().is_some_and(inner))
}

pub fn label(errors: &mut Vec<FieldError>, field: &str, key: &str, value: &str) {
    if !is_qualified_name(key) {
        errors.push(FieldError::invalid(field, key, "a label key '[prefix/]name'"));
    }
    if !is_label_value(value) {
        let accepted = "a label value: at most 63 letters, digits, '-', '_' and '.'";
        errors.push(FieldError::invalid(&format!("{field}.{key}"), value, accepted));
    }
}

/// Largest sum of annotation keys and values, bytes (apimachinery `TotalAnnotationSizeLimitB`).
const ANNOTATIONS_MAX: usize = 256 * 1024;

pub fn metadata(errors: &mut Vec<FieldError>, meta: &ObjectMeta) {
    for (key, value) in &meta.labels {
        label(errors, "metadata.labels", key, value);
    }
    let mut size = 0;
    for (key, value) in &meta.annotations {
        size += key.len() + value.len();
        if !is_qualified_name(&key.to_lowercase()) {
            errors.push(FieldError::invalid(
                "metadata.annotations",
                key,
                "an annotation key '[prefix/]name'",
            ));
        }
    }
    if size > ANNOTATIONS_MAX {
        errors.push(FieldError::too_many("metadata.annotations", size, ANNOTATIONS_MAX));
    }
    for (i, f) in meta.finalizers.iter().enumerate() {
        if !is_qualified_name(f) {
            errors.push(FieldError::invalid(&format!("metadata.finalizers[{i}]"), f, "'[prefix/]name'"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fails(check: impl Fn(&mut Vec<FieldError>)) -> bool {
        let mut errors = Vec::new();
        check(&mut errors);
        !errors.is_empty()
    }

    #[test]
    fn labels_and_names() {
        for (value, good) in
            [("web", true), ("a-1", true), ("", false), ("-a", false), ("A", false), ("a.b", false)]
        {
            assert_eq!(!fails(|e| dns_label(e, "f", value)), good, "{value}");
        }
        assert!(fails(|e| dns_label(e, "f", &"a".repeat(64))));
        for (value, good) in [("a.b", true), ("a..b", false), ("a.b.", false)] {
            assert_eq!(!fails(|e| dns_subdomain(e, "f", value)), good, "{value}");
        }
        for (value, good) in
            [("_dns._udp.x.", true), ("*.x", true), ("a.*.x", false), (".", false), ("a b", false)]
        {
            assert_eq!(!fails(|e| dns_name(e, "f", value)), good, "{value}");
        }
        for (value, good) in [("http", true), ("80", false), ("a--b", false), ("sixteen-letters-x", false)] {
            assert_eq!(!fails(|e| port_name(e, "f", value)), good, "{value}");
        }
    }

    #[test]
    fn endpoint_addresses() {
        for (value, good) in [
            ("10.0.0.1", true),
            ("fd00::1", true),
            ("127.0.0.1", false),
            ("0.0.0.0", false),
            ("224.0.0.1", false),
            ("169.254.1.1", false),
            ("fe80::1", false),
            ("::ffff:10.0.0.1", false),
            ("10.0.0", false),
        ] {
            assert_eq!(!fails(|e| endpoint_ip(e, "f", value)), good, "{value}");
        }
    }

    #[test]
    fn a_message_stays_short() {
        assert!(FieldError::invalid("f", "é".repeat(1_000_000), "x").message.len() < 400);
    }
}
