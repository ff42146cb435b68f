//! Headlamp's index page: which files it and its scripts name, and how the one of a build is made to
//! stand at a base URL.

use std::collections::BTreeSet;

use crate::ui_file::{Role, role};

/// More are not fetched ahead. Headlamp 0.45 has 375.
const MOST_FILES: usize = 600;

/// The files that a browser loads as soon as it has read the page: scripts, preloaded modules,
/// style sheets. The paths are without the base, and in the page's order. A page that is no HTML
/// names none.
pub(crate) fn named_files(page: &[u8], base: &str) -> Vec<String> {
    let page = String::from_utf8_lossy(page);
    let mut rest = page.as_ref();
    let mut seen = BTreeSet::new();
    let mut files = Vec::new();
    while let Some((_, after)) = rest.split_once('<') {
        rest = after;
        if let Some(comment) = rest.strip_prefix("!--") {
            rest = comment.split_once("-->").map_or("", |(_, after)| after);
            continue;
        }
        let Some(tag) = Tag::read(rest) else { continue };
        rest = tag.rest;
        if let Some(path) = tag.file().and_then(|address| path_below(address, base))
            && files.len() < MOST_FILES
            && seen.insert(path.clone())
        {
            files.push(path);
        }
        // What stands in a script is no markup.
        if tag.name.eq_ignore_ascii_case("script") {
            rest = after_script(rest);
        }
    }
    files
}

/// The hashed files that a script names, which lie beside it: what the page loads when it needs it.
/// Vite writes them as strings, from `./` or from the page's folder.
pub(crate) fn named_in_script(script: &[u8], path: &str) -> Vec<String> {
    let script = String::from_utf8_lossy(script);
    let Some((folder, own_name)) = path.rsplit_once('/') else { return Vec::new() };
    let is_name = |name: &&str| {
        name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte)) && *name != own_name
    };
    let loaded = |name: &&str| matches!(name.rsplit('.').next(), Some("js" | "css"));
    let names = script.split(['"', '\'', '`']).filter(|text| text.len() <= LONGEST_NAME);
    let names = names.map(|text| text.rsplit_once('/').map_or(text, |(_, name)| name)).filter(is_name).filter(loaded);
    let mut seen = BTreeSet::new();
    let paths = names.map(|name| format!("{folder}/{name}")).filter(|path| role(path) == Role::Hashed);
    paths.filter(|path| seen.insert(path.clone())).take(MOST_FILES).collect()
}

/// Bytes.
const LONGEST_NAME: usize = 200;

fn after_script(text: &str) -> &str {
    let end = text
        .match_indices("</")
        .find(|(at, _)| text.get(at + 2..at + 8).is_some_and(|name| name.eq_ignore_ascii_case("script")));
    end.and_then(|(at, _)| text.get(at + 8..)).unwrap_or_default()
}

/// A tag with its attributes, and what comes after it.
struct Tag<'a> {
    name: &'a str,
    attributes: Vec<(&'a str, &'a str)>,
    rest: &'a str,
}

impl<'a> Tag<'a> {
    /// What follows a `<`; nothing where no start tag does.
    fn read(text: &'a str) -> Option<Self> {
        let (name, mut rest) = split_at(text, |character| !character.is_ascii_alphanumeric());
        if name.is_empty() {
            return None;
        }
        let mut attributes = Vec::new();
        loop {
            rest = rest.trim_start_matches(|character: char| character.is_ascii_whitespace() || character == '/');
            if rest.is_empty() {
                return None;
            }
            if let Some(rest) = rest.strip_prefix('>') {
                return Some(Self { name, attributes, rest });
            }
            let (attribute, after) =
                split_at(rest, |character| character.is_ascii_whitespace() || matches!(character, '=' | '>' | '/'));
            let Some(after) = after.trim_ascii_start().strip_prefix('=') else {
                // A lone `=` is skipped, so that each round gets further.
                rest = if attribute.is_empty() { skip_one(rest) } else { after };
                attributes.push((attribute, ""));
                continue;
            };
            let (value, after) = value(after.trim_ascii_start())?;
            attributes.push((attribute, value));
            rest = after;
        }
    }

    fn attribute(&self, name: &str) -> Option<&'a str> {
        self.attributes.iter().find(|(attribute, _)| attribute.eq_ignore_ascii_case(name)).map(|(_, value)| *value)
    }

    /// The address of what the tag loads.
    fn file(&self) -> Option<&'a str> {
        if self.name.eq_ignore_ascii_case("script") {
            return self.attribute("src");
        }
        let relation = self.attribute("rel").filter(|_| self.name.eq_ignore_ascii_case("link"))?;
        let loads =
            |word: &str| ["modulepreload", "preload", "stylesheet"].iter().any(|one| word.eq_ignore_ascii_case(one));
        self.attribute("href").filter(|_| relation.split_ascii_whitespace().any(loads))
    }
}

/// An attribute's value, and what comes after it.
fn value(text: &str) -> Option<(&str, &str)> {
    for quote in ['"', '\''] {
        if let Some(text) = text.strip_prefix(quote) {
            return text.split_once(quote);
        }
    }
    Some(split_at(text, |character| character.is_ascii_whitespace() || character == '>'))
}

fn split_at(text: &str, ends: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(ends).unwrap_or(text.len()))
}

