//! The files of Headlamp's page from a folder: `frontend/build` of its sources, or the one of a
//! container image. Nothing outside the folder is reached, by `..` or by a link.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hyper::body::Bytes;
use percent_encoding::percent_decode_str;

use crate::error::{Error, Result};
use crate::index_page;
use crate::ui_file::{self, Encoding, UiFile};

pub(crate) struct UiFolder {
    /// Without links.
    folder: PathBuf,
    base: String,
}

/// A server that moved the page to its base keeps the original under the first name.
const INDEX_PAGES: [&str; 2] = ["index.baseUrl.html", "index.html"];

impl UiFolder {
    pub(crate) fn new(folder: &Path, base: &str) -> Result<Self> {
        let unusable = || Error::usage(format!("the page cannot be served from `{}`", folder.display()));
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-_.~".contains(&byte);
        if !base.bytes().all(plain) {
            return Err(Error::usage(format!("`{base}` is not a base URL that Headlamp could have")));
        }
        let canonical = fs::canonicalize(folder).map_err(|error| unusable().caused_by(&error))?;
        let folder = Self { folder: canonical, base: base.trim_end_matches('/').to_owned() };
        if folder.page().is_none() {
            return Err(unusable()
                .cause("there is no `index.html` in it")
                .hint("name the folder that `npm run build` makes: `frontend/build` of Headlamp's sources"));
        }
        Ok(folder)
    }

    /// The index page, at its base.
    pub(crate) fn page(&self) -> Option<Arc<UiFile>> {
        let page = INDEX_PAGES.iter().find_map(|name| self.bytes(&self.folder.join(name)))?;
        let page = index_page::at_base(&String::from_utf8_lossy(&page), &self.base);
        Some(Arc::new(UiFile::new("text/html; charset=utf-8".to_owned(), Encoding::Plain, None, Bytes::from(page))))
    }

    /// A file, compressed where the folder has it so.
    pub(crate) fn file(&self, path: &str) -> Option<Arc<UiFile>> {
        let place = self.place(path)?;
        let content_type = ui_file::type_of(path).unwrap_or("application/octet-stream").to_owned();
        let plain = self.bytes(&place)?;
        let mut packed = place.into_os_string();
        packed.push(".br");
        let (encoding, body) = match self.bytes(Path::new(&packed)) {
            Some(packed) => (Encoding::Brotli, packed),
            None => (Encoding::Plain, plain),
        };
        Some(Arc::new(UiFile::new(content_type, encoding, None, Bytes::from(body))))
    }

    /// Where the path leads within the folder. Hidden files are not served.
    fn place(&self, path: &str) -> Option<PathBuf> {
        let path = percent_decode_str(path.strip_prefix('/')?).decode_utf8().ok()?;
        let mut place = self.folder.clone();
        for segment in path.split('/') {
            let separators = |character: char| character.is_control() || matches!(character, '\\' | ':');
            if segment.is_empty() || segment.starts_with('.') || segment.contains(separators) {
                return None;
            }
            place.push(segment);
        }
        Some(place)
    }

    fn bytes(&self, place: &Path) -> Option<Vec<u8>> {
        let place = fs::canonicalize(place).ok().filter(|place| place.starts_with(&self.folder))?;
        let metadata = fs::metadata(&place).ok()?;
        if !metadata.is_file() || metadata.len() > ui_file::LARGEST as u64 {
            return None;
        }
        fs::read(place).ok()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("build/assets")).unwrap();
        let put = |name: &str, content: &str| fs::write(folder.path().join(name), content).unwrap();
        put("secret.js", "secret");
        put("build/index.html", "headlampBaseUrl = './'; <script src=\"./assets/a-CqULmv_h.js\">");
        put("build/assets/a-CqULmv_h.js", "plain");
        put("build/assets/a b.css", "blank");
        put("build/.hidden.js", "hidden");
        folder
    }

    #[test]
    fn files_have_the_type_of_their_name_and_the_page_its_base() {
        let folder = folder();
        let ui = UiFolder::new(&folder.path().join("build"), "/up/").unwrap();
        let script = ui.file("/assets/a-CqULmv_h.js").unwrap();
        assert_eq!(
            (script.content_type.as_str(), script.encoding, &*script.body),
            ("text/javascript; charset=utf-8", Encoding::Plain, b"plain".as_slice())
        );
        assert_eq!(ui.file("/assets/a%20b.css").unwrap().body, "blank");
        assert_eq!(ui.page().unwrap().body, "headlampBaseUrl = '/up'; <script src=\"/up/assets/a-CqULmv_h.js\">");
        fs::write(folder.path().join("build/index.baseUrl.html"), "original ./").unwrap();
        assert_eq!(ui.page().unwrap().body, "original /up/");
        fs::write(folder.path().join("build/assets/a-CqULmv_h.js.br"), "packed").unwrap();
        let script = ui.file("/assets/a-CqULmv_h.js").unwrap();
        assert_eq!((script.encoding, &*script.body), (Encoding::Brotli, b"packed".as_slice()));
    }

    #[test]
    fn nothing_outside_the_folder_is_served() {
        let folder = folder();
        let ui = UiFolder::new(&folder.path().join("build"), "").unwrap();
        for path in [
            "/../secret.js",
            "/assets/../../secret.js",
            "/%2e%2e/secret.js",
            "/..%2fsecret.js",
            "/assets/..%5c..%5csecret.js",
            "//secret.js",
            "/.hidden.js",
            "/assets",
            "/",
            "",
            "/C:secret.js",
            "/assets/%00.js",
            "/assets/%ff.js",
        ] {
            assert!(ui.file(path).is_none(), "{path}");
        }
        let absolute = format!("/{}", folder.path().join("secret.js").display());
        assert!(ui.file(&absolute).is_none());
    }

    #[cfg(unix)]
    #[test]
    fn a_link_out_of_the_folder_is_not_followed_and_one_within_is() {
        let folder = folder();
        let build = folder.path().join("build");
        std::os::unix::fs::symlink(folder.path().join("secret.js"), build.join("out.js")).unwrap();
        std::os::unix::fs::symlink(build.join("assets/a-CqULmv_h.js"), build.join("in.js")).unwrap();
        std::os::unix::fs::symlink(folder.path(), build.join("up")).unwrap();
        let ui = UiFolder::new(&build, "").unwrap();
        assert!(ui.file("/out.js").is_none() && ui.file("/up/secret.js").is_none());
        assert_eq!(ui.file("/in.js").unwrap().body, "plain");
    }

    #[test]
    fn a_folder_without_a_page_and_a_base_that_is_none_are_refused() {
        let folder = folder();
        assert!(UiFolder::new(folder.path(), "").is_err());
        assert!(UiFolder::new(&folder.path().join("missing"), "").is_err());
        assert!(UiFolder::new(&folder.path().join("build"), "/'x").is_err());
    }
}
