//! Which controller a command talks to.

use anyhow::{Result, bail};
use eastwest_client::Client;
use eastwest_lab::Lab;

use crate::args::To;

/// The lab that `--lab` names, or that is meant when nothing is named. `None`: a kubeconfig is.
pub fn lab(to: &To) -> Result<Option<Lab>> {
    if let Some(name) = &to.lab {
        return Ok(Some(Lab::open(name)?));
    }
    let environment = std::env::var_os("KUBECONFIG").is_some_and(|v| !v.is_empty());
    if to.kubeconfig.is_some() || environment {
        return Ok(None);
    }
    let labs = eastwest_lab::list();
    match labs.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some(Lab::open(one)?)),
        several => bail!("several labs are up: choose with --lab {}", several.join("|")),
    }
}

pub async fn connect(to: &To) -> Result<Client> {
    // A second installation changes nothing.
    let _installed = rustls::crypto::ring::default_provider().install_default();
    let path = match lab(to)? {
        Some(lab) if lab.state()?.options.bare => {
            bail!("lab {} runs without controller and agents", lab.name())
        }
        Some(lab) => Some(lab.kubeconfig()),
        None => to.kubeconfig.clone(),
    };
    Ok(Client::from_path(path.as_deref(), None).await?)
}
