// A person at headless Chromium: opens the address, signs in at the provider's pages and agrees, and
// tells what the last page was.
//
//   node chromium.mjs --as NAME --ca FILE [--report FILE] [--screenshots PREFIX] [--cancel] ADDRESS

import { renameSync, writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { launch, signIn } from './launch.mjs';

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

const browser = await launch(options.ca);
const page = await browser.newPage();
page.setDefaultTimeout(60_000);
await page.goto(address);
const steps = await signIn(page, options.as, options.cancel);
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
