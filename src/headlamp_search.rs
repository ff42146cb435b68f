//! Lists of objects from wherever they may be listed: the whole cluster, else the namespaces where
//! Headlamp is likely to be.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::{Mutex, PoisonError};

use futures_util::future::join_all;
use k8s_openapi::NamespaceResourceScope;
use kube::api::{Api, ListParams, ObjectList, PartialObjectMeta};
use kube::{Client, Resource};
use serde::de::DeserializeOwned;

use crate::error::{Error, Kind, Result};
use crate::kube_fault::{explained, said, status};

/// Namespaces that only those who run the cluster can put something into.
pub(crate) const TRUSTED: [&str; 2] = ["headlamp", "kube-system"];

/// Objects of a page of a list.
const PAGE: u32 = 250;
/// Pages of the lists that hold more than Headlamp.
const MOST_PAGES: usize = 8;

/// What the user asks for; all of it may be left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) namespace: Option<String>,
    /// A Service, or a Deployment or pod where there is no Service of that name.
    pub(crate) service: Option<String>,
    /// A port of the Service, by name or number.
    pub(crate) service_port: Option<String>,
}

impl Wanted {
    /// Names go into paths of requests.
    pub(crate) fn check(&self) -> Result<()> {
        for (flag, name) in [("--namespace", &self.namespace), ("--service", &self.service)] {
            let allowed = |character: char| {
                character.is_ascii_lowercase() || character.is_ascii_digit() || "-.".contains(character)
            };
            if let Some(name) = name
                && (name.is_empty() || name.len() > 253 || !name.chars().all(allowed) || name.starts_with('.'))
            {
                return Err(Error::usage(format!("`{flag}={name}` is no name that Kubernetes gives")));
            }
        }
        Ok(())
    }
}

/// What is listed here.
pub(crate) trait Listable:
    Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned
{
}

impl<T: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned> Listable for T {}

/// One search, and where it has been.
pub(crate) struct Search<'a> {
    client: &'a Client,
    /// The one namespace that is searched, if one is wanted.
    namespace: Option<&'a str>,
    /// Those that are searched where the cluster as a whole may not be.
    likely: Vec<&'a str>,
    searched: Mutex<Searched>,
}

/// Where a search has been.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Searched {
    /// Kinds that were listed in the whole cluster.
    everywhere: BTreeSet<String>,
    namespaces: BTreeSet<String>,
    /// The cluster's words on why it was not more.
    refusal: Option<String>,
    /// A list was longer than is looked through.
    cut: bool,
}

impl<'a> Search<'a> {
    pub(crate) fn new(client: &'a Client, wanted: &'a Wanted, context_namespace: Option<&'a str>) -> Self {
        let mut likely = TRUSTED.to_vec();
        likely.extend(context_namespace.filter(|namespace| !TRUSTED.contains(namespace)));
        Self { client, namespace: wanted.namespace.as_deref(), likely, searched: Mutex::default() }
    }

