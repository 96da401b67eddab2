//! Requests to a lab's controller from where there may, or must not, be a runtime.

use std::path::Path;

use eastwest_client::Client;

use crate::Error;
use crate::error::Doing;

/// Runs requests to completion on a thread and a runtime of their own: the caller may itself be inside a runtime, which
/// must not be entered twice.
pub(crate) fn blocking<T, F>(kubeconfig: &Path, f: impl FnOnce(Client) -> F + Send) -> Result<T, Error>
where
    T: Send,
    F: Future<Output = Result<T, Error>>,
{
    // A second installation changes nothing.
    let _installed = rustls::crypto::ring::default_provider().install_default();
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.doing(|| "start a runtime".into())?;
        runtime.block_on(async { f(Client::from_path(Some(kubeconfig), None).await?).await })
    };
    std::thread::scope(|scope| match scope.spawn(run).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}
