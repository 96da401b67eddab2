//! What the server decides about a Service: families, ClusterIPs, NodePorts. Follows kube-apiserver's
//! `pkg/registry/core/service/storage/alloc.go` and `strategy.go`. Nothing is taken here: the choice is recorded when
//! the object is written, in the same transaction.

use std::net::IpAddr;

use eastwest_model::{
    Condition, FieldError, IpFamily, IpFamilyPolicy, Protocol, Reason, Service, ServiceType, TrafficPolicy,
    TrafficSplit,
};

use crate::Config;
use crate::allocate::{NODE_PORTS, pick_node_port};
use crate::derived::{Derived, Name, name_of};

type Errors = Vec<FieldError>;

/// Says in its status whether a TrafficSplit takes effect. One Service has one: of two, neither could be told to be the
/// one that is meant.
pub fn traffic_split(split: &mut TrafficSplit, derived: &Derived) -> Result<(), Errors> {
    let (namespace, name) = name_of(&split.metadata);
    let service = (namespace, split.spec.service.as_str().into());
    if let Some(other) = derived.splits.get(&service).filter(|other| **other != name) {
        let why = format!("Service {} has TrafficSplit {other} already", split.spec.service);
        return Err(vec![FieldError::forbidden("spec.service", why)]);
    }
    let (status, reason, message) = if split.has_weight() {
        ("True", "Accepted", "")
    } else {
        ("False", "NoWeight", "all weights are 0: the Service's endpoints share its traffic evenly")
    };
    let conditions = &mut split.status.conditions;
    if !conditions.iter().any(|c| c.type_ == "Accepted" && c.status == status) {
        conditions.retain(|c| c.type_ != "Accepted");
        conditions.push(Condition {
            type_: "Accepted".into(),
            status: status.into(),
            last_transition_time: Some(crate::transaction::now()),
            reason: reason.into(),
            message: message.into(),
            ..Condition::default()
        });
    }
    Ok(())
}

