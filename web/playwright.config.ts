import { execFileSync } from 'node:child_process';
import { defineConfig } from '@playwright/test';

/** The system's browser: Playwright's own would be another download. */
function chromium(): string {
  if (process.env.CHROMIUM) return process.env.CHROMIUM;
  try {
    return execFileSync(
      'sh',
      ['-c', 'command -v chromium || command -v chromium-browser || command -v google-chrome'],
      {
        encoding: 'utf8',
      },
    ).trim();
  } catch {
    throw new Error('no Chromium on PATH: `scripts/setup browser` installs it, or set CHROMIUM to its path');
  }
}

export default defineConfig({
  testDir: 'tests',
  outputDir: 'test-results/runs',
  preserveOutput: 'failures-only',
  reporter: [['list']],
  workers: 1,
  timeout: 60_000,
  expect: { timeout: 10_000 },
  use: {
    browserName: 'chromium',
    headless: true,
    ignoreHTTPSErrors: true,
    screenshot: 'only-on-failure',
    trace: 'retain-on-failure',
    launchOptions: {
      executablePath: chromium(),
      // As root Chromium has no sandbox; it opens nothing but the page under test.
      args: ['--no-sandbox', '--disable-dev-shm-usage'],
    },
  },
});
