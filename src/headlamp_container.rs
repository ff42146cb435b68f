//! What a Headlamp container is told by its pod: arguments and environment, as the node and then
//! Headlamp read them. A flag that is given beats its variable `HEADLAMP_CONFIG_…`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, PodSpec};

/// Headlamp's own port, where nothing says otherwise.
pub(crate) const DEFAULT_PORT: u16 = 4466;
/// What images of Headlamp are called, wherever they are kept.
const IMAGES: [&str; 2] = ["headlamp-k8s/headlamp", "kubernetes-sigs/headlamp"];

/// A port of a pod; what a name stands for may differ from pod to pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Port {
    Number(u16),
    Named(String),
}

/// What a container's settings come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ContainerSettings {
    /// Empty, or `/headlamp`: no slash at its end.
    pub(crate) base: String,
    pub(crate) tls: bool,
    pub(crate) session_ttl: bool,
    /// A base URL that cannot be known or used, as it is written there.
    pub(crate) unusable_base: Option<String>,
}

/// The container that is Headlamp: the one with the port, else one that looks like it. Others stand
/// beside it.
pub(crate) fn headlamp_of<'a>(pod: &'a PodSpec, port: Option<&Port>) -> Option<&'a Container> {
    let has_port = |container: &&Container| match port {
        Some(Port::Number(number)) => has_number(container, *number),
        Some(Port::Named(name)) => ports(container).any(|(_, named)| named == Some(name.as_str())),
        None => false,
    };
    let tests: [&dyn Fn(&&Container) -> bool; 4] = [
        &has_port,
        &|container| has_number(container, DEFAULT_PORT),
        &|container| container.name == "headlamp",
        &|container| container.image.as_deref().is_some_and(is_headlamp_image),
    ];
    tests.iter().find_map(|test| pod.containers.iter().find(test)).or(pod.containers.first())
}

/// The port of a container that no Service names.
pub(crate) fn port_of(container: &Container) -> u16 {
    let words = Words::of(container);
    let set = words.setting("port").and_then(|port| port.parse().ok());
    let named = ports(container).find(|(_, name)| *name == Some("http")).and_then(|(number, _)| number);
    let default = has_number(container, DEFAULT_PORT).then_some(DEFAULT_PORT);
    set.or(default).or(named).unwrap_or(DEFAULT_PORT)
}

/// Whether it is Headlamp itself, and none of its plugins' images.
pub(crate) fn is_headlamp_image(image: &str) -> bool {
    IMAGES.iter().any(|name| {
        image.match_indices(name).any(|(start, _)| {
            let before = image.get(..start).and_then(|before| before.chars().last());
            let after = image.get(start + name.len()..).and_then(|after| after.chars().next());
            matches!(before, None | Some('/')) && matches!(after, None | Some(':' | '@'))
        })
    })
}

pub(crate) fn settings_of(container: &Container) -> ContainerSettings {
    let words = Words::of(container);
    let set = |name: &str| words.setting(name).is_some_and(|value| !value.is_empty());
    let written = words.setting("base-url").unwrap_or_default();
    let base = base(&written);
    ContainerSettings {
        unusable_base: base.is_none().then_some(written),
        base: base.unwrap_or_default(),
        tls: set("tls-cert-path") && set("tls-key-path"),
        session_ttl: words.flag("session-ttl").is_some(),
    }
}

/// `None`: one that cannot stand before a path.
fn base(written: &str) -> Option<String> {
    let base = written.trim_end_matches('/');
    let plain = |segment: &str| {
        let known = |character: char| character.is_ascii_alphanumeric() || "-._~".contains(character);
        !segment.is_empty() && segment.chars().all(known) && segment.chars().any(|character| character != '.')
    };
    let whole = base.is_empty() || base.strip_prefix('/').is_some_and(|rest| rest.split('/').all(plain));
    whole.then(|| base.to_owned())
}

fn ports(container: &Container) -> impl Iterator<Item = (Option<u16>, Option<&str>)> {
    let ports = container.ports.iter().flatten();
    ports.map(|port| (u16::try_from(port.container_port).ok(), port.name.as_deref()))
}

fn has_number(container: &Container, wanted: u16) -> bool {
    ports(container).any(|(number, _)| number == Some(wanted))
}

