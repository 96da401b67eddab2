//! What a process on the host is told when its connection is refused, with and without the helper that Linux before 5.18
//! does not have. Needs root: it loads programs and makes a cgroup.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use aya::EbpfLoader;
use aya::maps::{HashMap, MapData};
use aya::programs::{CgroupAttachMode, CgroupSockAddr};
use eastwest_abi::{Frontend, FrontendKey4, globals, maps, programs};
use eastwest_dataplane::object::OBJECT;

fn cgroup() -> PathBuf {
    let mounts = fs::read_to_string("/proc/self/mounts").expect("reads");
    let root =
        mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2")).expect("a cgroup2 mount");
    let path = PathBuf::from(root.split(' ').nth(1).expect("a path"))
        .join(format!("eastwest-retval-{}", std::process::id()));
    fs::create_dir(&path).expect("needs root: it makes a cgroup");
    path
}

/// What bash says that connects from inside the cgroup to a Service's port without endpoints.
fn refused(cgroup: &PathBuf, set_retval: u32) -> String {
    let mut loader = EbpfLoader::new();
    for map in
        [maps::FRONTENDS4, maps::FRONTENDS6, maps::BACKENDS, maps::SLOTS, maps::ENDPOINTS4, maps::ENDPOINTS6]
    {
        loader.map_max_entries(map, 16);
    }
    for map in [maps::CONNTRACK4, maps::CONNTRACK6, maps::SOCKETS] {
        loader.map_max_entries(map, 1024);
    }
    loader.override_global(globals::SET_RETVAL, &set_retval, true);
    let mut ebpf = loader.load(OBJECT).expect("needs root: it loads programs");
    let mut frontends =
        HashMap::<&mut MapData, [u8; size_of::<FrontendKey4>()], [u8; size_of::<Frontend>()]>::try_from(
            ebpf.map_mut(maps::FRONTENDS4).expect("a map"),
        )
        .expect("a hash map");
    // 198.18.0.1:80 over TCP: service 1, no slots.
    let mut frontend = [0; size_of::<Frontend>()];
    frontend[0] = 1;
    frontends.insert([198, 18, 0, 1, 0, 80, 6, 0], frontend, 0).expect("inserts");

    let program: &mut CgroupSockAddr =
        ebpf.program_mut(programs::CONNECT4).expect("a program").try_into().expect("its kind");
    program.load().expect("loads");
    program.attach(fs::File::open(cgroup).expect("opens"), CgroupAttachMode::Single).expect("attaches");
    let script = format!("echo $$ >{}/cgroup.procs && exec 3<>/dev/tcp/198.18.0.1/80", cgroup.display());
    let output = Command::new("bash").args(["-c", &script]).env("LC_ALL", "C").output().expect("bash runs");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_refused_connection_says_so_where_the_kernel_can() {
    let cgroup = cgroup();
    let with = refused(&cgroup, 1);
    let without = refused(&cgroup, 0);
    fs::remove_dir(&cgroup).expect("removes");
    assert!(with.contains("Connection refused"), "{with}");
    assert!(without.contains("Operation not permitted"), "{without}");
}
