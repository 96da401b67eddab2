//! The controller's own CA, the server's certificate, tokens and kubeconfig files. The CA and the tokens are made on
//! the first start and kept; the certificate is made anew at each start and every 30 days, so it never runs out.

use std::fs;
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use eastwest_api::Role;
use rand::Rng;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};

const CA_DAYS: i64 = 3650;
const SERVER_DAYS: i64 = 365;
/// How often a running controller renews its certificate.
pub const RENEW: std::time::Duration = std::time::Duration::from_secs(30 * 24 * 3600);

/// See the module.
pub struct Pki {
    dir: PathBuf,
    ca_pem: String,
    ca_key: KeyPair,
    names: Vec<String>,
}

impl Pki {
    /// Loads or makes the CA in `data_dir/pki`. `names` are the host names and addresses that clients use.
    pub fn open(data_dir: &Path, names: Vec<String>) -> Result<Self> {
        let dir = data_dir.join("pki");
        make_dir(&dir)?;
        let (cert_path, key_path) = (dir.join("ca.crt"), dir.join("ca.key"));
        let (ca_pem, ca_key) = if key_path.exists() {
            let key = fs::read_to_string(&key_path)
                .with_context(|| format!("cannot read {}", key_path.display()))?;
            let pem = fs::read_to_string(&cert_path).with_context(|| {
                format!("cannot read {}, which belongs to {}", cert_path.display(), key_path.display())
            })?;
            (
                pem,
                KeyPair::from_pem(&key)
                    .with_context(|| format!("{} is not a private key", key_path.display()))?,
            )
        } else {
            let (pem, key) = new_ca()?;
            // The certificate first: a key alone would be taken for a whole CA.
            write(&cert_path, &pem, 0o644)?;
            write(&key_path, &key, 0o600)?;
            (pem, KeyPair::from_pem(&key)?)
        };
        Ok(Self { dir, ca_pem, ca_key, names })
    }

    /// The certificate of the CA, PEM.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// Makes a certificate for the server and gives the TLS configuration with it.
    pub fn server_config(&self) -> Result<Arc<rustls::ServerConfig>> {
        let mut names = self.names.clone();
        names.sort();
        names.dedup();
        let mut params = CertificateParams::new(names).context("a certificate name is not valid")?;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "eastwest-controller");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        valid_for(&mut params, SERVER_DAYS);
        let key = KeyPair::generate()?;
        let issuer = Issuer::new(ca_params(), &self.ca_key);
        let cert = params.signed_by(&key, &issuer)?;
        write(&self.dir.join("server.crt"), &cert.pem(), 0o644)?;
        write(&self.dir.join("server.key"), &key.serialize_pem(), 0o600)?;
        let ca = CertificateDer::from_pem_slice(self.ca_pem.as_bytes())
            .context("pki/ca.crt is not a certificate")?;
        let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?;
        let mut config = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone(), ca], key)
            .context("pki/ca.crt and pki/ca.key do not belong together")?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    /// Loads or makes the tokens.
    pub fn tokens(&self) -> Result<Vec<(String, Role)>> {
        let path = self.dir.join("tokens.yaml");
        let mut tokens: std::collections::BTreeMap<String, String> = if path.exists() {
            let text =
                fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            serde_yaml_ng::from_str(&text)
                .with_context(|| format!("{} is not a map of roles to tokens", path.display()))?
        } else {
            Default::default()
        };
        let before = tokens.clone();
        for role in Role::ALL {
            tokens.entry(role.name().into()).or_insert_with(new_token);
        }
        if tokens != before {
            write(&path, &serde_yaml_ng::to_string(&tokens)?, 0o600)?;
        }
        Ok(Role::ALL.into_iter().filter_map(|r| Some((tokens.get(r.name())?.clone(), r))).collect())
    }
}

/// A new CA: its certificate and its key, PEM.
pub fn new_ca() -> Result<(String, String)> {
    let key = KeyPair::generate()?;
    Ok((ca_params().self_signed(&key)?.pem(), key.serialize_pem()))
}

/// Makes [`Pki::open`] find a CA that is shared with others.
pub fn adopt(data_dir: &Path, (cert, key): &(String, String)) -> Result<()> {
    let dir = data_dir.join("pki");
    make_dir(&dir)?;
    write(&dir.join("ca.crt"), cert, 0o644)?;
    write(&dir.join("ca.key"), key, 0o600)
}

