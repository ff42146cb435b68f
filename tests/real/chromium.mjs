// A person at headless Chromium: opens the address, signs in at the provider's pages and agrees, and
// tells what the last page was.
//
//   node chromium.mjs --as NAME --ca FILE [--report FILE] [--screenshots PREFIX] [--cancel] ADDRESS

import { createHash, X509Certificate } from 'node:crypto';
import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { chromium } from 'playwright-core';

const { values: options, positionals: [address] } = parseArgs({
  allowPositionals: true,
  options: {
    as: { type: 'string' },
    ca: { type: 'string' },
    report: { type: 'string' },
    screenshots: { type: 'string' },
    cancel: { type: 'boolean' },
  },
});

// Certificates that our CA signed are trusted by its key, and no others.
const key = new X509Certificate(readFileSync(options.ca)).publicKey.export({ type: 'spki', format: 'der' });
const pin = createHash('sha256').update(key).digest('base64');
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  args: [
    '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
    '--disable-background-networking', '--disable-component-update', '--disable-sync',
    `--ignore-certificate-errors-spki-list=${pin}`,
    '--host-resolver-rules=MAP fonts.googleapis.com ~NOTFOUND', // the provider's pages ask for it
  ],
});
const page = await browser.newPage();
page.setDefaultTimeout(60_000);
await page.goto(address);
const steps = [];
for (;;) {
  const name = page.locator('input[name=login]');
  const submit = page.locator('button[type=submit]').first();
  if (await submit.count() === 0) break;
  if (await name.count() > 0) {
    await name.fill(options.as);
    await page.locator('input[name=password]').fill('any');
  }
  const cancel = options.cancel ? page.getByText('Cancel') : submit;
  steps.push(await cancel.innerText());
  const next = page.waitForEvent('load');
  await cancel.click();
  await next;
}
await page.waitForLoadState('networkidle');
const report = {
  url: page.url(),
  title: await page.title(),
  text: await page.locator('body').innerText(),
  history: await page.evaluate(() => history.length),
  steps,
};
for (const colorScheme of options.screenshots ? ['light', 'dark'] : []) {
  await page.emulateMedia({ colorScheme });
  await page.screenshot({ path: `${options.screenshots}${colorScheme}.png` });
}
await browser.close();
if (options.report) {
  writeFileSync(`${options.report}.new`, JSON.stringify(report));
  renameSync(`${options.report}.new`, options.report);
} else {
  console.log(JSON.stringify(report));
}
