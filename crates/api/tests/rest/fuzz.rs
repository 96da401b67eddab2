//! Whatever is sent, the answer is a clear refusal or a success: never a panic, never a 500.

use http::Method;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
        prop_oneof![
            Just("None"),
            Just("10.96.0.1"),
            Just("fd00::1"),
            Just("ClusterIP"),
            Just("TCP"),
            Just("default")
        ]
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 48, 6, |inner| {
        let name = prop_oneof![
            "[a-zA-Z$./~]{0,10}",
            prop_oneof![
                Just("metadata"),
                Just("name"),
                Just("labels"),
                Just("finalizers"),
                Just("spec"),
                Just("ports"),
                Just("port"),
                Just("targetPort"),
                Just("clusterIP"),
                Just("clusterIPs"),
                Just("ipFamilies"),
                Just("selector"),
                Just("type"),
                Just("status"),
                Just("conditions"),
                Just("addresses"),
                Just("endpoints"),
                Just("$patch"),
                Just("managedFields"),
                Just("op"),
                Just("path"),
                Just("from"),
                Just("value")
            ]
            .prop_map(String::from),
        ];
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            proptest::collection::vec((name, inner), 0..6)
                .prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

fn any_body() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => any_json().prop_map(|v| v.to_string().into_bytes()),
        2 => (any_json(), any_json()).prop_map(|(m, s)| json!({"metadata": m, "spec": s}).to_string().into_bytes()),
        2 => any_json().prop_map(|s| json!({"metadata": {"name": "f"}, "spec": s}).to_string().into_bytes()),
        1 => proptest::collection::vec(any::<u8>(), 0..200),
        1 => "\\PC{0,100}".prop_map(String::into_bytes),
    ]
}

fn any_query() -> impl Strategy<Value = String> {
    let name = prop_oneof![
        Just("labelSelector"),
        Just("fieldSelector"),
        Just("limit"),
        Just("continue"),
        Just("resourceVersion"),
        Just("resourceVersionMatch"),
        Just("dryRun"),
        Just("fieldValidation"),
        Just("fieldManager"),
        Just("force"),
        Just("node")
    ];
    let value = prop_oneof!["[a-zA-Z0-9=,!() /._-]{0,16}", "[%0-9a-fA-F]{0,8}", "\\PC{0,6}"];
    let encode = |v: String| -> String {
        v.bytes()
            .map(|b| {
                if b.is_ascii_alphanumeric() || b == b'%' {
                    char::from(b).to_string()
                } else {
                    format!("%{b:02X}")
                }
            })
            .collect()
    };
    proptest::collection::vec((name, value), 0..4).prop_map(move |pairs| {
        let pairs: Vec<String> = pairs.into_iter().map(|(n, v)| format!("{n}={}", encode(v))).collect();
        pairs.join("&")
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn anything_gets_a_clear_answer(
        requests in proptest::collection::vec((
            prop_oneof![Just(Method::POST), Just(Method::PUT), Just(Method::PATCH), Just(Method::DELETE), Just(Method::GET)],
            prop_oneof![
                Just(SERVICES), Just(WORKLOADS), Just(SLICES), Just(NODES), Just(STATES), Just("/api/v1/namespaces"),
                Just("/api/v1/namespaces/default/services/f"), Just("/apis/eastwest.dev/v1/namespaces/default/workloads/f"),
                Just("/apis/eastwest.dev/v1/namespaces/default/dnsrecords"), Just("/apis/eastwest.dev/v1/nodestates/f"),
                Just("/api/v1/namespaces/default/services/f/status"), Just("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/f"),
            ],
            prop_oneof![
                Just("application/json"), Just("application/yaml"), Just("application/merge-patch+json"),
                Just("application/json-patch+json"), Just("application/strategic-merge-patch+json"),
                Just("application/apply-patch+yaml"),
            ],
            any_query(),
            any_body(),
        ), 1..6)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let api = Api::new().await;
            api.post(SERVICES, web("f")).await.ok(201);
            api.post(WORKLOADS, workload("f", "web", "10.1.0.1")).await.ok(201);
            for (method, path, type_, query, body) in requests {
                let shown = format!("{method} {path}?{query} {type_} {}", String::from_utf8_lossy(&body));
                let answer = api.call_as("admin", method, &format!("{path}?{query}"), type_, body).await;
                let fine = matches!(answer.code, 200 | 201 | 400 | 403 | 404 | 405 | 409 | 410 | 413 | 415 | 422)
                    || answer.body["details"]["causes"][0]["reason"] == "ResourceVersionTooLarge";
                assert!(fine, "{} to {shown}: {:#}", answer.code, answer.body);
                if answer.code >= 400 {
                    assert_eq!(&answer.body["kind"], "Status", "{shown}");
                }
            }
            // Whatever was done, the rest works.
            api.post(SERVICES, service("after", json!({"ports": [{"port": 1}]}))).await.ok(201);
        });
    }
}
