//! A zone handed over whole by both: the same records.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::SocketAddr;

use anyhow::{Result, ensure};
use eastwest_integration::connect;
use eastwest_integration::dns::{Seen, query};
use eastwest_lab::Lab;

const ZONE: &str = "cluster.local.";
const AXFR: u16 = 252;

/// Compares the zone as both hand it over; gives how many records it has.
pub fn compare(lab: &Lab, node: &str, ours: SocketAddr, theirs: SocketAddr) -> Result<usize> {
    let ours = lab.within(node, || transfer(ours))??;
    let theirs = lab.within(node, || transfer(theirs))??;
    let (ours, theirs) = (comparable(&ours), comparable(&theirs));
    let missing: Vec<_> = theirs.difference(&ours).collect();
    let more: Vec<_> = ours.difference(&theirs).collect();
    ensure!(missing.is_empty() && more.is_empty(), "only CoreDNS: {missing:#?}\nonly eastwest: {more:#?}");
    Ok(ours.len())
}

/// Records that are to be the same.
fn comparable(records: &BTreeSet<String>) -> BTreeSet<String> {
    let same = |line: &&String| {
        // Where a server says that it is; what CoreDNS leaves out, though it answers it; and endpoints that only
        // `publishNotReadyAddresses` of the Service makes ready, as in differences.yaml.
        !line.starts_with("ns.dns.")
            && !line.starts_with("dns-version.")
            && !line.contains("early.default.svc.")
    };
    let unweighted = |line: &String| {
        let mut words: Vec<&str> = line.split(' ').collect();
        // CoreDNS weighs here as if each port were the only one, and otherwise in what it answers.
        if words.get(2) == Some(&"srv") {
            words[4] = "W";
        }
        words.join(" ")
    };
    records.iter().filter(same).map(unweighted).collect()
}

/// Everything up to the second SOA.
fn transfer(server: SocketAddr) -> Result<BTreeSet<String>> {
    let request = query(ZONE, AXFR);
    let mut stream = connect(server, 0)?;
    stream.write_all(&[&(request.len() as u16).to_be_bytes()[..], &request].concat())?;
    let mut records = BTreeSet::new();
    let mut ends = 0;
    while ends < 2 {
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut answer = vec![0; u16::from_be_bytes(length).into()];
        stream.read_exact(&mut answer)?;
        let message = hickory_proto::op::Message::from_vec(&answer)?;
        ends +=
            message.answers.iter().filter(|r| r.record_type() == hickory_proto::rr::RecordType::SOA).count();
        let seen = Seen::read(&request, &answer)?;
        ensure!(seen.rcode == "NOERROR" && seen.flags.contains("aa"), "{server}: {seen}");
        records.extend(seen.answer);
    }
    Ok(records)
}
