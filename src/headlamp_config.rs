//! Headlamp's `/config`: which clusters its page shows. The list becomes ours, the rest stays the
//! pod's, except for switches of what is refused here.

use serde_json::{Map, Value, json};

use crate::error::{Error, Kind, Result};

/// A cluster of the page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    /// As it stands in the page's addresses.
    pub(crate) name: String,
    pub(crate) server: String,
}

/// The name that every Headlamp before 0.40 has for its own cluster, and most later ones.
const USUAL_NAME: &str = "main";
const IN_CLUSTER: &str = "incluster";
/// What shows buttons for adding, renaming and removing clusters, or for Helm.
const SWITCHED_OFF: [&str; 4] = ["isDynamicClusterEnabled", "allowKubeconfigChanges", "isHelmEnabled", "enableHelm"];

/// The name that this Headlamp has for the cluster that it runs in.
pub(crate) fn in_cluster_name(config: &[u8]) -> Result<String> {
    let config = parsed(config)?;
    let name = own_entry(&config).and_then(|entry| entry.get("name")).and_then(Value::as_str);
    Ok(name.filter(|name| !name.is_empty()).unwrap_or(USUAL_NAME).to_owned())
}

/// The configuration with these clusters and no others. The first one is the cluster that
/// Headlamp runs in: its entry keeps what the pod says of it. `auth_type` is empty: with any other
/// the page would want to sign in.
pub(crate) fn rewritten(config: &[u8], clusters: &[Listed]) -> Result<Vec<u8>> {
    let mut config = parsed(config)?;
    let own = own_entry(&config).cloned();
    let entries = clusters.iter().enumerate().map(|(index, listed)| {
        let base = own.clone().filter(|_| index == 0);
        Value::Object(entry(base.unwrap_or_else(|| new_entry(index)), listed))
    });
    let entries = Value::Array(entries.collect());
    config.insert("clusters".to_owned(), entries);
    for switch in SWITCHED_OFF {
        if let Some(value) = config.get_mut(switch) {
            *value = Value::Bool(false);
        }
    }
    written(&Value::Object(config))
}

/// The configuration of a page that comes from no pod.
pub(crate) fn without_pod() -> Result<Vec<u8>> {
    let own = entry(new_entry(0), &Listed { name: USUAL_NAME.to_owned(), server: String::new() });
    written(&json!({
        "clusters": [own],
        "isDynamicClusterEnabled": false,
        "allowKubeconfigChanges": false,
    }))
}

/// Whether this is a configuration at all, and no page that stands in for it.
pub(crate) fn is_config(bytes: &[u8]) -> bool {
    parsed(bytes).is_ok()
}

fn parsed(config: &[u8]) -> Result<Map<String, Value>> {
    serde_json::from_slice(config).map_err(|error| {
        let place = format!("not a JSON object, at line {}, column {}", error.line(), error.column());
        Error::new(Kind::Other, "the configuration of Headlamp's page cannot be read").cause(place)
    })
}

fn own_entry(config: &Map<String, Value>) -> Option<&Map<String, Value>> {
    let entries = config.get("clusters")?.as_array()?.iter().filter_map(Value::as_object);
    let mut own = entries.filter(|entry| source(entry) == Some(IN_CLUSTER));
    own.next()
}

fn source(entry: &Map<String, Value>) -> Option<&str> {
    entry.get("meta_data")?.get("source")?.as_str()
}

/// The other clusters are not where Headlamp runs; the page shows where it has them from.
fn new_entry(index: usize) -> Map<String, Value> {
    let source = if index == 0 { IN_CLUSTER } else { "kubeconfig" };
    let meta_data = json!({ "source": source, "namespace": "", "extensions": {} });
    Map::from_iter([("meta_data".to_owned(), meta_data)])
}

fn entry(mut entry: Map<String, Value>, listed: &Listed) -> Map<String, Value> {
    entry.insert("name".to_owned(), json!(listed.name));
    entry.insert("server".to_owned(), json!(listed.server));
    entry.insert("auth_type".to_owned(), json!(""));
    // What the pod could not do with the cluster is not so here.
    entry.remove("error");
    entry
}

