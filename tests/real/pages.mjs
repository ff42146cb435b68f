// Headless Chromium that does what it is told, line by line: JSON on stdin, an answer for each on
// stdout, `{"value": …}` or `{"error": "…"}`. It ends with its stdin.
//
//   node pages.mjs [CA-FILE]

import { createInterface } from 'node:readline';
import { launch, signIn } from './launch.mjs';

const browser = await launch(process.argv[2]);
const own = await context(); // the profile that most pages share
const pages = []; // number → { page, session, messages, requests, sockets }

const commands = {
  // A page of the own profile, or of a new one, which has no cookies.
  page: async ({ stranger }) => (await page(stranger ? await context() : own)),

  goto: async ({ page, url }) => visit(await pages[page].page.goto(url, { waitUntil: 'commit' }), pages[page].page),
  reload: async ({ page }) => visit(await pages[page].page.reload({ waitUntil: 'commit' }), pages[page].page),
  close: async ({ page }) => { await pages[page].page.close(); },
  click: async ({ page, selector }) => { await pages[page].page.click(selector, { timeout: 60_000 }); },
  sign_in: async ({ page, person }) => signIn(pages[page].page, person),
  offline: async ({ page, offline }) => { await pages[page].page.context().setOffline(offline); },

  // The value of an expression, which may await, whatever the page's policy says; the policy holds within it.
  evaluate: async ({ page, script }) => {
    const options = { awaitPromise: true, returnByValue: true, replMode: true, allowUnsafeEvalBlockedByCSP: false };
    const { result, exceptionDetails } = await pages[page].session.send('Runtime.evaluate', { expression: script, ...options });
    if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
    return result.value ?? null;
  },

  // All that a page left behind or came by.
  report: async ({ page: number }) => {
    const { page, session, messages, requests, sockets } = pages[number];
    const history = await session.send('Page.getNavigationHistory');
    return {
      url: page.url(),
      history: history.entries.map(({ url }) => url),
      cookies: await page.context().cookies(),
      storage: await commands.evaluate({ page: number, script: STORAGE }).catch(String),
      messages,
      requests: await Promise.all([...requests.values()].map(traffic)),
      sockets,
    };
  },
};

const STORAGE = `({
  local: { ...localStorage },
  session: { ...sessionStorage },
  databases: (await indexedDB.databases()).map(({ name }) => name),
  caches: await caches.keys(),
  workers: (await navigator.serviceWorker.getRegistrations()).map(({ scope }) => scope),
})`;

async function context() {
  const context = await browser.newContext();
  context.on('page', known); // those too that pages open
  return context;
}

async function page(context) {
  const page = await context.newPage();
  page.setDefaultTimeout(60_000);
  return known(page);
}

// Begins to take notes of a page, once, and returns its number.
async function known(page) {
  const number = pages.findIndex((known) => known.page === page);
  if (number >= 0) return pages[number].ready.then(() => number);
  const notes = { page, messages: [], requests: new Map(), sockets: [] };
  notes.ready = page.context().newCDPSession(page).then((session) => { notes.session = session; });
  page.on('console', (message) => notes.messages.push({ type: message.type(), text: message.text() }));
  page.on('pageerror', (error) => notes.messages.push({ type: 'exception', text: String(error) }));
  page.on('request', (request) => notes.requests.set(request, { request }));
  page.on('requestfailed', (request) => { notes.requests.get(request).failure = request.failure()?.errorText; });
  page.on('response', (response) => { notes.requests.get(response.request()).response = response; });
  page.on('requestfinished', (request) => { // a body that has no end is not waited for
    const note = notes.requests.get(request);
    note.body = note.response?.text().catch(() => undefined);
  });
  page.on('websocket', (socket) => {
    const frames = { url: socket.url(), sent: [], received: [], open: true };
    notes.sockets.push(frames);
    socket.on('framesent', ({ payload }) => frames.sent.push(String(payload)));
    socket.on('framereceived', ({ payload }) => frames.received.push(String(payload)));
    socket.on('close', () => { frames.open = false; });
  });
  pages.push(notes);
  await notes.ready;
  return pages.indexOf(notes);
}

async function traffic({ request, response, body, failure }) {
  const headers = (of) => of?.allHeaders().catch(() => ({})) ?? {};
  return {
    method: request.method(),
    url: request.url(),
    sent: request.postData(),
    requestHeaders: await headers(request),
    status: response?.status() ?? null,
    headers: response ? await headers(response) : {},
    body: await body ?? null,
    failure: failure ?? null,
  };
}

async function visit(response, page) {
  return { status: response?.status() ?? null, headers: await response?.allHeaders() ?? {}, url: page.url() };
}

console.log(JSON.stringify({ value: 'ready' }));
for await (const line of createInterface({ input: process.stdin })) {
  const { do: name, ...request } = JSON.parse(line);
  const answer = await commands[name](request).then((value) => ({ value: value ?? null }), (error) => ({ error: String(error) }));
  console.log(JSON.stringify(answer));
}
await browser.close();
