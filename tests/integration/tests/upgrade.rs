//! Agents come and go, and Services are edited, under load from everywhere: no packet of an open connection is lost, and no
//! new connection fails.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use eastwest_client::WriteOptions;
use eastwest_integration::load::{Load, Plan, Target, lost_syns, none_lost};
use eastwest_integration::*;
use eastwest_lab::{Lab, Options, Plan as LabPlan, PodHook, Role};
use eastwest_model::{Service, Workload};
use serde_json::{Value, json};

const LOAD: &str = env!("CARGO_BIN_EXE_eastwest-load");
/// Answers that each socket has between two steps.
const SOME: u64 = 15;
const NODE_PORT: u16 = 30_080;
const TCP_PORTS: &[u16] = &[80, 8080, NODE_PORT];

fn ports() -> Vec<Value> {
    vec![
        json!({"name": "http", "port": 80, "targetPort": 8080, "nodePort": NODE_PORT}),
        json!({"name": "ask", "port": 80, "targetPort": 8080, "protocol": "UDP", "nodePort": NODE_PORT}),
    ]
}

/// From a pod, a process of a node, and outside the cluster; by cluster addresses and by a node's ports.
fn loads(lab: &Lab, web: &Value) -> Result<Vec<Load>> {
    let both = |to: SocketAddr| [false, true].map(|udp| Target { to, udp });
    let vips: Vec<Target> =
        cluster_ips(web).into_iter().flat_map(|ip| both(SocketAddr::new(ip, 80))).collect();
    let families = lab.plan()?.families();
    let node_ports: Vec<Target> = families
        .iter()
        .flat_map(|family| both(SocketAddr::new(LabPlan::node_ip(2, *family), NODE_PORT)))
        .collect();
    let start = |from: &str, targets: &[Target]| {
        let plan = Plan { targets: targets.to_vec(), held: 2, pause_ms: 25 };
        Load::start(lab, LOAD, from, &plan)
    };
    Ok(vec![
        start("asks", &vips)?,
        start("node-1", &vips)?,
        start("client", &[vips.clone(), node_ports].concat())?,
    ])
}

/// Edits the Service, and endpoints of it that serve none of the open flows, until `over`. Nothing is waited for: agents
/// are away meanwhile.
fn edit(lab: &Lab, over: &AtomicBool) -> Result<u32> {
    let mut edits = 0;
    while !over.load(Relaxed) {
        let readiness = if edits % 2 == 0 { "Ready" } else { "NotReady" };
        let spare = json!({"spec": {"readiness": readiness}});
        let mut ports = ports();
        ports.extend((0..edits % 4).map(|n| json!({"name": format!("more-{n}"), "port": 1000 + edits + n})));
        let web = json!({"spec": {"ports": ports}});
        lab.request(|client| async move {
            let options = WriteOptions::default();
            client.merge_patch::<Workload>("default", "spare", &spare, &options).await?;
            client.merge_patch::<Service>("default", "web", &web, &options).await?;
            Ok(())
        })?;
        edits += 1;
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    Ok(edits)
}

fn under_load(name: &str, options: Options) -> Result<()> {
    let lab = lab(name, options)?;
    for n in 1..=3 {
        pod(&lab, &format!("web-{n}"), &format!("node-{n}"), "web", "v1")?;
    }
    pod(&lab, "asks", "node-1", "asks", "v1")?;
    let spec = json!({
        "type": "NodePort", "selector": {"app": "web"}, "ipFamilyPolicy": "PreferDualStack", "ports": ports(),
    });
    let web = service(&lab, "web", spec)?;
    let mut loads = loads(&lab, &web)?;
    let all = |answers: u64| loads.iter().try_for_each(|load| load.advance(answers));
    all(SOME).context("before anything happens")?;
    pod(&lab, "spare", "node-2", "web", "v1")?;

    let over = AtomicBool::new(false);
    let edits = std::thread::scope(|scope| -> Result<u32> {
        let editor = scope.spawn(|| edit(&lab, &over));
        let steps = || -> Result<()> {
            all(SOME).context("a Service is edited")?;
            for node in ["node-1", "node-2"] {
                let agent = Role::Agent(node.to_owned());
                let at = Instant::now();
                lab.stop(&agent)?;
                all(SOME).with_context(|| format!("without the agent of {node}"))?;
                lab.start(&agent)?;
                all(SOME).with_context(|| format!("the agent of {node} came back"))?;
                lab.kill(&agent)?;
                all(SOME).with_context(|| format!("the agent of {node} was killed"))?;
                lab.start(&agent)?;
                all(SOME).with_context(|| format!("the agent of {node} came back after kill -9"))?;
                println!("{name}: {node} restarted twice in {:?}", at.elapsed());
            }
            Ok(())
        };
        let result = steps();
        over.store(true, Relaxed);
        let edits = editor.join().map_err(|_| anyhow::anyhow!("the editor panicked"))?;
        result.and(edits)
    })?;
    ensure!(edits > 10, "{edits} edits");
    loads.iter_mut().try_for_each(Load::quieten)?;
    let servers = ["web-1", "web-2", "web-3"];
    eventually(|| none_lost(&lab, &["asks", "node-1", "client"], &servers, TCP_PORTS))?;
    let lost = lost_syns(&lab, &["asks", "client"], &servers)?;
    ensure!(lost == 0, "{lost} SYNs were not answered the first time");
    for load in loads {
        println!("{name}: {edits} edits, {:?}", load.end()?);
    }
    Ok(())
}

fn check(name: &str, options: Options) {
    if let Err(e) = under_load(name, options) {
        panic!("{e:?}");
    }
}

#[test]
fn with_tc_at_pods() {
    check("upgradetc", Options::default());
}

#[test]
fn with_xdp_at_pods() {
    check("upgradexdp", Options { pod_hook: PodHook::Xdp, ..Options::default() });
}
