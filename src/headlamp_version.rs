//! Headlamp's versions, and what is known of some of them (from its change log and issues, and from
//! servers that were tried).

/// The version, as far as the image's tag tells it, else the label of the chart, which is wrong where
/// another image was put in.
pub(crate) fn version(image: Option<&str>, label: Option<&str>) -> Option<String> {
    [image.and_then(tag), label].into_iter().flatten().find_map(|text| {
        let text = text.strip_prefix('v').unwrap_or(text);
        numbers(text).map(|_| text.to_owned())
    })
}

/// What does not work with it. `session_ttl`: the container is given `-session-ttl`.
pub(crate) fn warnings(version: &str, session_ttl: bool) -> Vec<String> {
    let Some(numbers) = numbers(version) else { return Vec::new() };
    let warning = match numbers {
        (0, ..=29, _) => {
            format!(
                "Headlamp {version} is older than 0.30.0, the oldest that `open` is tried with: update it if its page does not work"
            )
        }
        (0, 31, 0 | 1) => {
            format!(
                "Headlamp {version} gets no live updates here: load its page again to see what changed, or update to 0.39.0 or newer"
            )
        }
        // There the page of one object follows it through the multiplexer alone, and lists do not.
        (0, 30 | 32..=38, _) => {
            format!(
                "Headlamp {version} does not update the page of a single object by itself here, only lists: load it again, or update to 0.39.0 or newer"
            )
        }
        (0, 40, 1) if session_ttl => {
            format!(
                "Headlamp {version} does not know the argument `-session-ttl` that its chart gives it, and does not start: update the chart to 0.41.0 or newer"
            )
        }
        _ => return Vec::new(),
    };
    vec![warning]
}

/// Of `registry:5000/name:v0.45.0@sha256:…`, `v0.45.0`.
fn tag(image: &str) -> Option<&str> {
    let image = image.split_once('@').map_or(image, |(image, _)| image);
    let name = image.rsplit_once('/').map_or(image, |(_, name)| name);
    name.split_once(':').map(|(_, tag)| tag)
}

/// Major, minor, patch, whatever follows.
fn numbers(version: &str) -> Option<(u32, u32, u32)> {
    let mut parts = version.split(['.', '-', '+']).map(str::parse);
    match (parts.next(), parts.next(), parts.next()) {
        (Some(Ok(major)), Some(Ok(minor)), Some(Ok(patch))) => Some((major, minor, patch)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_images_tag_counts_before_the_label() {
        let of = |image, label| version(image, label);
        assert_eq!(of(Some("ghcr.io/headlamp-k8s/headlamp:v0.45.0"), Some("0.30.0")), Some("0.45.0".into()));
        assert_eq!(of(Some("host:5000/headlamp:v0.41.0-rc.1@sha256:0"), None), Some("0.41.0-rc.1".into()));
        assert_eq!(of(Some("host:5000/headlamp"), Some("0.30.0")), Some("0.30.0".into()));
        assert_eq!(of(Some("headlamp:latest"), Some("v0.31.1")), Some("0.31.1".into()));
        assert_eq!(of(Some("headlamp:main"), Some("new")), None);
        assert_eq!(of(None, None), None);
    }

    #[test]
    fn known_broken_versions_are_warned_of() {
        let warned = |version, session_ttl| warnings(version, session_ttl).concat();
        assert!(warned("0.29.1", false).contains("older than 0.30.0"));
        assert!(warned("0.31.0", false).contains("live updates"));
        assert!(warned("0.31.1", true).contains("live updates"));
        for single in ["0.30.0", "0.30.1", "0.32.0", "0.38.0"] {
            assert!(warned(single, false).contains("single object"), "{single}");
        }
        assert!(warned("0.40.1", true).contains("0.41.0"));
        for fine in ["0.39.0", "0.40.0", "0.45.0", "1.0.0"] {
            assert_eq!(warned(fine, true), "", "{fine}");
        }
        assert_eq!(warned("0.40.1", false), "");
    }
}
