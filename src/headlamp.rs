//! Headlamp in the cluster: where it stands, and what must be known to reach it.
//!
//! It is looked for by what its chart and its plain manifest leave behind, in one round trip where
//! one may list the whole cluster; by its chart's label and its image only where that finds nothing.

use std::collections::BTreeMap;

use futures_util::future::{try_join, try_join_all, try_join3, try_join4};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, PodSpec, Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::{ListParams, ObjectMeta};
use kube::{Client, ResourceExt};

use crate::error::{Error, Result};
use crate::headlamp_container::{DEFAULT_PORT, Port, headlamp_of, is_headlamp_image, port_of, settings_of};
use crate::headlamp_search::{Search, Searched, TRUSTED, Wanted};
use crate::headlamp_version::{version, warnings};

/// The chart's label, with the chart's name.
const NAME: &str = "app.kubernetes.io/name";
/// The chart's label, with the release's name.
const INSTANCE: &str = "app.kubernetes.io/instance";
/// The chart's label, with the version that it was made for.
const VERSION: &str = "app.kubernetes.io/version";
/// The label of the plain manifest's pods.
const APP: &str = "k8s-app";
/// Helm's label: `headlamp-0.45.0`.
const CHART: &str = "helm.sh/chart";

/// One Headlamp.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Headlamp {
    pub(crate) namespace: String,
    /// Of its Service; where there is none, of the Deployment or pod.
    pub(crate) name: String,
    pub(crate) pods: Pods,
    pub(crate) port: Port,
    /// What comes before every path: empty, or `/headlamp`.
    pub(crate) base: String,
    /// Its port speaks TLS.
    pub(crate) tls: bool,
    pub(crate) image: Option<String>,
    /// As far as image or labels tell: `0.45.0`.
    pub(crate) version: Option<String>,
    /// What its user should know of it.
    pub(crate) warnings: Vec<String>,
}

/// Which pods are its.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Pods {
    /// Those with all of these labels.
    Labelled(BTreeMap<String, String>),
    /// A pod that nothing replaces, by its name.
    Named(String),
}

/// What a search came to.
#[derive(Debug)]
pub(crate) struct Found {
    /// All that could be meant, those in the trusted namespaces first.
    pub(crate) headlamps: Vec<Headlamp>,
    pub(crate) searched: Searched,
}

/// Something that may be Headlamp.
#[derive(Debug)]
struct Candidate {
    namespace: String,
    name: String,
    pods: Pods,
    /// Empty where there is no Service.
    ports: Vec<ServicePort>,
    labels: BTreeMap<String, String>,
    spec: Option<PodSpec>,
}

/// Looks for Headlamp. It sets no time limit. That none of its pods is ready, or that there is none,
/// is no error.
pub(crate) async fn find(client: &Client, wanted: &Wanted, context_namespace: Option<&str>) -> Result<Found> {
    wanted.check()?;
    let search = Search::new(client, wanted, context_namespace);
    let mut candidates = match &wanted.service {
        Some(name) => by_name(&search, wanted.namespace.as_deref(), name).await?,
        None => by_label(&search).await?,
    };
    if candidates.is_empty() && wanted.service.is_none() {
        candidates = by_chart_or_image(&search).await?;
    }
    let candidates = distinct(candidates).into_iter().map(|candidate| with_spec(&search, candidate));
    let candidates = try_join_all(candidates).await?;
    let mut headlamps = Vec::new();
    let mut without_port = None;
    for candidate in candidates {
        match candidate.into_headlamp(wanted.service_port.as_deref()) {
            Ok(headlamp) => headlamps.push(headlamp),
            Err(error) => without_port = without_port.or(Some(error)),
        }
    }
    match without_port {
        Some(error) if headlamps.is_empty() => Err(error),
        _ => Ok(Found { headlamps, searched: search.searched() }),
    }
}

