//! The process's environment, read once by `main` and handed down from there.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// Variables by name. A variable that is set but empty counts as not set, as kubectl has it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Environment(BTreeMap<OsString, OsString>);

impl Environment {
    pub(crate) fn of_this_process() -> Self {
        Self(std::env::vars_os().collect())
    }

    /// The value, if it is set, not empty and text.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.value(name).and_then(OsStr::to_str)
    }

    /// The value, if it is set and not empty.
    pub(crate) fn value(&self, name: &str) -> Option<&OsStr> {
        self.0.get(OsStr::new(name)).map(OsString::as_os_str).filter(|value| !value.is_empty())
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.value(name).is_some()
    }

    /// All variables whose names begin so, with the rest of the name.
    pub(crate) fn with_prefix<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a OsStr)> + 'a {
        self.0
            .iter()
            .filter(|(_, value)| !value.is_empty())
            .filter_map(move |(name, value)| Some((name.to_str()?.strip_prefix(prefix)?, value.as_os_str())))
    }

    /// Everything, for a child.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&OsStr, &OsStr)> {
        self.0.iter().map(|(name, value)| (name.as_os_str(), value.as_os_str()))
    }

    /// This environment with the variables of an exec entry laid over it.
    pub(crate) fn overlaid(&self, variables: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut all = self.0.clone();
        all.extend(variables.into_iter().map(|(name, value)| (OsString::from(name), OsString::from(value))));
        Self(all)
    }

    /// The user's home folder.
    pub(crate) fn home(&self) -> Option<PathBuf> {
        let named = if cfg!(windows) { self.value("USERPROFILE") } else { self.value("HOME") };
        named.map(PathBuf::from).or_else(|| directories::BaseDirs::new().map(|dirs| dirs.home_dir().to_owned()))
    }

    /// The path with a leading `~` replaced by the home folder.
    pub(crate) fn expand(&self, path: &Path) -> PathBuf {
        match (path.strip_prefix("~"), self.home()) {
            (Ok(rest), Some(home)) => home.join(rest),
            _ => path.to_owned(),
        }
    }
}

impl Environment {
    /// Where this program keeps its state: below `KUBECACHEDIR` if that is set, else in the state
    /// folder of the system, which no cleaner purges (a cache folder may be).
    pub(crate) fn state_folder(&self) -> Option<PathBuf> {
        if let Some(folder) = self.value("KUBECACHEDIR") {
            return Some(self.expand(Path::new(folder)).join(NAME));
        }
        if cfg!(any(windows, target_os = "macos")) {
            return directories::ProjectDirs::from("", "", NAME).map(|dirs| dirs.data_local_dir().to_owned());
        }
        match self.value("XDG_STATE_HOME").map(Path::new).filter(|folder| folder.is_absolute()) {
            Some(folder) => Some(folder.join(NAME)),
            None => self.home().map(|home| home.join(".local/state").join(NAME)),
        }
    }
}

const NAME: &str = "kubectl-headlamp";

impl<const N: usize> From<[(&str, &str); N]> for Environment {
    fn from(variables: [(&str, &str); N]) -> Self {
        Self(variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}