fn skip_one(text: &str) -> &str {
    let mut characters = text.chars();
    characters.next();
    characters.as_str()
}

/// The path within the base of an address in the page; nothing for what lies elsewhere or has no
/// plain path.
fn path_below(address: &str, base: &str) -> Option<String> {
    let address = address.trim_ascii();
    let (address, _) = split_at(address, |character| matches!(character, '?' | '#'));
    let path = match address.strip_prefix('/') {
        Some(_) => address.strip_prefix(base)?.strip_prefix('/')?,
        None => address.strip_prefix("./").unwrap_or(address),
    };
    let plain = path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/-_.~@+".contains(&byte));
    let steps = path.split('/').any(|segment| matches!(segment, "" | "." | ".."));
    (plain && !steps).then(|| format!("/{path}"))
}

/// The index page of a build, made to stand at this base, as Headlamp's own server does it: its
/// versions call the place differently, and all write addresses from `./`.
pub(crate) fn at_base(page: &str, base: &str) -> String {
    let root = if base.is_empty() { "/" } else { base };
    let own = format!("headlampBaseUrl = '{root}'");
    page.replace("headlampBaseUrl = './'", &own)
        .replace("headlampBaseUrl = __baseUrl__", &own)
        .replace("./", &format!("{base}/"))
        .replace("url(", &format!("url({base}/"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PAGE: &str = r#"<!DOCTYPE html>
<html lang="en"><head>
<link rel="icon" href="./favicon.ico" />
<!-- <script src="./assets/commented-AAAAAAA1.js"></script> -->
<script>
  document.write('<script src="./assets/written-AAAAAAA1.js">');
  headlampBaseUrl = __baseUrl__;
</script>
<script type="module" crossorigin src="./assets/index-CqULmv_h.js"></script>
<link rel="modulepreload" crossorigin href='./assets/vendor-mui-BhodWFSX.js'>
<LINK REL=StyleSheet HREF=./assets/index-Boxy6_9z.css>
<link rel="modulepreload" href="./assets/index-CqULmv_h.js?again#x"/>
<script src="https://other.example/a.js"></script>
<script src="//other.example/b.js"></script>
</head><body><p>a < b</p></body></html>"#;

    #[test]
    fn what_a_browser_loads_at_once_is_named_in_order() {
        let expected = ["/assets/index-CqULmv_h.js", "/assets/vendor-mui-BhodWFSX.js", "/assets/index-Boxy6_9z.css"];
        assert_eq!(named_files(PAGE.as_bytes(), ""), expected);
        for base in ["", "/headlamp"] {
            assert_eq!(named_files(at_base(PAGE, base).as_bytes(), base), expected, "{base}");
        }
    }

    #[test]
    fn what_lies_outside_the_base_is_not_named() {
        let page = r#"<script src="/other/a.js"></script><script src="/headlampish/b.js"></script>
<link rel="stylesheet" href="../up.css"><script src="/headlamp/../up.js"></script><script src="/headlamp/"></script>"#;
        assert_eq!(named_files(page.as_bytes(), "/headlamp"), Vec::<String>::new());
    }

    #[test]
    fn the_page_of_each_version_is_moved_to_the_base() {
        let old = "headlampBaseUrl = './'; <script src=\"./assets/a.js\">";
        assert_eq!(at_base(old, ""), "headlampBaseUrl = '/'; <script src=\"/assets/a.js\">");
        assert_eq!(at_base(old, "/up"), "headlampBaseUrl = '/up'; <script src=\"/up/assets/a.js\">");
        let new = "__baseUrl__ = './x'; headlampBaseUrl = __baseUrl__;";
        assert_eq!(at_base(new, "/up"), "__baseUrl__ = '/up/x'; headlampBaseUrl = '/up';");
    }

    #[test]
    fn what_a_script_loads_later_is_named_once_beside_it() {
        let script = r#"const m=(i,d=(m.f=["./GraphView-CvmHvvMo.js",'assets/GraphView-Cdd0UtY8.css',"./index-CqULmv_h.js"]))=>i;
import(`./Details-C5rspVtY.js`);import("./GraphView-CvmHvvMo.js");
"minikube/manage-minikube.js";"https://other.example/x.js";"./a b-C5rspVtY.js";"photo-C5rspVtY.png";"./..";""#;
        let expected = ["GraphView-CvmHvvMo.js", "GraphView-Cdd0UtY8.css", "Details-C5rspVtY.js"];
        let named = named_in_script(script.as_bytes(), "/assets/index-CqULmv_h.js");
        assert_eq!(named, expected.map(|name| format!("/assets/{name}")));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_name_what_is_no_path(
            bytes in prop::collection::vec(any::<u8>(), 0..300),
            words in prop::collection::vec(
                prop::sample::select(vec!["<", "script", " src=", "\"", "'", "./a.js", "/", ">", "=", "<!--", "-->", "</script>", "<link rel=preload href=", "é", "\u{0}", ".."]),
                0..40,
            ),
        ) {
            for page in [bytes, words.concat().into_bytes()] {
                for path in named_files(&page, "/b").into_iter().chain(named_in_script(&page, "/assets/x.js")) {
                    prop_assert!(path.starts_with('/'));
                    prop_assert!(!path.split('/').skip(1).any(|step| matches!(step, "" | "." | "..")));
                    prop_assert!(path.parse::<http::Uri>().is_ok());
                }
            }
        }
    }
}
