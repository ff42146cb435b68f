// One cluster, as Headlamp's page asks it: requests, lists, watches that are never opened again, logs.

const base = window.headlampBaseUrl === '/' ? '' : window.headlampBaseUrl;

// What tests look at.
export const seen = {
  failures: [], // requests that came to anything but a good answer or a 404
  watches: {}, // resource → 'opening', 'open', 'closed'
  watchErrors: [], // events that were no objects
  ignored: 0, // events that were not newer than the list
  events: 0,
};

export async function ask(method, path, body, limit) {
  const request = { method, credentials: 'include', headers: { Accept: 'application/json' } };
  if (body !== undefined) {
    request.body = JSON.stringify(body);
    request.headers['Content-Type'] = 'application/json';
  }
  if (limit) request.signal = AbortSignal.timeout(limit);
  try {
    const answer = await fetch(base + path, request);
    if (answer.headers.get('X-Reload')?.includes('reload')) location.reload();
    if (!answer.ok && answer.status !== 404) failed(method, path, answer.status);
    else document.dispatchEvent(new CustomEvent('answered'));
    return { status: answer.status, ok: answer.ok, body: await json(answer) };
  } catch (error) {
    failed(method, path, 0, String(error));
    return { status: 0, ok: false, body: undefined };
  }
}

async function json(answer) {
  const text = await answer.text();
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

function failed(method, path, status, error) {
  seen.failures.push({ method, path, status, error });
  document.dispatchEvent(new CustomEvent('failed'));
}

export class Cluster {
  constructor(name, newer) {
    this.name = name;
    this.newer = newer; // whether events that are not newer than the list are ignored
    this.lists = new Map(); // resource → { version, objects: uid → object }
  }

  ask(method, path, body, limit) {
    return ask(method, `/clusters/${this.name}${path}`, body, limit);
  }

  // Lists a resource, such as `pods`, and keeps the list up to date for as long as its one watch lives.
  async follow(resource, path, changed) {
    const answer = await this.ask('GET', path);
    if (!answer.ok) return;
    const list = { version: answer.body.metadata.resourceVersion, objects: new Map() };
    for (const object of answer.body.items ?? []) list.objects.set(object.metadata.uid, object);
    this.lists.set(resource, list);
    changed();
    const socket = this.open(`${path}?watch=1&resourceVersion=${list.version}`);
    seen.watches[resource] = 'opening';
    socket.onopen = () => { seen.watches[resource] = 'open'; };
    socket.onclose = () => { seen.watches[resource] = 'closed'; };
    socket.onmessage = ({ data }) => {
      this.apply(list, JSON.parse(typeof data === 'string' ? data : new TextDecoder().decode(data)));
      changed();
    };
  }

  apply(list, { type, object }) {
    seen.events += 1;
    const version = object?.metadata?.resourceVersion;
    if (this.newer && version && list.version && parseInt(version) <= parseInt(list.version)) {
      seen.ignored += 1;
    } else if (type === 'ADDED' || type === 'MODIFIED') {
      list.objects.set(object.metadata.uid, object);
      list.version = version;
    } else if (type === 'DELETED') {
      list.objects.delete(object.metadata.uid);
      list.version = version;
    } else {
      seen.watchErrors.push({ type, object });
    }
  }

  // A pod's log; `text` gets more and more of it.
  log(namespace, pod, container, text) {
    const query = `container=${container}&previous=false&timestamps=false&follow=true&tailLines=100`;
    const socket = this.open(`/api/v1/namespaces/${namespace}/pods/${pod}/log?${query}`);
    socket.onmessage = ({ data }) => {
      const bytes = typeof data === 'string' ? Uint8Array.from(atob(data), (byte) => byte.codePointAt(0)) : data;
      text(new TextDecoder().decode(bytes));
    };
    return socket;
  }

  open(path) {
    const address = new URL(`${base}/clusters/${this.name}${path}`, location.href);
    address.protocol = location.protocol === 'https:' ? 'wss:' : 'ws:';
    const socket = new WebSocket(address, ['base64.binary.k8s.io']);
    socket.binaryType = 'arraybuffer';
    socket.onerror = () => failed('WEBSOCKET', path, 0);
    return socket;
  }
}
