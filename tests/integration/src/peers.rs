//! Other programs that tests compare with or are answered by, as they are, in namespaces of a lab.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use eastwest_lab::{Families, Lab, Plan};

/// A process of a test; it ends with this value.
#[derive(Debug)]
pub struct Peer {
    child: Child,
    log: PathBuf,
}

impl Peer {
    /// Starts `program` in the place of the lab of that name, its words going to `log`.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(lab: &Lab, target: &str, program: &Path, args: &[&str], log: PathBuf) -> Result<Self> {
        let file = File::create(&log).with_context(|| log.display().to_string())?;
        let mut command = lab.command(target, &program.display().to_string())?;
        command.args(args).stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let child = command.spawn().with_context(|| format!("start {} in {target}", program.display()))?;
        Ok(Self { child, log })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// An error with what it said when it has ended.
    ///
    /// # Errors
    /// As said.
    pub fn check(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{status}: {}", std::fs::read_to_string(&self.log).unwrap_or_default()),
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The repository's folder.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The CoreDNS of `scripts/peers/coredns`, built if need be.
///
/// # Errors
/// It cannot be built.
pub fn coredns() -> Result<PathBuf> {
    script("scripts/peers/coredns", &[])
}

fn script(path: &str, args: &[&str]) -> Result<PathBuf> {
    let script = repository().join(path);
    let output = Command::new(&script).args(args).stderr(Stdio::inherit()).output();
    let output = output.with_context(|| script.display().to_string())?;
    ensure!(output.status.success(), "{}: {}", script.display(), output.status);
    Ok(PathBuf::from(String::from_utf8(output.stdout)?.trim()))
}

/// Debian packages unpacked by `scripts/peers/debian`: the folder.
///
/// # Errors
/// They cannot be had.
pub fn debian(packages: &[&str]) -> Result<PathBuf> {
    script("scripts/peers/debian", packages)
}

/// The zone that the upstream of a lab knows.
const ZONE: &str = "\
$ORIGIN example.test.
$TTL 60
@      IN SOA  ns.example.test. root.example.test. 1 7200 1800 86400 20
@      IN NS   ns
ns     IN A    192.0.2.53
www    IN A    192.0.2.1
www    IN A    192.0.2.2
www    IN AAAA 2001:db8::1
four   IN A    192.0.2.4
alias  IN CNAME www
far    IN CNAME alias
lost   IN CNAME gone
mail   IN A    192.0.2.25
@      IN MX   10 mail
text   IN TXT  \"one\" \"two\"
_sip._udp IN SRV 1 2 5060 www
a.b.c  IN A    192.0.2.7
";

/// The server of other names that the lab's nodes have as upstream: CoreDNS with a zone `example.test`; anything else
/// does not exist.
///
/// # Errors
/// It cannot be built or started.
pub fn upstream(lab: &Lab, folder: &Path) -> Result<Peer> {
    let zone = folder.join("example.test.zone");
    std::fs::write(&zone, ZONE)?;
    let address = Plan::fabric_ip(Families::V4);
    let corefile = folder.join("Corefile.upstream");
    let text = format!(
        "example.test {{\n bind {address}\n file {}\n}}\n. {{\n bind {address}\n template ANY ANY {{\n  rcode NXDOMAIN\n  \
         authority \". 60 IN SOA ns.example.test. root.example.test. 1 7200 1800 86400 20\"\n }}\n}}\n",
        zone.display()
    );
    std::fs::write(&corefile, text)?;
    let args = ["-conf", &corefile.display().to_string()].map(str::to_owned);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let mut peer = Peer::start(lab, "fabric", &coredns()?, &args, folder.join("upstream.log"))?;
    let query = crate::dns::query("www.example.test.", 1);
    let server = (address, 53).into();
    crate::eventually(|| {
        peer.check()?;
        let answers =
            lab.within("fabric", || crate::dns::ask_all(server, std::slice::from_ref(&query)))??;
        ensure!(answers[0].get(7) == Some(&2), "not yet the zone's answer");
        Ok(())
    })?;
    Ok(peer)
}
