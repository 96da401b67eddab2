use serde::{Deserialize, Serialize};

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No usable kubeconfig. The text names the file and what is missing.
    #[error("{0}")]
    Kubeconfig(String),
    /// The server answered with an error.
    #[error("{0}")]
    Status(Box<Status>),
    /// The server could not be reached, or the connection broke.
    #[error("cannot reach {server}: {reason}")]
    Transport { server: String, reason: String },
    /// The answer is not what the protocol says.
    #[error("unexpected answer from {server}: {reason}")]
    Protocol { server: String, reason: String },
    /// The object to send is no object of the API.
    #[error("{0}")]
    Manifest(String),
}

impl Error {
    /// The HTTP status code, when the server answered with an error.
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Status(status) => Some(status.code),
            _ => None,
        }
    }

    pub fn is_not_found(&self) -> bool {
        self.code() == Some(404)
    }

    /// The object exists already, or was changed by somebody else meanwhile.
    pub fn is_conflict(&self) -> bool {
        self.code() == Some(409)
    }
}

/// Kubernetes' `metav1.Status`, or an RFC 9457 problem read into the same fields.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Status {
    pub status: String,
    pub message: String,
    pub reason: String,
    pub code: u16,
    pub details: Option<StatusDetails>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StatusDetails {
    pub name: String,
    pub group: String,
    pub kind: String,
    pub causes: Vec<StatusCause>,
    pub retry_after_seconds: i32,
}

/// One thing wrong with an object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StatusCause {
    pub reason: String,
    pub message: String,
    /// Path in the manifest.
    pub field: String,
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.message.is_empty() {
            write!(f, "the server answered {} {}", self.code, self.reason)
        } else {
            f.write_str(&self.message)
        }
    }
}

impl Status {
    /// Reads an error's body, whatever it is.
    pub(crate) fn read(code: u16, body: &[u8]) -> Self {
        #[derive(Deserialize)]
        struct Problem {
            title: Option<String>,
            detail: Option<String>,
        }
        if let Ok(status) = serde_json::from_slice::<Status>(body)
            && !(status.message.is_empty() && status.reason.is_empty())
        {
            return Status { code, ..status };
        }
        let problem = serde_json::from_slice::<Problem>(body).ok();
        let (title, detail) = problem.map_or((None, None), |p| (p.title, p.detail));
        let text = || {
            let text = String::from_utf8_lossy(&body[..body.len().min(300)]).trim().to_owned();
            if text.is_empty() { format!("the server answered {code}") } else { text }
        };
        Status {
            status: "Failure".into(),
            message: detail.or_else(|| title.clone()).unwrap_or_else(text),
            reason: title.unwrap_or_default(),
            code,
            details: None,
        }
    }
}
