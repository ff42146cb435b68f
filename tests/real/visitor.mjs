// A person at the simplest of browsers: follows redirects, keeps cookies, signs in at the provider's
// pages and agrees. For tests in which the browser itself does not matter.
//
//   NODE_EXTRA_CA_CERTS=FILE node visitor.mjs --as NAME ADDRESS

import { parseArgs } from 'node:util';

const { values: { as }, positionals: [address] } = parseArgs({ allowPositionals: true, options: { as: { type: 'string' } } });
const cookies = new Map(); // one provider: by name is enough

async function visit(address, body) {
  for (let hops = 0; hops < 20; hops += 1) {
    const cookie = [...cookies].map(([name, value]) => `${name}=${value}`).join('; ');
    const answer = await fetch(address, { method: body ? 'POST' : 'GET', body, headers: { cookie }, redirect: 'manual' });
    for (const line of answer.headers.getSetCookie()) {
      const [, name, value] = /^([^=]+)=([^;]*)/.exec(line);
      if (value) cookies.set(name, value); else cookies.delete(name);
    }
    const location = answer.headers.get('location');
    if (!location) return { address, text: await answer.text(), status: answer.status };
    [address, body] = [new URL(location, address), undefined];
  }
  throw new Error('too many redirects');
}

let page = await visit(address);
for (let form; (form = /<form[^>]* action="([^"]*)"[^>]*>(.*?)<\/form>/s.exec(page.text));) {
  const fields = new URLSearchParams();
  for (const [input] of form[2].matchAll(/<input[^>]*>/g)) {
    const attribute = (name) => new RegExp(` ${name}="([^"]*)"`).exec(input)?.[1];
    fields.set(attribute('name'), { login: as, password: 'any' }[attribute('name')] ?? attribute('value') ?? '');
  }
  page = await visit(new URL(form[1], page.address), fields);
}
if (page.status >= 400) throw new Error(`${page.status}: ${page.text}`);
