//! Holds `api-spec/openapi.json` true.

#[test]
fn the_committed_document_is_the_code_s() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../api-spec/openapi.json");
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        committed == eastwest_api::openapi_json(),
        "api-spec/openapi.json is not what the code says: run `make spec` and commit the result"
    );
}

#[test]
fn every_reference_leads_somewhere() {
    fn walk(value: &serde_json::Value, document: &serde_json::Value) {
        match value {
            serde_json::Value::Object(map) => {
                if let Some(serde_json::Value::String(r)) = map.get("$ref") {
                    let pointer = r.strip_prefix('#').expect("a local reference");
                    assert!(document.pointer(pointer).is_some(), "{r}");
                }
                map.values().for_each(|v| walk(v, document));
            }
            serde_json::Value::Array(items) => items.iter().for_each(|v| walk(v, document)),
            _ => {}
        }
    }
    let document: serde_json::Value = serde_json::from_str(&eastwest_api::openapi_json()).unwrap();
    walk(&document, &document);
    let services = &document["paths"]["/api/v1/namespaces/{namespace}/services/{name}"];
    for method in ["get", "put", "patch", "delete"] {
        assert!(services[method]["responses"]["200"].is_object(), "{method}");
    }
}
