//! The dataplane in a real kernel: maps, hooks, sockets, addresses, and Services between namespaces of the tests' own.
//! Needs root.

#[path = "kernel/address.rs"]
mod address;
#[path = "kernel/devices.rs"]
mod devices;
#[path = "kernel/maps.rs"]
mod maps;
#[path = "kernel/nic.rs"]
mod nic;
#[path = "kernel/pods.rs"]
mod pods;
#[path = "kernel/sctp.rs"]
mod sctp;
#[path = "kernel/services.rs"]
mod services;
#[path = "kernel/sockets.rs"]
mod sockets;
#[path = "kernel/world.rs"]
mod world;