/// Arguments and environment with the references to variables filled in, where they are known:
/// what stands in Secrets is not.
struct Words {
    arguments: Vec<String>,
    variables: BTreeMap<String, String>,
}

impl Words {
    fn of(container: &Container) -> Self {
        let mut variables = BTreeMap::new();
        for variable in container.env.iter().flatten() {
            match &variable.value {
                Some(value) => {
                    let value = expanded(value, &variables);
                    variables.insert(variable.name.clone(), value);
                }
                // As it would stand in an argument.
                None if variable.value_from.is_some() => {
                    variables.insert(variable.name.clone(), format!("$({})", variable.name));
                }
                None => {}
            }
        }
        let words = container.command.iter().chain(&container.args).flatten();
        Self { arguments: words.map(|word| expanded(word, &variables)).collect(), variables }
    }

    fn setting(&self, name: &str) -> Option<String> {
        let variable = format!("HEADLAMP_CONFIG_{}", name.replace('-', "_").to_ascii_uppercase());
        self.flag(name).or(self.variables.get(&variable).map(String::as_str)).map(str::to_owned)
    }

    /// `-name=value`, `--name=value`, `-name value`; the last one counts.
    fn flag(&self, name: &str) -> Option<&str> {
        let mut found = None;
        let mut words = self.arguments.iter();
        while let Some(word) = words.next() {
            let flag = word.strip_prefix("--").or_else(|| word.strip_prefix('-'));
            let Some(rest) = flag.and_then(|flag| flag.strip_prefix(name)) else { continue };
            match rest.strip_prefix('=') {
                Some(value) => found = Some(value),
                None if rest.is_empty() => found = words.next().map(String::as_str),
                None => {}
            }
        }
        found
    }
}

