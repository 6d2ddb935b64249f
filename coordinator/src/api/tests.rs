//! The description names every route, and unsigned calls are refused.

use super::*;

#[test]
fn every_route_is_described() {
    let description = serde_json::to_value(Description::openapi()).unwrap();
    let mut described: Vec<String> = description["paths"].as_object().unwrap().keys().cloned().collect();
    described.push("/openapi.json".to_owned());
    described.sort();
    let source = include_str!("../api.rs");
    let mut routes: Vec<String> =
        source.lines().filter_map(|line| line.trim().strip_prefix(".route(\"")?.split('"').next().map(str::to_owned)).collect();
    routes.sort();
    assert_eq!(described, routes);
}
