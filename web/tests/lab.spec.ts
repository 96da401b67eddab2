/** The page against a real controller with real agents, in a lab of network namespaces. */
import { expect, test } from '@playwright/test';
import { Lab } from './lab';

const lab = new Lab(`web${process.pid % 100_000}`);

test.describe.configure({ mode: 'serial' });
test.setTimeout(120_000);

test.beforeAll(async () => {
  test.setTimeout(180_000);
  await lab.up('--nodes', '3');
});
test.afterAll(async () => {
  await lab.down();
});

const WEB = {
  apiVersion: 'v1',
  kind: 'Service',
  metadata: { name: 'web', namespace: 'default' },
  spec: { selector: { app: 'web' }, ports: [{ name: 'http', port: 80, targetPort: 8080 }] },
};

test('shows a Service, its pods and their readiness as they change', async ({ page }) => {
  await page.goto(`${lab.url}/#token=${lab.token}`);
  await expect(page.getByTestId('connection')).toHaveText('Live');
  for (const node of ['node-1', 'node-2', 'node-3']) {
    const row = page.locator(`[data-node="${node}"]`);
    await expect(row.getByTestId('health')).toHaveText('current');
    await expect(row).toContainText('NIC');
  }
  const web = page.locator('[data-service="default/web"]');
  await expect(web).toHaveCount(0);

  await lab.apply(WEB);
  await expect(web).toContainText('10.96.');
  await expect(web.getByTestId('ready')).toContainText('0/0');
  for (const i of [1, 2, 3]) await lab.lab('run', `web-${i}`, '--node', `node-${i}`, '-l', 'app=web');
  await expect(web.getByTestId('ready')).toContainText('3/3');
  await web.getByRole('button').click();
  const second = page.locator('[data-endpoint="web-2"]');
  await expect(second).toContainText('node-2');
  await expect(second.locator('.tag')).toHaveText('ready');

  await lab.lab('unready', 'web-2');
  await expect(second.locator('.tag')).toHaveText('not ready');
  await expect(web.getByTestId('ready')).toContainText('2/3');
  await page.screenshot({ path: 'test-results/lab-not-ready.png', fullPage: true });
});

test('shows a node whose agent is gone, how far it is behind, and that it catches up', async ({ page }) => {
  await page.goto(`${lab.url}/#token=${lab.token}`);
  const health = page.locator('[data-node="node-2"]').getByTestId('health');
  await expect(health).toHaveText('current');
  await lab.lab('kill', 'agent', 'node-2');
  await expect(health).toContainText('disconnected');
  await lab.apply({ ...WEB, metadata: { name: 'meanwhile', namespace: 'default' } });
  await expect(page.locator('[data-service="default/meanwhile"]')).toBeVisible();
  await expect(health).toHaveText(/disconnected, \d+ behind/);
  await page.screenshot({ path: 'test-results/lab-behind.png', fullPage: true });
  await lab.lab('start', 'agent', 'node-2');
  await expect(health).toHaveText('current', { timeout: 30_000 });
});

test('outlives the controller and goes on where it was', async ({ page }) => {
  await page.goto(`${lab.url}/#token=${lab.token}`);
  await expect(page.getByTestId('connection')).toHaveText('Live');
  await lab.lab('kill', 'controller');
  await expect(page.getByTestId('connection')).toHaveText('Reconnecting', { timeout: 30_000 });
  await lab.lab('start', 'controller');
  await expect(page.getByTestId('connection')).toHaveText('Live', { timeout: 30_000 });
  await lab.delete('service', 'meanwhile');
  await expect(page.locator('[data-service="default/meanwhile"]')).toHaveCount(0);
  await expect(page.locator('[data-service="default/web"]')).toBeVisible();
  for (const node of ['node-1', 'node-2', 'node-3']) {
    await expect(page.locator(`[data-node="${node}"]`).getByTestId('health')).toHaveText('current', {
      timeout: 30_000,
    });
  }
  await page.screenshot({ path: 'test-results/lab-dark.png', fullPage: true });
});