fn written(config: &Value) -> Result<Vec<u8>> {
    serde_json::to_vec(config).map_err(|error| Error::bug("a configuration cannot be written").caused_by(&error))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

    use proptest::prelude::*;

    use super::*;

    const OF_A_POD: &str = r#"{
        "clusters": [
            {"name":"other","server":"https://other","auth_type":"oidc","meta_data":{"source":"dynamic_cluster"}},
            {"name":"prod-eu","server":"https://10.0.0.1:443","auth_type":"oidc",
             "meta_data":{"source":"incluster","namespace":"","extensions":null,"clusterID":"/prod-eu"}},
            {"name":"broken","error":"no such context"}
        ],
        "isDynamicClusterEnabled": true,
        "allowKubeconfigChanges": true,
        "defaultPodDebugImage": "busybox"
    }"#;

    fn listed(name: &str) -> Listed {
        Listed { name: name.to_owned(), server: format!("https://{name}.example") }
    }

    fn value(bytes: &[u8]) -> Value {
        serde_json::from_slice(bytes).unwrap()
    }

    #[test]
    fn the_own_cluster_is_the_one_whose_source_says_so() {
        assert_eq!(in_cluster_name(OF_A_POD.as_bytes()).unwrap(), "prod-eu");
    }

    #[test]
    fn a_headlamp_that_names_no_own_cluster_has_the_usual_name() {
        for config in [
            "{}",
            r#"{"clusters":null}"#,
            r#"{"clusters":[]}"#,
            r#"{"clusters":[3,{"name":"a"},{"name":"b","meta_data":7}]}"#,
            r#"{"clusters":[{"name":"","meta_data":{"source":"incluster"}}]}"#,
        ] {
            assert_eq!(in_cluster_name(config.as_bytes()).unwrap(), "main", "{config}");
        }
    }

    #[test]
    fn what_is_no_configuration_is_an_error() {
        for config in ["", "<!DOCTYPE html>", "[]", "null"] {
            assert!(in_cluster_name(config.as_bytes()).is_err(), "{config}");
            assert!(rewritten(config.as_bytes(), &[listed("main")]).is_err(), "{config}");
            assert!(!is_config(config.as_bytes()), "{config}");
        }
    }

    #[test]
    fn the_list_is_ours_and_the_own_entry_keeps_its_shape() {
        let config = value(&rewritten(OF_A_POD.as_bytes(), &[listed("prod-eu"), listed("second")]).unwrap());
        let clusters = config["clusters"].as_array().unwrap();
        assert_eq!(clusters.len(), 2);
        assert_eq!(clusters[0]["name"], "prod-eu");
        assert_eq!(clusters[0]["auth_type"], "");
        assert_eq!(clusters[0]["meta_data"]["source"], "incluster");
        assert_eq!(clusters[0]["meta_data"]["clusterID"], "/prod-eu");
        assert_eq!(clusters[0]["server"], "https://prod-eu.example");
        assert_eq!(clusters[1]["name"], "second");
        assert_eq!(clusters[1]["auth_type"], "");
        assert_ne!(clusters[1]["meta_data"]["source"], "incluster");
    }

    #[test]
    fn what_would_show_buttons_that_are_refused_is_off_and_the_rest_stays() {
        let config = value(&rewritten(OF_A_POD.as_bytes(), &[listed("prod-eu")]).unwrap());
        assert_eq!(config["isDynamicClusterEnabled"], false);
        assert_eq!(config["allowKubeconfigChanges"], false);
        assert_eq!(config["defaultPodDebugImage"], "busybox");
        assert!(config.get("enableHelm").is_none(), "nothing is added");
    }

    #[test]
    fn a_page_without_a_pod_shows_one_cluster() {
        let config = without_pod().unwrap();
        assert_eq!(in_cluster_name(&config).unwrap(), "main");
        let config = value(&rewritten(&config, &[listed("main")]).unwrap());
        assert_eq!(config["clusters"][0]["server"], "https://main.example");
    }

    proptest! {
        #[test]
        fn a_rewritten_configuration_lists_exactly_what_it_was_given(
            config in "\\PC{0,80}|\\{\"clusters\":(\\[\\]|3|null|\\[\\{\\}\\]|\\{\\})(,\"a\":[0-9])?\\}",
            names in prop::collection::vec("\\PC{1,10}", 0..4),
        ) {
            let clusters: Vec<Listed> = names.iter().map(|name| listed(name)).collect();
            if let Ok(config) = rewritten(config.as_bytes(), &clusters) {
                let config = value(&config);
                let shown: Vec<&str> = config["clusters"].as_array().unwrap().iter()
                    .map(|entry| entry["name"].as_str().unwrap()).collect();
                prop_assert_eq!(shown, names);
            }
        }
    }
}
