//! SCTP by real sockets, where the kernel has it: tests/old-kernel does.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use eastwest_compile::CompiledService;
use eastwest_dataplane::devices::PodHook;
use eastwest_model::Protocol::SCTP;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};

use crate::pods::{Conversation, agent, make_router, pod};
use crate::services::{addr, frontend, service};
use crate::world::{Netns, node};

/// A socket of one association, at one address: with several, each end would tell the other of all of them.
fn socket(at: SocketAddr) -> Socket {
    let socket = Socket::new(Domain::for_address(at), Type::STREAM, Some(Protocol::from(132)));
    let socket = socket.expect("a kernel with sctp");
    socket.bind(&at.into()).expect("binds");
    socket.set_write_timeout(Some(Duration::from_secs(20))).expect("sets");
    // Else an ICMP error is only remembered until all attempts have been made.
    if at.is_ipv4() {
        setsockopt(&socket, sockopt::Ipv4RecvErr, &true).expect("sets");
    } else {
        setsockopt(&socket, sockopt::Ipv6RecvErr, &true).expect("sets");
    }
    socket
}

/// As `pods::serve`, on port 3868.
fn serve(netns: &Netns, n: u8) {
    for ip in [format!("10.244.0.{n}"), format!("fd00:10:244::{n}")] {
        netns.run(move || {
            let listener = socket(SocketAddr::new(addr(&ip), 3868));
            listener.listen(8).expect("listens");
            std::thread::spawn(move || {
                while let Ok((stream, peer)) = listener.accept() {
                    std::thread::spawn(move || {
                        let mut stream = TcpStream::from(stream);
                        let peer = peer.as_socket().expect("an address").ip();
                        let _ = writeln!(stream, "pod {n} sees {peer}");
                        let mut back = stream.try_clone().expect("clones");
                        let _ = std::io::copy(&mut stream, &mut back);
                    });
                }
            });
        });
    }
}

fn services() -> Vec<CompiledService> {
    let both = |name: &str, n: u8, port: u16, backends: bool| {
        let one = |vip: String, to: &str| {
            let to = [to];
            frontend(&vip, SCTP, if backends { &to } else { &[] })
        };
        let (four, six) = (format!("10.96.0.{n}:{port}"), format!("[fd00:10:96::{n}]:{port}"));
        let to = [one(four, "10.244.0.2:3868"), one(six, "[fd00:10:244::2]:3868")];
        service(name, to.into())
    };
    vec![both("other", 1, 80, true), both("same", 2, 3868, true), both("empty", 3, 80, false)]
}

fn associations(hook: PodHook) {
    node(move |node| {
        make_router();
        let (client, server) = (pod(1), pod(2));
        serve(&server, 2);
        let _agent = agent(node, hook, &services());
        client.run(|| {
            for (from, vips) in [
                ("10.244.0.1", ["10.96.0.1:80", "10.96.0.2:3868", "10.96.0.3:80"]),
                ("fd00:10:244::1", ["[fd00:10:96::1]:80", "[fd00:10:96::2]:3868", "[fd00:10:96::3]:80"]),
            ] {
                let open = |vip: &str| {
                    let socket = socket(SocketAddr::new(addr(from), 0));
                    let to: SocketAddr = vip.parse().expect("an address");
                    socket.connect(&to.into()).map(|()| TcpStream::from(socket))
                };
                for vip in &vips[..2] {
                    let stream = open(vip).unwrap_or_else(|error| panic!("{from} to {vip}: {error}"));
                    let (mut conversation, line) = Conversation::begin(stream);
                    assert_eq!(line, format!("pod 2 sees {from}"));
                    for length in [1, 100, 1400, 9000, 60_000] {
                        conversation.say(&"s".repeat(length));
                    }
                }
                let refused = open(vips[2]).expect_err("nobody is there");
                assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused, "{from} to {}", vips[2]);
            }
        });
    });
}

#[test]
#[ignore = "needs a kernel with sctp"]
fn associations_by_tc() {
    associations(PodHook::Tc);
}

#[test]
#[ignore = "needs a kernel with sctp"]
fn associations_by_xdp() {
    associations(PodHook::Xdp);
}
