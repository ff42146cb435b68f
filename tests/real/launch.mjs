// Headless Chromium, and a person at the certified provider's pages.

import { createHash, X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { chromium } from 'playwright-core';

// Certificates that the CA in that file signed are trusted by its key, and no others.
export function launch(ca) {
  const key = ca && new X509Certificate(readFileSync(ca)).publicKey.export({ type: 'spki', format: 'der' });
  const trust = key ? [`--ignore-certificate-errors-spki-list=${createHash('sha256').update(key).digest('base64')}`] : [];
  return chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    args: [
      '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
      '--disable-background-networking', '--disable-component-update', '--disable-sync',
      ...trust,
      // The provider's pages ask for fonts. Names under .test are this machine.
      '--host-resolver-rules=MAP fonts.googleapis.com ~NOTFOUND, MAP *.test 127.0.0.1',
    ],
  });
}

// Signs in and agrees, or cancels, for as long as there are forms; returns the buttons that were pressed.
export async function signIn(page, person, cancel) {
  const steps = [];
  for (;;) {
    const name = page.locator('input[name=login]');
    const submit = page.locator('button[type=submit]').first();
    if (await submit.count() === 0) return steps;
    if (await name.count() > 0) {
      await name.fill(person);
      await page.locator('input[name=password]').fill('any');
    }
    const button = cancel ? page.getByText('Cancel') : submit;
    steps.push(await button.innerText());
    const next = page.waitForEvent('load');
    await button.click();
    await next;
  }
}