fn make_dir(dir: &Path) -> Result<()> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.with_context(|| format!("cannot create {}", dir.display()))
}

/// 256 bits, in hexadecimal.
fn new_token() -> String {
    rand::rng().random::<[u8; 32]>().iter().map(|b| format!("{b:02x}")).collect()
}

fn ca_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "eastwest CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages =
        vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    valid_for(&mut params, CA_DAYS);
    params
}

/// From an hour ago, for clocks that differ.
fn valid_for(params: &mut CertificateParams, days: i64) {
    let now = OffsetDateTime::now_utc();
    params.not_before = now - Duration::hours(1);
    params.not_after = now + Duration::days(days);
}

/// Writes a file whole or not at all, and durably. One that already holds the same is left alone.
fn write(path: &Path, text: &str, mode: u32) -> Result<()> {
    if fs::read_to_string(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    let mut tmp = path.as_os_str().to_owned();
    tmp.push(".tmp");
    let tmp = PathBuf::from(tmp);
    let write = || -> std::io::Result<()> {
        let _ = fs::remove_file(&tmp);
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&tmp)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&tmp, path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// Names and addresses by which the server is reached: its own, those configured, and the one advertised.
pub fn names(sans: &[String], advertised_host: &str, listen: IpAddr) -> Vec<String> {
    let mut names: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(String::from).into();
    names.extend(sans.iter().cloned());
    names.push(advertised_host.trim_matches(['[', ']']).to_owned());
    if !listen.is_unspecified() {
        names.push(listen.to_string());
    }
    if let Ok(host) = nix::unistd::gethostname() {
        names.extend(host.into_string().ok());
    }
    names.retain(|n| !n.is_empty());
    names
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Kubeconfig {
    #[serde(rename = "apiVersion")]
    api_version: &'static str,
    kind: &'static str,
    clusters: Vec<serde_json::Value>,
    users: Vec<serde_json::Value>,
    contexts: Vec<serde_json::Value>,
    current_context: String,
}

/// Writes `ROLE.kubeconfig` into `data_dir` for each role.
pub fn write_kubeconfigs(data_dir: &Path, server: &str, pki: &Pki, tokens: &[(String, Role)]) -> Result<()> {
    use serde_json::json;
    let ca = base64(pki.ca_pem().as_bytes());
    for (token, role) in tokens {
        let user = format!("eastwest-{}", role.name());
        let config = Kubeconfig {
            api_version: "v1",
            kind: "Config",
            clusters: vec![json!({"name": "eastwest",
                "cluster": {"server": server, "certificate-authority-data": ca}})],
            users: vec![json!({"name": user, "user": {"token": token}})],
            contexts: vec![json!({"name": user, "context": {"cluster": "eastwest", "user": user}})],
            current_context: user.clone(),
        };
        let path = data_dir.join(format!("{}.kubeconfig", role.name()));
        write(&path, &serde_yaml_ng::to_string(&config)?, 0o600)?;
    }
    Ok(())
}

/// RFC 4648 §4.
fn base64(data: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(data.len().div_ceil(3) * 4);
    for chunk in data.chunks(3) {
        let bits = chunk.iter().fold(0u32, |n, b| n << 8 | u32::from(*b)) << (8 * (3 - chunk.len()));
        for i in 0..4 {
            let digit = ALPHABET[(bits >> (18 - 6 * i) & 63) as usize];
            out.push(if i <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_as_in_the_rfc() {
        for (text, expected) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
        ] {
            assert_eq!(base64(text.as_bytes()), expected);
        }
    }

    #[test]
    fn ca_and_tokens_outlive_a_restart() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let dir = tempfile::tempdir().unwrap();
        let open =
            || Pki::open(dir.path(), names(&["node.example".into()], "192.0.2.1", [0; 4].into())).unwrap();
        let (a, b) = (open(), open());
        assert_eq!(a.ca_pem(), b.ca_pem());
        assert_eq!(a.tokens().unwrap(), b.tokens().unwrap());
        a.server_config().unwrap();
        b.server_config().unwrap();
        let mode = std::os::unix::fs::PermissionsExt::mode;
        for file in ["ca.key", "server.key", "tokens.yaml"] {
            let meta = fs::metadata(dir.path().join("pki").join(file)).unwrap();
            assert_eq!(mode(&meta.permissions()) & 0o777, 0o600, "{file}");
        }
    }
}