/// By name alone, whatever it is.
async fn by_name(search: &Search<'_>, namespace: Option<&str>, name: &str) -> Result<Vec<Candidate>> {
    let (services, deployments, pods) = if let Some(namespace) = namespace {
        let found = try_join3(
            search.one::<Service>(namespace, name),
            search.one::<Deployment>(namespace, name),
            search.one::<Pod>(namespace, name),
        );
        let (service, deployment, pod) = found.await?;
        (Vec::from_iter(service), Vec::from_iter(deployment), Vec::from_iter(pod))
    } else {
        let named = || ListParams::default().fields(&format!("metadata.name={name}"));
        try_join3(search.few(named()), search.few(named()), search.few(named())).await?
    };
    if let Some(service) = services.iter().find(|service| labels_of_pods(service).is_none()) {
        let namespace = service.namespace().unwrap_or_default();
        return Err(Error::settings(format!(
            "the Service `{name}` in the namespace `{namespace}` has no pods of its own"
        ))
        .cause("it has no selector")
        .hint("name the Deployment or the pod with `--service` instead"));
    }
    let mut candidates: Vec<Candidate> = services.iter().filter_map(of_service).collect();
    let known = |candidates: &[Candidate], metadata: &ObjectMeta| {
        candidates.iter().any(|candidate| Some(&candidate.namespace) == metadata.namespace.as_ref())
    };
    for deployment in &deployments {
        if !known(&candidates, &deployment.metadata) {
            candidates.extend(of_deployment(deployment));
        }
    }
    for pod in &pods {
        if !known(&candidates, &pod.metadata) {
            candidates.push(of_pod(pod));
        }
    }
    Ok(candidates)
}

/// What the chart and the plain manifest leave behind.
async fn by_label(search: &Search<'_>) -> Result<Vec<Candidate>> {
    let labelled = |label: &str| ListParams::default().labels(&format!("{label}=headlamp"));
    let named = ListParams::default().fields("metadata.name=headlamp");
    let (services, named, pods, plain) = try_join4(
        search.few::<Service>(labelled(NAME)),
        search.few::<Service>(named),
        search.few::<Pod>(labelled(NAME)),
        search.few::<Pod>(labelled(APP)),
    )
    .await?;
    let mut candidates: Vec<Candidate> = services.iter().chain(&named).filter_map(of_service).collect();
    let pods: Vec<Pod> = pods.into_iter().chain(plain).collect();
    for candidate in &mut candidates {
        candidate.spec = spec_of_newest(pods.iter().filter(|pod| candidate.has(&pod.metadata)));
    }
    let strays = pods.iter().filter(|pod| !candidates.iter().any(|candidate| candidate.has(&pod.metadata)));
    let strays = distinct(strays.map(of_pod).collect());
    candidates.extend(try_join_all(strays.into_iter().map(|stray| with_service(search, stray))).await?);
    Ok(candidates)
}

/// A chart whose objects were given other names, or Headlamp installed in a way of one's own.
async fn by_chart_or_image(search: &Search<'_>) -> Result<Vec<Candidate>> {
    let (charts, deployments) = try_join(
        search.many_names::<Service>(ListParams::default().labels(CHART)),
        search.many::<Deployment>(ListParams::default()),
    )
    .await?;
    let charts = charts.iter().map(|service| &service.metadata).filter(|metadata| {
        let chart = metadata.labels.as_ref().and_then(|labels| labels.get(CHART));
        let version = chart.and_then(|chart| chart.strip_prefix("headlamp-"));
        version.is_some_and(|version| version.starts_with(|first: char| first.is_ascii_digit()))
    });
    let charts = charts.filter_map(|metadata| metadata.namespace.as_deref().zip(metadata.name.as_deref()));
    let charts = charts.map(|(namespace, name)| search.one::<Service>(namespace, name));
    let charts = try_join_all(charts).await?;
    let mut candidates: Vec<Candidate> = charts.iter().flatten().filter_map(of_service).collect();
    let runs_headlamp = |deployment: &&Deployment| {
        let containers = template(deployment).into_iter().flat_map(|(_, spec)| &spec.containers);
        containers.into_iter().any(|container| container.image.as_deref().is_some_and(is_headlamp_image))
    };
    let deployments = deployments.iter().filter(runs_headlamp).filter_map(of_deployment);
    let deployments = deployments.filter(|deployment| !candidates.iter().any(|candidate| candidate.covers(deployment)));
    let deployments: Vec<Candidate> = deployments.collect();
    candidates.extend(try_join_all(deployments.into_iter().map(|one| with_service(search, one))).await?);
    Ok(candidates)
}

/// The same under its Service, if it has one.
async fn with_service(search: &Search<'_>, candidate: Candidate) -> Result<Candidate> {
    let services: Vec<Service> = search.within(&candidate.namespace, ListParams::default()).await?;
    let service = services.iter().filter_map(of_service).find(|service| service.covers(&candidate));
    Ok(match service {
        Some(service) => Candidate { spec: candidate.spec, ..service },
        None => candidate,
    })
}

