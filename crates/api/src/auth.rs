use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use eastwest_model::Kind;
use http::{HeaderMap, Method, header};
use subtle::ConstantTimeEq;

use crate::request::ResourcePath;

/// What a token allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Everything.
    Admin,
    /// Read everything.
    Viewer,
    /// Read everything; write Nodes and NodeStates. All agents share one token, so one node's agent could report for
    /// another.
    Agent,
}

impl Role {
    pub const ALL: [Role; 3] = [Role::Admin, Role::Viewer, Role::Agent];

    /// The role's name, also of its kubeconfig file.
    pub const fn name(self) -> &'static str {
        match self {
            Role::Admin => "admin",
            Role::Viewer => "viewer",
            Role::Agent => "agent",
        }
    }

    /// Whether the role may do this.
    pub fn allows(self, method: &Method, path: &str) -> bool {
        if self == Role::Admin || *method == Method::GET || *method == Method::HEAD {
            return true;
        }
        let writes = [Method::POST, Method::PUT, Method::PATCH].contains(method);
        let own = |p: ResourcePath<'_>| matches!(p.kind, Kind::Node | Kind::NodeState);
        let tells = *method == Method::POST && path == "/v1/agent/flows";
        self == Role::Agent && (tells || writes && ResourcePath::parse(path).is_some_and(own))
    }
}

/// Knows tokens that are not in the controller's own list.
pub trait Reviewer: Send + Sync {
    /// The role of a token; `None` when it is not valid, or that cannot be found out now.
    fn review(&self, token: String) -> Pin<Box<dyn Future<Output = Option<Role>> + Send + '_>>;
}

/// The bearer tokens and their roles.
#[derive(Clone, Default)]
pub struct Auth {
    tokens: Vec<(String, Role)>,
    reviewer: Option<Arc<dyn Reviewer>>,
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let roles: Vec<_> = self.tokens.iter().map(|(_, role)| role).collect();
        f.debug_struct("Auth").field("roles", &roles).finish()
    }
}

impl Auth {
    pub fn new(tokens: impl IntoIterator<Item = (String, Role)>) -> Self {
        Self { tokens: tokens.into_iter().filter(|(t, _)| !t.is_empty()).collect(), reviewer: None }
    }

    /// Asks `reviewer` about tokens that are not in the list.
    pub fn with_reviewer(self, reviewer: Arc<dyn Reviewer>) -> Self {
        Self { reviewer: Some(reviewer), ..self }
    }

    /// The role of the request's token; `None` without a valid one.
    pub async fn role(&self, headers: &HeaderMap) -> Option<Role> {
        let token = bearer(headers)?;
        match (self.known(token), &self.reviewer) {
            (None, Some(reviewer)) if !token.is_empty() => reviewer.review(token.to_owned()).await,
            (role, _) => role,
        }
    }

    /// Takes the same time whichever token it is.
    fn known(&self, token: &str) -> Option<Role> {
        let token = token.as_bytes();
        let mut role = None;
        for (known, of) in &self.tokens {
            if bool::from(known.as_bytes().ct_eq(token)) {
                role = Some(*of);
            }
        }
        role
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Paths that need no token: health, version and the dashboard's files.
pub fn public(path: &str) -> bool {
    let protected =
        |root: &str| path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    !["/api", "/apis", "/v1", "/openapi"].into_iter().any(protected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles() {
        let (get, put, post, delete) = (Method::GET, Method::PUT, Method::POST, Method::DELETE);
        for (role, method, path, allowed) in [
            (Role::Viewer, &get, "/api/v1/services", true),
            (Role::Viewer, &post, "/api/v1/namespaces/a/services", false),
            (Role::Agent, &get, "/v1/agent/stream", true),
            (Role::Agent, &put, "/apis/eastwest.dev/v1/nodestates/n", true),
            (Role::Agent, &post, "/api/v1/nodes", true),
            (Role::Agent, &put, "/api/v1/nodes/n/status", true),
            (Role::Agent, &delete, "/api/v1/nodes/n", false),
            (Role::Agent, &put, "/api/v1/namespaces/a/services/b", false),
            (Role::Agent, &post, "/v1/anything", false),
            (Role::Admin, &delete, "/api/v1/nodes/n", true),
        ] {
            assert_eq!(role.allows(method, path), allowed, "{role:?} {method} {path}");
        }
    }

    struct Only(&'static str);

    impl Reviewer for Only {
        fn review(&self, token: String) -> Pin<Box<dyn Future<Output = Option<Role>> + Send + '_>> {
            Box::pin(std::future::ready((token == self.0).then_some(Role::Agent)))
        }
    }

    #[tokio::test]
    async fn tokens() {
        let auth = Auth::new([("secret".into(), Role::Admin), (String::new(), Role::Admin)]);
        let reviewed = auth.clone().with_reviewer(Arc::new(Only("other")));
        for (value, expected, with_reviewer) in [
            ("Bearer secret", Some(Role::Admin), Some(Role::Admin)),
            ("bearer  secret ", Some(Role::Admin), Some(Role::Admin)),
            ("Bearer secre", None, None),
            ("Bearer other", None, Some(Role::Agent)),
            ("Bearer ", None, None),
            ("Basic secret", None, None),
            ("secret", None, None),
        ] {
            let headers = HeaderMap::from_iter([(header::AUTHORIZATION, value.parse().unwrap())]);
            assert_eq!(auth.role(&headers).await, expected, "{value:?}");
            assert_eq!(reviewed.role(&headers).await, with_reviewer, "{value:?}");
        }
        assert_eq!(auth.role(&HeaderMap::new()).await, None);
    }

    #[test]
    fn public_paths() {
        for (path, expected) in [
            ("/", true),
            ("/livez", true),
            ("/version", true),
            ("/assets/api.js", true),
            ("/apiary", true),
            ("/api", false),
            ("/api/v1/services", false),
            ("/apis", false),
            ("/openapi/v3", false),
            ("/v1/topology", false),
        ] {
            assert_eq!(public(path), expected, "{path}");
        }
    }
}