    /// Where it has been so far.
    pub(crate) fn searched(&self) -> Searched {
        self.searched.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The first page, from everywhere: for what only Headlamp has.
    pub(crate) async fn few<K: Listable>(&self, parameters: ListParams) -> Result<Vec<K>> {
        let parameters = &parameters.limit(PAGE);
        let list = async |api: Api<K>| api.list(parameters).await.map(|list| list.items);
        self.everywhere(list).await
    }

    /// All pages, within reason: for what many have.
    pub(crate) async fn many<K: Listable>(&self, parameters: ListParams) -> Result<Vec<K>> {
        let parameters = &parameters.limit(PAGE);
        self.everywhere(async |api: Api<K>| self.pages(parameters, async |page| api.list(page).await).await).await
    }

    /// The same without what the objects hold.
    pub(crate) async fn many_names<K: Listable>(&self, parameters: ListParams) -> Result<Vec<PartialObjectMeta<K>>> {
        let parameters = &parameters.limit(PAGE);
        let list = async |api: Api<K>| self.pages(parameters, async |page| api.list_metadata(page).await).await;
        self.everywhere(list).await
    }

    /// From one namespace; what may not be listed is not there.
    pub(crate) async fn within<K: Listable>(&self, namespace: &str, parameters: ListParams) -> Result<Vec<K>> {
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        match api.list(&parameters.limit(PAGE)).await {
            Ok(list) => Ok(list.items),
            Err(error) => self.refused::<K>(&error).map(|()| Vec::new()),
        }
    }

    /// One object; one that may not be read is not there.
    pub(crate) async fn one<K: Listable>(&self, namespace: &str, name: &str) -> Result<Option<K>> {
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        match api.get_opt(name).await {
            Ok(object) => {
                self.visited(namespace);
                Ok(object)
            }
            Err(error) if status(&error) == Some(404) => Ok(None),
            Err(error) => self.refused::<K>(&error).map(|()| None),
        }
    }

    async fn everywhere<K: Listable, T>(&self, list: impl AsyncFn(Api<K>) -> kube::Result<Vec<T>>) -> Result<Vec<T>> {
        let namespaces = match self.namespace {
            Some(namespace) => &[namespace][..],
            None => match list(Api::all(self.client.clone())).await {
                Ok(items) => {
                    self.record(|searched| searched.everywhere.insert(K::plural(&()).into_owned()));
                    return Ok(items);
                }
                Err(error) => {
                    self.refused::<K>(&error)?;
                    &self.likely
                }
            },
        };
        let lists = namespaces.iter().map(|namespace| list(Api::namespaced(self.client.clone(), namespace)));
        let mut found = Vec::new();
        for (namespace, list) in namespaces.iter().zip(join_all(lists).await) {
            match list {
                Ok(items) => {
                    self.visited(namespace);
                    found.extend(items);
                }
                Err(error) => self.refused::<K>(&error)?,
            }
        }
        Ok(found)
    }

    async fn pages<T: Clone>(
        &self,
        parameters: &ListParams,
        page: impl AsyncFn(&ListParams) -> kube::Result<ObjectList<T>>,
    ) -> kube::Result<Vec<T>> {
        let mut parameters = parameters.clone();
        let mut found = Vec::new();
        for _ in 0..MOST_PAGES {
            let list = page(&parameters).await?;
            found.extend(list.items);
            match list.metadata.continue_.filter(|next| !next.is_empty()) {
                Some(next) => parameters.continue_token = Some(next),
                None => return Ok(found),
            }
        }
        self.record(|searched| std::mem::replace(&mut searched.cut, true));
        Ok(found)
    }

    fn visited(&self, namespace: &str) {
        self.record(|searched| searched.namespaces.insert(namespace.to_owned()));
    }

    /// A right that is missing is remembered, anything else is the error.
    fn refused<K: Listable>(&self, error: &kube::Error) -> Result<()> {
        if status(error) != Some(403) {
            return Err(explained(error, format!("the cluster does not show its {}", K::plural(&()))));
        }
        let said = said(error).unwrap_or("the cluster answered with 403").to_owned();
        // The lists race; which refusal is told must not depend on it.
        self.record(|searched| {
            let first = searched.refusal.as_ref().is_none_or(|told| *told < said);
            if first {
                searched.refusal = Some(said);
            }
            first
        });
        Ok(())
    }

    fn record(&self, change: impl FnOnce(&mut Searched) -> bool) {
        change(&mut self.searched.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Searched {
    /// Why nothing was found, and what to do: `command` with more flags.
    pub(crate) fn nothing_found(&self, wanted: &Wanted, command: &str) -> Error {
        let place = self.place(wanted);
        let error = match &wanted.service {
            Some(name) => Error::new(Kind::Other, format!("there is no Service, Deployment or pod `{name}` {place}")),
            None => Error::new(Kind::Other, format!("no Headlamp was found {place}")).cause(LOOKED_FOR),
        };
        let error = match &self.refusal {
            Some(refusal) => error.cause(format!("not all could be searched: {refusal}")),
            None if self.cut => error.cause("there is more than is looked through"),
            None => error,
        };
        if wanted.service.is_some() {
            return error.hint("`kubectl get services --all-namespaces` shows what there is");
        }
        error
            .hint(format!("if it is there, say where: `{command} --namespace NAMESPACE --service NAME`"))
            .hint(format!("if it is not, install it: `{ADD_CHARTS}`, then `{INSTALL}`"))
    }

    fn place(&self, wanted: &Wanted) -> String {
        if let Some(namespace) = &wanted.namespace {
            return format!("in the namespace `{namespace}`");
        }
        if !self.everywhere.is_empty() && self.refusal.is_none() {
            return "in the cluster".to_owned();
        }
        let namespaces: Vec<String> = self.namespaces.iter().map(|namespace| format!("`{namespace}`")).collect();
        match namespaces.as_slice() {
            [] => "in the little of the cluster that you may see".to_owned(),
            [only] => format!("in the namespace {only}"),
            _ => format!("in the namespaces {}", namespaces.join(", ")),
        }
    }
}

const LOOKED_FOR: &str = "looked for Services and pods labelled `app.kubernetes.io/name=headlamp` or `k8s-app=headlamp`, for a Service `headlamp`, for Headlamp's chart and for Deployments of its image";
/// As Headlamp's documentation has it.
const ADD_CHARTS: &str = "helm repo add headlamp https://kubernetes-sigs.github.io/headlamp/";
const INSTALL: &str = "helm install headlamp headlamp/headlamp --namespace headlamp --create-namespace";