/// Looks up what is not known yet: what the newest pod is made of, else what its Deployment makes.
async fn with_spec(search: &Search<'_>, mut candidate: Candidate) -> Result<Candidate> {
    if candidate.spec.is_none()
        && let Pods::Labelled(labels) = &candidate.pods
    {
        let parameters = ListParams::default().labels(&selector(labels));
        let pods: Vec<Pod> = search.within(&candidate.namespace, parameters).await?;
        candidate.spec = spec_of_newest(pods.iter());
        if candidate.spec.is_none() {
            let deployments: Vec<Deployment> = search.within(&candidate.namespace, ListParams::default()).await?;
            let specs = deployments.iter().filter_map(template);
            let mut specs = specs.filter(|(metadata, _)| has_labels(metadata.labels.as_ref(), labels));
            candidate.spec = specs.next().map(|(_, spec)| spec.clone());
        }
    }
    Ok(candidate)
}

impl Candidate {
    /// Whether the pod with this metadata is one of its.
    fn has(&self, pod: &ObjectMeta) -> bool {
        Some(&self.namespace) == pod.namespace.as_ref()
            && match &self.pods {
                Pods::Labelled(labels) => has_labels(pod.labels.as_ref(), labels),
                Pods::Named(name) => Some(name) == pod.name.as_ref(),
            }
    }

    /// Whether the other one's pods are its too.
    fn covers(&self, other: &Self) -> bool {
        self.namespace == other.namespace
            && match &self.pods {
                Pods::Labelled(labels) => has_labels(Some(&other.labels), labels),
                Pods::Named(_) => self.pods == other.pods,
            }
    }

    fn into_headlamp(self, wanted_port: Option<&str>) -> Result<Headlamp> {
        let mut port = match (self.ports.is_empty(), wanted_port) {
            (false, _) => Some(target(&self, wanted_port)?),
            (true, Some(wanted)) => Some(wanted.parse().map_or_else(|_| Port::Named(wanted.to_owned()), Port::Number)),
            (true, None) => None,
        };
        let container = self.spec.as_ref().and_then(|spec| headlamp_of(spec, port.as_ref()));
        let settings = container.map(settings_of).unwrap_or_default();
        let image = container.and_then(|container| container.image.clone());
        let version = version(image.as_deref(), self.labels.get(VERSION).map(String::as_str));
        let port = port.take().unwrap_or_else(|| Port::Number(container.map_or(DEFAULT_PORT, port_of)));
        let mut warnings =
            version.as_deref().map(|version| warnings(version, settings.session_ttl)).unwrap_or_default();
        if let Some(base) = settings.unusable_base {
            warnings.push(format!(
                "the base URL `{base}` of `{}/{}` cannot be used: its page is looked for at `/`",
                self.namespace, self.name
            ));
        }
        Ok(Headlamp {
            namespace: self.namespace,
            name: self.name,
            pods: self.pods,
            port,
            base: settings.base,
            tls: settings.tls,
            image,
            version,
            warnings,
        })
    }
}

/// The pods' port that the Service's port leads to: the wanted one, the one named `http`, the first.
fn target(candidate: &Candidate, wanted: Option<&str>) -> Result<Port> {
    let ports = &candidate.ports;
    let is = |port: &&ServicePort, text: &str| port.name.as_deref() == Some(text) || port.port.to_string() == text;
    let port = match wanted {
        Some(wanted) => ports.iter().find(|port| is(port, wanted)),
        None => ports.iter().find(|port| is(port, "http")).or(ports.first()),
    };
    let Some(port) = port else {
        let known = ports.iter().map(|port| match &port.name {
            Some(name) => format!("`{name}` ({})", port.port),
            None => format!("`{}`", port.port),
        });
        let (name, wanted) = (&candidate.name, wanted.unwrap_or_default());
        return Err(Error::usage(format!("the Service `{name}` has no port `{wanted}`"))
            .hint(format!("it has {}", known.collect::<Vec<_>>().join(", "))));
    };
    let number = match &port.target_port {
        Some(IntOrString::String(name)) => return Ok(Port::Named(name.clone())),
        Some(IntOrString::Int(number)) if *number != 0 => *number,
        _ => port.port,
    };
    let number = u16::try_from(number).map_err(|_| {
        Error::settings(format!("the Service `{}` leads to port {number}, which is none", candidate.name))
    })?;
    Ok(Port::Number(number))
}

