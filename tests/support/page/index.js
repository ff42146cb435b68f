// A page that starts as Headlamp's does. What it knows is in the DOM and in a few names of the window:
//   body[data-state]  loading, home, signed-in, login, token, try-again
//   body[data-user]   who the server says that we are
//   #objects tr       data-resource, data-namespace, data-name, data-version, data-phase
//   objects           'pods default/web' → its resourceVersion
//   seen              failures, watches and more, see cluster.js
//   log               the text of the log that is followed
//   headlamp          ask, follow, log, draw, cluster: what the page does, for tests to do more of
// It stores nothing.

import { ask, Cluster, seen } from './cluster.js';

const settings = {}; // the server's: version, build, chunks
const base = window.headlampBaseUrl === '/' ? '' : window.headlampBaseUrl;
const root = document.getElementById('root');
const since = (minor) => settings.minor >= minor;

Object.assign(window, { seen, objects: {}, log: '', configs: 0, headlamp: { ask } });
document.body.dataset.build = settings.build;
document.body.dataset.failures = 0;
document.addEventListener('failed', () => {
  document.body.dataset.failures = seen.failures.length;
  banner('Something went wrong. Please check your connection.');
});
document.addEventListener('answered', () => banner(''));

// What Headlamp loads later than its first scripts.
Promise.all(settings.chunks.map((chunk) => import(chunk))).then((chunks) => {
  document.body.dataset.chunks = chunks.length;
});
start();

async function start() {
  const [config] = await Promise.all([readConfig(), ask('GET', '/plugins')]);
  setInterval(readConfig, 10_000);
  const clusters = config.body?.clusters ?? [];
  if (clusters.length === 1 && location.pathname === `${base}/`) go(clusters[0].name);
  const [, name, page] = /^\/c\/([^/]+)\/?(.*)$/.exec(location.pathname.slice(base.length)) ?? [];
  const cluster = clusters.find((cluster) => cluster.name === name);
  if (!cluster) {
    home(clusters);
  } else if (page === 'token') {
    show('token', 'Authentication', element('input', { placeholder: 'ID token' }));
  } else if (page === 'login') {
    show('login', 'Authentication', element('button', { id: 'sign-in', textContent: 'Sign In' }));
  } else {
    await signIn(cluster);
  }
}

async function readConfig() {
  const answer = await ask('GET', '/config');
  window.configs += 1;
  return answer;
}

function go(name, page = '') {
  history.replaceState(null, '', `${base}/c/${name}/${page}${location.search}${location.hash}`);
}

function home(clusters) {
  const links = clusters.map(({ name }) =>
    element('a', { href: `${base}/c/${name}/`, textContent: name, className: 'cluster' }));
  show('home', 'All Clusters', ...links);
}

// The sign-in test, and where it leads.
async function signIn({ name, auth_type: authType }) {
  const cluster = new Cluster(name, since(31));
  if (authType === 'oidc' && !since(35)) return refused(name, 'login');
  const review = { kind: 'SelfSubjectRulesReview', apiVersion: 'authorization.k8s.io/v1', spec: { namespace: 'default' } };
  const path = '/apis/authorization.k8s.io/v1/selfsubjectrulesreviews';
  const answer = await cluster.ask('POST', path, review, since(35) ? undefined : 5000);
  if (answer.ok) return signedIn(cluster, authType);
  if ([401, 403, 503].includes(answer.status)) return refused(name, authType === 'oidc' ? 'login' : 'token');
  const again = element('button', { id: 'try-again', textContent: 'Try Again' });
  again.onclick = () => signIn({ name, auth_type: authType });
  show('try-again', `Failed to connect to ${name}`, again);
}

function refused(name, page) {
  go(name, page);
  show(page, 'Authentication', element('p', { textContent: 'Please sign in.' }));
}