/// `$(NAME)` is the variable's value, or stays if there is none; `$$` is a dollar
/// (Kubernetes API reference, `Container`).
fn expanded(text: &str, variables: &BTreeMap<String, String>) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        result.push_str(before);
        let reference = after.strip_prefix('(').and_then(|after| after.split_once(')'));
        if let Some(after) = after.strip_prefix('$') {
            result.push('$');
            rest = after;
        } else if let Some((name, after)) = reference {
            match variables.get(name) {
                Some(value) => result.push_str(value),
                None => result.extend(["$(", name, ")"]),
            }
            rest = after;
        } else {
            result.push('$');
            rest = after;
        }
    }
    result.push_str(rest);
    result
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::needless_pass_by_value, reason = "tests")]

    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn container(fields: Value) -> Container {
        let mut container = json!({"name": "headlamp"});
        container.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        serde_json::from_value(container).unwrap()
    }

    fn settings(fields: Value) -> ContainerSettings {
        settings_of(&container(fields))
    }

    #[test]
    fn a_base_url_is_read_from_every_form_of_flag() {
        for arguments in [
            json!(["-in-cluster", "-base-url=/ui"]),
            json!(["--base-url=/ui/"]),
            json!(["-base-url", "/ui", "-in-cluster"]),
            json!(["--base-url", "/ui/"]),
            json!(["-base-url=/other", "-base-url=/ui"]),
        ] {
            assert_eq!(settings(json!({"args": arguments})).base, "/ui", "{arguments}");
            assert_eq!(settings(json!({"command": arguments})).base, "/ui", "{arguments}");
        }
        assert_eq!(settings(json!({"args": ["-base-url-of-another=/ui", "-x-base-url=/ui"]})).base, "");
        assert_eq!(settings(json!({"args": ["-base-url=/"]})).base, "");
    }

    #[test]
    fn a_flag_beats_its_variable() {
        let env = json!([{"name": "HEADLAMP_CONFIG_BASE_URL", "value": "/variable"}]);
        assert_eq!(settings(json!({"env": env})).base, "/variable");
        assert_eq!(settings(json!({"env": env, "args": ["-base-url=/flag"]})).base, "/flag");
    }

    #[test]
    fn references_to_variables_are_filled_in_as_the_node_does() {
        let env = json!([
            {"name": "PLACE", "value": "ui"},
            {"name": "BASE", "value": "/$(PLACE)"},
            {"name": "LATER", "value": "$(NEVER)"},
            {"name": "DOLLAR", "value": "$$(PLACE)$"},
        ]);
        let variables = Words::of(&container(json!({"env": env}))).variables;
        assert_eq!(variables["BASE"], "/ui");
        assert_eq!(variables["LATER"], "$(NEVER)");
        assert_eq!(variables["DOLLAR"], "$(PLACE)$");
        assert_eq!(settings(json!({"env": env, "args": ["-base-url=$(BASE)/a"]})).base, "/ui/a");
    }

    #[test]
    fn a_base_url_that_cannot_be_known_or_used_is_named() {
        let env = json!([{"name": "BASE", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]);
        let unknown = settings(json!({"env": env, "args": ["-base-url=$(BASE)"]}));
        assert_eq!((unknown.base.as_str(), unknown.unusable_base.as_deref()), ("", Some("$(BASE)")));
        for base in ["ui", "/../x", "/a//b", "/a?b", "/a b", "/%2e%2e", "/a#"] {
            let settings = settings(json!({"args": [format!("-base-url={base}")]}));
            assert_eq!((settings.base.as_str(), settings.unusable_base.as_deref()), ("", Some(base)));
        }
    }

    #[test]
    fn tls_takes_a_certificate_and_a_key() {
        assert!(settings(json!({"args": ["-tls-cert-path=/c", "-tls-key-path=/k"]})).tls);
        assert!(!settings(json!({"args": ["-tls-cert-path=/c"]})).tls);
        let from = |name: &str| json!({"name": name, "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}});
        let env = [from("HEADLAMP_CONFIG_TLS_CERT_PATH"), from("HEADLAMP_CONFIG_TLS_KEY_PATH")];
        assert!(settings(json!({"env": env})).tls);
    }

    #[test]
    fn headlamp_is_told_from_what_stands_beside_it() {
        let pod = |containers: Value| -> PodSpec { serde_json::from_value(json!({"containers": containers})).unwrap() };
        let name = |spec: &PodSpec, port: Option<&Port>| headlamp_of(spec, port).unwrap().name.clone();
        let beside =
            json!({"name": "headlamp-plugin", "image": "node:lts", "ports": [{"containerPort": 9000, "name": "web"}]});
        let by_port = pod(json!([beside, {"name": "ui", "ports": [{"containerPort": 4466}]}]));
        assert_eq!(name(&by_port, None), "ui");
        assert_eq!(name(&by_port, Some(&Port::Number(9000))), "headlamp-plugin");
        assert_eq!(name(&by_port, Some(&Port::Named("web".into()))), "headlamp-plugin");
        assert_eq!(name(&pod(json!([beside, {"name": "headlamp"}])), None), "headlamp");
        let image = json!({"name": "ui", "image": "mirror.example/headlamp-k8s/headlamp:v0.45.0"});
        assert_eq!(name(&pod(json!([beside, image])), None), "ui");
    }

    #[test]
    fn images_of_plugins_are_not_headlamp() {
        for image in [
            "ghcr.io/headlamp-k8s/headlamp:v0.30.0",
            "kubernetes-sigs/headlamp@sha256:00",
            "a:5000/headlamp-k8s/headlamp",
        ] {
            assert!(is_headlamp_image(image), "{image}");
        }
        for image in ["ghcr.io/headlamp-k8s/headlamp-plugin-flux:v1", "x/not-headlamp-k8s/headlamp:v1", "headlamp"] {
            assert!(!is_headlamp_image(image), "{image}");
        }
    }

    #[test]
    fn the_port_of_a_container_is_its_flags_its_own_or_the_usual_one() {
        let port = |fields: Value| port_of(&container(fields));
        assert_eq!(port(json!({})), 4466);
        assert_eq!(port(json!({"ports": [{"containerPort": 8080, "name": "http"}]})), 8080);
        assert_eq!(port(json!({"ports": [{"containerPort": 9090}, {"containerPort": 4466}]})), 4466);
        assert_eq!(port(json!({"args": ["-port", "5000"], "ports": [{"containerPort": 4466}]})), 5000);
    }

    proptest! {
        #[test]
        fn no_argument_makes_a_base_that_leaves_its_place(words in prop::collection::vec(".*", 0..6)) {
            let arguments: Vec<String> = words.iter().map(|word| format!("-base-url={word}")).collect();
            let base = settings(json!({"args": arguments})).base;
            prop_assert!(base.is_empty() || base.starts_with('/') && !base.ends_with('/'));
            prop_assert!(!base.contains("//") && !base.split('/').any(|part| part == "." || part == ".."));
        }
    }
}
