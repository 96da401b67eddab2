//! Bad requests: each is told what is wrong and where.

use http::Method;
use serde_json::json;

use super::*;

#[tokio::test]
async fn bodies_that_cannot_be_read() {
    let api = Api::new().await;
    for (name, type_, body, code, reason, words) in [
        (
            "cut JSON",
            "application/json",
            r#"{"metadata": {"name": "web""#,
            400,
            "BadRequest",
            "line 1 column 27",
        ),
        ("bad YAML", "application/yaml", "metadata: {name: [}\n", 400, "BadRequest", "line 1 column"),
        ("empty", "application/json", "", 400, "BadRequest", "not valid JSON"),
        ("a list", "application/json", "[]", 400, "BadRequest", "one Service object"),
        (
            "a wrong type",
            "application/json",
            r#"{"spec": {"ports": [{"port": "x"}]}}"#,
            400,
            "BadRequest",
            "spec.ports[0].port",
        ),
        (
            "out of range",
            "application/json",
            r#"{"spec": {"ports": [{"port": 70000}]}}"#,
            400,
            "BadRequest",
            "spec.ports[0].port",
        ),
        ("another kind", "application/json", r#"{"kind": "Pod"}"#, 400, "BadRequest", "Service"),
        ("another version", "application/json", r#"{"apiVersion": "v2"}"#, 400, "BadRequest", "v1"),
        (
            "no name",
            "application/json",
            r#"{"spec": {"ports": [{"port": 1}]}}"#,
            422,
            "Invalid",
            "metadata.name",
        ),
        ("media type", "text/html", "{}", 415, "UnsupportedMediaType", "application/yaml"),
        (
            "a revision",
            "application/json",
            r#"{"metadata": {"name": "a", "resourceVersion": "1"}}"#,
            400,
            "BadRequest",
            "resourceVersion",
        ),
    ] {
        let answer = api.call_as("admin", Method::POST, SERVICES, type_, body).await;
        answer.failed(code, reason);
        let message = answer.body["message"].as_str().unwrap();
        assert!(message.contains(words), "{name}: {message}");
    }
    let deep = "[".repeat(100_000);
    api.call_as("admin", Method::POST, SERVICES, "application/json", deep.clone())
        .await
        .failed(400, "BadRequest");
    api.call_as("admin", Method::POST, SERVICES, "application/yaml", deep).await.failed(400, "BadRequest");
    let aliases = "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n\
                   d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e]\n\
                   g: &g [*f,*f,*f,*f,*f,*f,*f,*f,*f]\nh: [*g,*g,*g,*g,*g,*g,*g,*g,*g]\n";
    api.call_as("admin", Method::POST, SERVICES, "application/yaml", aliases).await.failed(400, "BadRequest");
}

#[tokio::test]
async fn bodies_that_are_too_large() {
    let api = Api::new().await;
    let large = " ".repeat(eastwest_api::BODY_MAX + 1);
    api.call_as("admin", Method::POST, SERVICES, "application/json", large)
        .await
        .failed(413, "RequestEntityTooLarge");
    // Without a length, endless.
    let chunk = bytes::Bytes::from(vec![b' '; 64 << 10]);
    let endless = futures::stream::repeat_with(move || Ok::<_, std::io::Error>(chunk.clone()));
    api.call_as("admin", Method::POST, SERVICES, "application/json", Body::from_stream(endless))
        .await
        .failed(413, "RequestEntityTooLarge");
}

#[tokio::test]
async fn who_may_do_what() {
    let api = Api::new().await;
    let body = web("web").to_string();
    for (token, method, path, code) in [
        ("nobody", Method::GET, SERVICES, 401),
        ("", Method::GET, SERVICES, 401),
        ("viewer", Method::GET, SERVICES, 200),
        ("viewer", Method::POST, SERVICES, 403),
        ("agent", Method::POST, SERVICES, 403),
        ("agent", Method::DELETE, "/api/v1/nodes/n", 403),
        ("agent", Method::GET, SERVICES, 200),
        ("admin", Method::POST, SERVICES, 201),
        ("nobody", Method::GET, "/livez", 200),
        ("nobody", Method::GET, "/version", 200),
        ("nobody", Method::GET, "/openapi/v3", 401),
    ] {
        let answer = api.call_as(token, method.clone(), path, "application/json", body.clone()).await;
        assert_eq!(answer.code, code, "{token} {method} {path}");
        match code {
            401 => {
                answer.failed(401, "Unauthorized");
                assert!(answer.headers.contains_key("www-authenticate"));
            }
            403 => drop(answer.failed(403, "Forbidden")),
            _ => {}
        }
    }
    let answer = api.call_as("nobody", Method::GET, "/v1/topology", "application/json", "").await;
    assert_eq!(
        (answer.code, &answer.headers["content-type"]),
        (401, &"application/problem+json".parse().unwrap())
    );
}

#[tokio::test]
async fn methods_and_paths() {
    let api = Api::new().await;
    let answer = api.put(SERVICES, json!({})).await;
    answer.failed(405, "MethodNotAllowed");
    assert_eq!(answer.headers["allow"], "GET, POST, DELETE");
    api.post(&format!("{SERVICES}/web"), json!({})).await.failed(405, "MethodNotAllowed");
    api.post("/api/v1/services", web("web")).await.failed(405, "MethodNotAllowed");
    api.delete(&format!("{SERVICES}/web/status")).await.failed(405, "MethodNotAllowed");
    api.get(&format!("{SLICES}/a/status")).await.failed(404, "NotFound");
    api.get(&format!("{SERVICES}?limit=many")).await.failed(400, "BadRequest");
    api.get(&format!("{WORKLOADS}?fieldSelector=spec.type%3DClusterIP")).await.failed(400, "BadRequest");
    assert_eq!(api.get("/v1/nothing").await.headers["content-type"], "application/problem+json");
}