async function signedIn(cluster, authType) {
  const logOut = element('button', { id: 'log-out', textContent: 'Log out' });
  logOut.onclick = async () => {
    if (!since(35)) return location.reload();
    await cluster.ask('POST', '/set-token', { token: null });
    refused(cluster.name, authType === 'oidc' ? 'login' : 'token');
  };
  show('signed-in', `Cluster ${cluster.name}`, logOut, element('table', { id: 'objects' }), element('pre', { id: 'log' }));
  Object.assign(window.headlamp, {
    log: (namespace, pod, container = '') => followLog(cluster, namespace, pod, container),
    follow: (resource, path) => cluster.follow(resource, path, () => draw(cluster)),
    draw: () => draw(cluster),
    cluster,
  });
  whoAmI(cluster);
  cluster.ask('GET', '/version');
  // A group that most clusters lack, and a path that the page forgets the cluster of: both as Headlamp does.
  cluster.ask('GET', '/apis/metrics.k8s.io/v1beta1/nodes');
  fetch(`${base}/apis/apiextensions.k8s.io/v1/customresourcedefinitions`).catch(() => {});
  for (const resource of ['namespaces', 'pods', 'configmaps']) mayCreate(cluster, resource);
  const namespace = new URLSearchParams(location.search).get('namespace');
  const within = namespace ? `/api/v1/namespaces/${namespace}` : '/api/v1';
  const lists = namespace ? ['pods', 'configmaps'] : ['namespaces', 'pods', 'configmaps'];
  await Promise.all(lists.map((resource) => window.headlamp.follow(resource, `${within}/${resource}`)));
  document.body.dataset.listed = true;
  const [, wanted] = /^#log=(.+)$/.exec(location.hash) ?? [];
  if (wanted) window.headlamp.log(...wanted.split('/'));
}

async function whoAmI(cluster) {
  const me = since(37) ? await cluster.ask('GET', '/me') : { ok: false };
  if (me.ok) {
    document.body.dataset.user = me.body.username;
    return;
  }
  const review = { kind: 'SelfSubjectReview', apiVersion: 'authentication.k8s.io/v1' };
  const answer = await cluster.ask('POST', '/apis/authentication.k8s.io/v1/selfsubjectreviews', review);
  document.body.dataset.user = answer.body?.status?.userInfo?.username ?? '';
}

function mayCreate(cluster, resource) {
  const spec = { resourceAttributes: { verb: 'create', resource } };
  const review = { kind: 'SelfSubjectAccessReview', apiVersion: 'authorization.k8s.io/v1', spec };
  return cluster.ask('POST', '/apis/authorization.k8s.io/v1/selfsubjectaccessreviews', review);
}

function followLog(cluster, namespace, pod, container) {
  window.log = '';
  return cluster.log(namespace, pod, container, (text) => {
    window.log += text;
    document.getElementById('log').textContent = window.log;
  });
}

function draw(cluster) {
  const objects = {};
  const rows = [];
  for (const [resource, list] of cluster.lists) {
    for (const { metadata, status, spec } of list.objects.values()) {
      const { namespace = '', name, resourceVersion: version } = metadata;
      objects[`${resource} ${namespace ? `${namespace}/` : ''}${name}`] = version;
      const row = element('tr', {});
      Object.assign(row.dataset, { resource, namespace, name, version, phase: status?.phase ?? '' });
      row.append(element('td', { textContent: resource }), element('td', { textContent: name }));
      if (resource === 'pods') {
        const button = element('button', { className: 'log', textContent: 'Logs' });
        button.onclick = () => followLog(cluster, namespace, name, spec.containers[0].name);
        row.append(button);
      }
      rows.push(row);
    }
  }
  window.objects = objects;
  document.getElementById('objects')?.replaceChildren(...rows);
}

function banner(text) {
  document.getElementById('banner')?.remove();
  if (text) document.body.prepend(element('p', { id: 'banner', textContent: text }));
}

function show(state, title, ...content) {
  root.replaceChildren(element('h1', { textContent: title }), ...content);
  document.body.dataset.state = state;
}

function element(name, properties) {
  return Object.assign(document.createElement(name), properties);
}