fn of_service(service: &Service) -> Option<Candidate> {
    let labels = labels_of_pods(service)?;
    let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    let ports = ports.filter(|port| port.protocol.as_deref().is_none_or(|protocol| protocol == "TCP"));
    Some(Candidate {
        namespace: service.namespace()?,
        name: service.name_any(),
        pods: Pods::Labelled(labels.clone()),
        ports: ports.cloned().collect(),
        labels: service.labels().clone(),
        spec: None,
    })
}

fn labels_of_pods(service: &Service) -> Option<&BTreeMap<String, String>> {
    service.spec.as_ref()?.selector.as_ref().filter(|labels| !labels.is_empty())
}

fn of_deployment(deployment: &Deployment) -> Option<Candidate> {
    let labels = deployment.spec.as_ref()?.selector.match_labels.clone().filter(|labels| !labels.is_empty());
    let (metadata, spec) = template(deployment)?;
    Some(Candidate {
        namespace: deployment.namespace()?,
        name: deployment.name_any(),
        pods: Pods::Labelled(labels.or_else(|| metadata.labels.clone())?),
        ports: Vec::new(),
        labels: [deployment.labels().clone(), metadata.labels.clone().unwrap_or_default()]
            .into_iter()
            .flatten()
            .collect(),
        spec: Some(spec.clone()),
    })
}

/// The pod, and those that replace it, if something does.
fn of_pod(pod: &Pod) -> Candidate {
    let replaced = pod.owner_references().iter().any(|owner| owner.controller == Some(true));
    let lasting = [NAME, INSTANCE, APP]
        .into_iter()
        .filter_map(|label| pod.labels().get(label).map(|value| (label.to_owned(), value.clone())));
    let lasting: BTreeMap<String, String> = lasting.collect();
    let (name, pods) = if replaced && !lasting.is_empty() {
        let name = lasting.get(INSTANCE).or(lasting.get(NAME)).or(lasting.get(APP)).cloned().unwrap_or_default();
        (name, Pods::Labelled(lasting))
    } else {
        (pod.name_any(), Pods::Named(pod.name_any()))
    };
    Candidate {
        namespace: pod.namespace().unwrap_or_default(),
        name,
        pods,
        ports: Vec::new(),
        labels: pod.labels().clone(),
        spec: pod.spec.clone(),
    }
}

fn template(deployment: &Deployment) -> Option<(&ObjectMeta, &PodSpec)> {
    let template = &deployment.spec.as_ref()?.template;
    Some((template.metadata.as_ref()?, template.spec.as_ref()?))
}

fn spec_of_newest<'a>(pods: impl Iterator<Item = &'a Pod>) -> Option<PodSpec> {
    let newest = pods.max_by_key(|pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0));
    newest.and_then(|pod| pod.spec.clone())
}

/// Each set of pods once, under the Service that leads to a page; the trusted namespaces first.
fn distinct(mut candidates: Vec<Candidate>) -> Vec<Candidate> {
    let http = |candidate: &Candidate| candidate.ports.iter().any(|port| port.name.as_deref() == Some("http"));
    candidates.sort_by(|one, other| {
        let rank = |candidate: &Candidate| {
            let trust = TRUSTED.iter().position(|trusted| *trusted == candidate.namespace).unwrap_or(TRUSTED.len());
            (trust, !http(candidate), candidate.ports.is_empty())
        };
        let place = |candidate: &Candidate| (candidate.namespace.clone(), candidate.name.clone());
        (rank(one), place(one)).cmp(&(rank(other), place(other)))
    });
    let mut distinct: Vec<Candidate> = Vec::new();
    for candidate in candidates {
        let same = |known: &Candidate| known.namespace == candidate.namespace && known.pods == candidate.pods;
        if !distinct.iter().any(same) {
            distinct.push(candidate);
        }
    }
    distinct
}

/// The labels as a list request wants them.
pub(crate) fn selector(labels: &BTreeMap<String, String>) -> String {
    labels.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(",")
}

/// Whether all of `wanted` are there.
pub(crate) fn has_labels(labels: Option<&BTreeMap<String, String>>, wanted: &BTreeMap<String, String>) -> bool {
    labels.is_some_and(|labels| wanted.iter().all(|(name, value)| labels.get(name) == Some(value)))
}

#[cfg(test)]
pub(crate) mod tests;