/// Completes a Service that is to be written in place of `old`.
pub fn service(
    new: &mut Service,
    old: Option<&Service>,
    derived: &Derived,
    config: &Config,
) -> Result<(), Errors> {
    if let Some(old) = old {
        keep_allocated(new, old);
    }
    let mut errors = Errors::new();
    if new.service_type() == ServiceType::ExternalName {
        clear_addresses(new, old, &mut errors);
    } else {
        families(new, old, config, &mut errors);
        if errors.is_empty() {
            addresses(new, derived, config, &mut errors);
        }
    }
    node_ports(new, old, derived, &mut errors);
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

/// An update that leaves out what the server chose means to keep it (`patchAllocatedValues`).
fn keep_allocated(new: &mut Service, old: &Service) {
    let external = |s: &Service| s.service_type() == ServiceType::ExternalName;
    if !external(new) && !external(old) {
        if new.spec.cluster_ip.is_empty() {
            new.spec.cluster_ip = old.spec.cluster_ip.clone();
        }
        if new.spec.cluster_ips.is_empty() && new.spec.cluster_ip == old.spec.cluster_ip {
            new.spec.cluster_ips = old.spec.cluster_ips.clone();
        } else if new.spec.cluster_ips.is_empty() {
            new.spec.cluster_ips = vec![new.spec.cluster_ip.clone()];
        }
        new.spec.ip_family_policy = new.spec.ip_family_policy.or(old.spec.ip_family_policy);
        if new.spec.ip_families.is_empty() {
            new.spec.ip_families = old.spec.ip_families.clone();
        }
    }
    if needs_node_ports(new) && needs_node_ports(old) {
        for port in &mut new.spec.ports {
            let before = old.spec.ports.iter().find(|p| p.port == port.port && p.protocol == port.protocol);
            if port.node_port.unwrap_or(0) == 0 {
                port.node_port = before.and_then(|p| p.node_port);
            }
        }
    }
    if needs_health_port(new) && new.spec.health_check_node_port.unwrap_or(0) == 0 {
        new.spec.health_check_node_port = old.spec.health_check_node_port;
    }
}

/// ExternalName has no addresses; what an earlier type left behind is dropped, what the user asks for is refused.
fn clear_addresses(new: &mut Service, old: Option<&Service>, errors: &mut Errors) {
    let spec = &mut new.spec;
    if let Some(old) = old.filter(|o| o.spec.cluster_ips == spec.cluster_ips) {
        if old.spec.ip_families == spec.ip_families {
            spec.ip_families.clear();
        }
        spec.cluster_ip.clear();
        spec.cluster_ips.clear();
        spec.ip_family_policy = None;
    }
    if !spec.cluster_ips.is_empty() {
        errors.push(FieldError::forbidden("spec.clusterIPs", "may not be set when type is ExternalName"));
    }
    if !spec.ip_families.is_empty() {
        errors.push(FieldError::forbidden("spec.ipFamilies", "may not be set when type is ExternalName"));
    }
    if spec.ip_family_policy.is_some() {
        errors.push(FieldError::forbidden("spec.ipFamilyPolicy", "may not be set when type is ExternalName"));
    }
}

/// Decides `ipFamilyPolicy` and `ipFamilies`.
fn families(new: &mut Service, old: Option<&Service>, config: &Config, errors: &mut Errors) {
    let headless = new.is_headless();
    let dual = config.ranges().count() == 2;
    let spec = &mut new.spec;
    let given: Vec<IpFamily> =
        spec.cluster_ips.iter().filter_map(|ip| ip.parse().ok()).map(IpFamily::of).collect();
    let several = spec.ip_families.len() == 2 || given.len() == 2;
    let default = if headless && spec.selector.is_empty() && dual {
        IpFamilyPolicy::RequireDualStack
    } else {
        IpFamilyPolicy::SingleStack
    };
    if spec.ip_family_policy.is_none() && several {
        let accepted = "RequireDualStack or PreferDualStack when several families or addresses are given";
        errors.push(FieldError::required("spec.ipFamilyPolicy", accepted));
        return;
    }
    let policy = *spec.ip_family_policy.get_or_insert(default);
    // A Service that becomes single-stack keeps its first address (`trimFieldsForDualStackDowngrade`).
    let was_dual = old.is_some_and(|o| o.spec.ip_families.len() == 2);
    if policy == IpFamilyPolicy::SingleStack && was_dual {
        spec.ip_families.truncate(1);
        spec.cluster_ips.truncate(1);
    } else if policy == IpFamilyPolicy::SingleStack && several {
        let accepted = "RequireDualStack or PreferDualStack when several families or addresses are given";
        errors.push(FieldError::invalid("spec.ipFamilyPolicy", "SingleStack", accepted));
        return;
    }
    if policy == IpFamilyPolicy::RequireDualStack && !dual && !(headless && spec.selector.is_empty()) {
        let accepted = "SingleStack or PreferDualStack, as this cluster has one family of addresses";
        errors.push(FieldError::invalid("spec.ipFamilyPolicy", "RequireDualStack", accepted));
        return;
    }
    for (i, family) in spec.ip_families.iter().enumerate() {
        if config.range(*family).is_none() {
            let field = format!("spec.ipFamilies[{i}]");
            let accepted = "a family for which this cluster has a service range";
            errors.push(FieldError::invalid(&field, format!("{family:?}"), accepted));
        }
    }
    let primary = given
        .first()
        .or(spec.ip_families.first())
        .copied()
        .or_else(|| config.ranges().next().map(|r| r.family()))
        .unwrap_or(IpFamily::IPv4);
    if spec.ip_families.is_empty() {
        spec.ip_families = vec![primary];
    }
    if let Some(before) = old.and_then(|o| o.spec.ip_families.first())
        && old.is_some_and(|o| o.service_type() != ServiceType::ExternalName)
        && spec.ip_families.first() != Some(before)
    {
        errors.push(FieldError::immutable("spec.ipFamilies[0]"));
    }
    if policy != IpFamilyPolicy::SingleStack && dual && spec.ip_families.len() == 1 {
        spec.ip_families.push(match spec.ip_families[0] {
            IpFamily::IPv4 => IpFamily::IPv6,
            IpFamily::IPv6 => IpFamily::IPv4,
        });
    }
}

/// One address for each family: the one asked for, or a free one.
fn addresses(new: &mut Service, derived: &Derived, config: &Config, errors: &mut Errors) {
    if new.is_headless() {
        new.spec.cluster_ip = "None".into();
        new.spec.cluster_ips = vec!["None".into()];
        return;
    }
    let name = name_of(&new.metadata);
    let spec = &mut new.spec;
    for (i, family) in spec.ip_families.clone().into_iter().enumerate() {
        let field = format!("spec.clusterIPs[{i}]");
        let Some(range) = config.range(family) else { continue };
        match spec.cluster_ips.get(i).filter(|ip| !ip.is_empty()) {
            Some(text) => {
                // Unparsable text is reported by the model's own validation.
                let Ok(ip) = text.parse::<IpAddr>() else { continue };
                if IpFamily::of(ip) != family {
                    let accepted = format!("an address of family {family:?}, as spec.ipFamilies[{i}]");
                    errors.push(FieldError::invalid(&field, text, accepted));
                } else if !range.usable(ip) {
                    let accepted = format!("a usable address of the service range {}", range.net);
                    errors.push(FieldError::invalid(&field, text, accepted));
                } else if let Some(owner) = derived.ips.get(&ip).filter(|o| **o != name) {
                    errors.push(taken(&field, text, owner, &format!("of the service range {}", range.net)));
                } else {
                    spec.cluster_ips[i] = ip.to_string();
                }
            }
            None => match range.pick(&derived.ips, &mut rand::rng()) {
                Some(ip) if spec.cluster_ips.len() > i => spec.cluster_ips[i] = ip.to_string(),
                Some(ip) => spec.cluster_ips.push(ip.to_string()),
                None => {
                    let accepted =
                        format!("free: all addresses of the service range {} are taken", range.net);
                    errors.push(FieldError::invalid(&field, "", accepted));
                }
            },
        }
    }
    spec.cluster_ips.truncate(spec.ip_families.len());
    spec.cluster_ip = spec.cluster_ips.first().cloned().unwrap_or_default();
}

fn taken(field: &str, value: impl std::fmt::Display, owner: &Name, of: &str) -> FieldError {
    let message = format!(
        "Invalid value: {:?}: provided {} is already allocated to Service {}/{}; choose a free one {of}",
        value.to_string(),
        if field.contains("IP") { "IP" } else { "port" },
        owner.0,
        owner.1
    );
    FieldError { field: field.into(), reason: Reason::FieldValueInvalid, message }
}

fn needs_node_ports(service: &Service) -> bool {
    match service.service_type() {
        ServiceType::NodePort => true,
        ServiceType::LoadBalancer => service.spec.allocate_load_balancer_node_ports != Some(false),
        ServiceType::ClusterIP | ServiceType::ExternalName => false,
    }
}

fn needs_health_port(service: &Service) -> bool {
    service.service_type() == ServiceType::LoadBalancer
        && service.spec.external_traffic_policy == Some(TrafficPolicy::Local)
}

fn node_ports(new: &mut Service, old: Option<&Service>, derived: &Derived, errors: &mut Errors) {
    let name = name_of(&new.metadata);
    let type_ = new.service_type();
    if type_ == ServiceType::LoadBalancer {
        new.spec.allocate_load_balancer_node_ports.get_or_insert(true);
    }
    let may = matches!(type_, ServiceType::NodePort | ServiceType::LoadBalancer);
    let allocate = needs_node_ports(new);
    // A Service that no longer needs its NodePorts loses them, unless the update changes them (`dropTypeDependentFields`).
    let same = |p: &eastwest_model::ServicePort| {
        old.is_some_and(|o| {
            o.spec.ports.iter().any(|q| q.node_port == p.node_port && q.protocol == p.protocol)
        })
    };
    let mut chosen: Vec<(u16, u16, Protocol)> = Vec::new();
    for i in 0..new.spec.ports.len() {
        let field = format!("spec.ports[{i}].nodePort");
        let port = &mut new.spec.ports[i];
        match port.node_port.filter(|p| *p != 0) {
            Some(_) if !may && same(port) => port.node_port = None,
            Some(_) if !may => {
                let why = format!("may not be used when type is {type_:?}");
                errors.push(FieldError::forbidden(&field, why));
            }
            Some(number) => {
                if !NODE_PORTS.contains(&number) {
                    let accepted = format!("a port of the range {}-{}", NODE_PORTS.start(), NODE_PORTS.end());
                    errors.push(FieldError::invalid(&field, number, accepted));
                } else if let Some(owner) =
                    derived.node_ports.get(&(number, port.protocol)).filter(|o| **o != name)
                {
                    errors.push(taken(&field, number, owner, "of 30000-32767"));
                } else if chosen.iter().any(|(n, _, p)| *n == number && *p == port.protocol) {
                    errors.push(FieldError::duplicate(&field, number));
                }
                chosen.push((number, port.port, port.protocol));
            }
            None => port.node_port = None,
        }
    }
    if !allocate {
        if !needs_health_port(new) {
            new.spec.health_check_node_port = None;
        }
        return;
    }
    for i in 0..new.spec.ports.len() {
        let port = &mut new.spec.ports[i];
        if port.node_port.is_some() {
            continue;
        }
        // One number for a port that is served over TCP and UDP, where it is free for both.
        let free = |n: u16| derived.node_ports.get(&(n, port.protocol)).is_none_or(|o| *o == name);
        let shared = chosen.iter().find(|(_, p, protocol)| *p == port.port && *protocol != port.protocol);
        let also: Vec<u16> = chosen.iter().map(|(n, ..)| *n).collect();
        let number = shared
            .map(|(n, ..)| *n)
            .filter(|n| free(*n))
            .or_else(|| pick_node_port(&derived.node_ports, port.protocol, &also, &mut rand::rng()));
        match number {
            Some(number) => {
                port.node_port = Some(number);
                chosen.push((number, port.port, port.protocol));
            }
            None => {
                let field = format!("spec.ports[{i}].nodePort");
                errors.push(FieldError::invalid(&field, "", "free: all ports of 30000-32767 are taken"));
            }
        }
    }
    health_port(new, derived, &name, &chosen, errors);
}

fn health_port(
    new: &mut Service,
    derived: &Derived,
    name: &Name,
    chosen: &[(u16, u16, Protocol)],
    errors: &mut Errors,
) {
    let field = "spec.healthCheckNodePort";
    if !needs_health_port(new) {
        new.spec.health_check_node_port = None;
        return;
    }
    match new.spec.health_check_node_port.filter(|p| *p != 0) {
        Some(number) => match u16::try_from(number).ok().filter(|n| NODE_PORTS.contains(n)) {
            None => errors.push(FieldError::invalid(field, number, "a port of the range 30000-32767")),
            Some(n) => {
                if let Some(owner) = derived.node_ports.get(&(n, Protocol::TCP)).filter(|o| *o != name) {
                    errors.push(taken(field, n, owner, "of 30000-32767"));
                }
            }
        },
        None => {
            let also: Vec<u16> = chosen.iter().map(|(n, ..)| *n).collect();
            let number = pick_node_port(&derived.node_ports, Protocol::TCP, &also, &mut rand::rng());
            new.spec.health_check_node_port = number.map(i32::from);
            if number.is_none() {
                errors.push(FieldError::invalid(field, "", "free: all ports of 30000-32767 are taken"));
            }
        }
    }
}
