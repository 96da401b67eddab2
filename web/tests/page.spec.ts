/** What the page does when things go wrong or grow large, against a stand-in controller. */
import { expect, test as base, type Page } from '@playwright/test';
import axe from 'axe-core';
import { MockController } from './mock-controller';
import { endpoint, node, nodeState, service, slice } from './objects';

const test = base.extend<{ controller: MockController }>({
  controller: async ({ page }, use) => {
    const controller = new MockController();
    await controller.start();
    const broken: string[] = [];
    page.on('pageerror', (error) => broken.push(String(error)));
    page.on('console', (message) => {
      if (message.type() === 'error' && /Content Security Policy|Refused to/i.test(message.text()))
        broken.push(message.text());
    });
    await use(controller);
    await controller.stop();
    expect(broken, 'errors in the page').toEqual([]);
  },
});

function fill(controller: MockController) {
  for (const i of [1, 2, 3]) controller.put('nodes', node(`node-${i}`, i));
  controller.put('services', service('web'));
  controller.put('endpointslices', slice('web', [endpoint('web-1', '10.244.1.2', 'node-1')]));
  for (const i of [1, 2, 3])
    controller.put('nodestates', nodeState(`node-${i}`, controller.revision + 4 - i));
}

/** What axe finds: contrast, names, roles, structure (WCAG 2.2 A and AA, and its best practices). */
async function barriers(page: Page): Promise<string[]> {
  await page.evaluate(axe.source);
  const { violations } = await page.evaluate(() => (window as unknown as { axe: typeof axe }).axe.run());
  return violations.flatMap((v) => v.nodes.map((n) => `${v.id}: ${v.help} (${n.target.join(' ')})`));
}

const open = (controller: MockController) => `${controller.url}#token=${controller.token}`;

test('asks for a token, says when it is refused, keeps the right one', async ({ page, controller }) => {
  fill(controller);
  await page.goto(controller.url);
  expect(await barriers(page), 'accessibility rules broken').toEqual([]);
  await page.getByLabel('Bearer token').fill('wrong');
  await page.getByRole('button', { name: 'Open' }).click();
  await expect(page.getByRole('alert')).toContainText('refused this token');
  await page.getByLabel('Bearer token').fill(controller.token);
  await page.keyboard.press('Enter');
  await expect(page.getByTestId('connection')).toHaveText('Live');
  await page.reload();
  await expect(page.getByTestId('connection')).toHaveText('Live');
  await page.getByRole('button', { name: 'Forget token' }).click();
  await expect(page.getByLabel('Bearer token')).toBeVisible();
  await page.reload();
  await expect(page.getByLabel('Bearer token')).toBeVisible();
});

test('takes a token from the link and removes it from the address', async ({ page, controller }) => {
  await page.goto(open(controller));
  await expect(page.getByTestId('connection')).toHaveText('Live');
  expect(page.url()).toBe(controller.url);
});

test('says that nothing is there, which is not the same as nothing known', async ({ page, controller }) => {
  await page.goto(open(controller));
  await expect(page.getByText('No node yet.')).toBeVisible();
  await expect(page.getByText('No Service yet.')).toBeVisible();
});

test('shows changes as they come', async ({ page, controller }) => {
  fill(controller);
  await page.goto(open(controller));
  const web = page.locator('[data-service="default/web"]');
  await expect(web.getByTestId('ready')).toContainText('1/1');

  controller.put(
    'endpointslices',
    slice('web', [
      endpoint('web-1', '10.244.1.2', 'node-1'),
      endpoint('web-2', '10.244.2.2', 'node-2', false),
    ]),
  );
  await expect(web.getByTestId('ready')).toContainText('1/2');
  await web.getByRole('button').click();
  const second = page.locator('[data-endpoint="web-2"]');
  await expect(second).toContainText('not ready');
  controller.put(
    'endpointslices',
    slice('web', [endpoint('web-1', '10.244.1.2', 'node-1'), endpoint('web-2', '10.244.2.2', 'node-2')]),
  );
  await expect(second.locator('.tag')).toHaveText('ready');
  await expect(web.getByTestId('ready')).toContainText('2/2');

  // Every report counts for itself; three nodes, two of them have the newest revision of the store.
  const head = controller.revision;
  controller.put('nodestates', nodeState('node-1', head));
  controller.put('nodestates', nodeState('node-2', head + 1));
  controller.put('nodestates', nodeState('node-3', head + 1, { connected: false }));
  await expect(page.locator('[data-node="node-3"]').getByTestId('health')).toContainText('disconnected');
  controller.delete('services', service('web'));
  await expect(web).toHaveCount(0);
});

test('survives a controller that goes away and comes back with another history', async ({
  page,
  controller,
}) => {
  fill(controller);
  await page.goto(open(controller));
  await expect(page.getByTestId('connection')).toHaveText('Live');
  await controller.stop();
  await expect(page.getByTestId('connection')).toHaveText('Reconnecting');
  await expect(page.getByText('No connection to the controller')).toBeVisible();
  await expect(page.locator('[data-service="default/web"]')).toBeVisible();
  controller.put('services', service('api'));
  controller.compact();
  await controller.start();
  await expect(page.getByTestId('connection')).toHaveText('Live', { timeout: 15_000 });
  await expect(page.locator('[data-service="default/api"]')).toBeVisible();
  await expect(page.getByText('No connection to the controller')).toHaveCount(0);
});

test('lists again, once, when the history is gone', async ({ page, controller }) => {
  fill(controller);
  await page.goto(open(controller));
  await expect(page.getByTestId('connection')).toHaveText('Live');
  const before = controller.listed.services;
  controller.compact();
  controller.put('services', service('new'));
  await expect(page.locator('[data-service="default/new"]')).toBeVisible({ timeout: 15_000 });
  expect(controller.listed.services).toBe(before + 1);
});

test('finds one of 10,000 services in a moment', async ({ page, controller }) => {
  for (let i = 0; i < 10_000; i++) {
    const name = `svc-${String(i).padStart(5, '0')}`;
    controller.put('services', service(name, { clusterIPs: [`10.97.${i >> 8}.${i & 255}`] }));
    controller.put(
      'endpointslices',
      slice(
        name,
        Array.from({ length: 10 }, (_, e) => endpoint(`${name}-${e}`, `10.244.${i >> 8}.${e}`, 'node-1')),
      ),
    );
  }
  await page.goto(open(controller));
  await expect(page.getByText('1–50 of 10,000')).toBeVisible({ timeout: 20_000 });
  await expect(page.locator('[data-service]')).toHaveCount(50);
  const started = Date.now();
  await page.getByLabel('Filter services').fill('svc-09871');
  await expect(page.locator('[data-service]')).toHaveCount(1);
  await expect(page.getByText('1 of 10,000 services')).toBeVisible();
  expect(Date.now() - started).toBeLessThan(4000);
  await page.getByLabel('Filter services').fill('10.97.0.255');
  await expect(page.locator('[data-service="default/svc-00255"]')).toBeVisible();
  await page.getByLabel('Filter services').fill('');
  await page.getByRole('button', { name: 'Last page' }).click();
  await expect(page.locator('[data-service="default/svc-09999"]')).toBeVisible();
  await page.getByLabel('Only those without a ready endpoint').check();
  await expect(page.getByText('Every service has a ready endpoint.')).toBeVisible();
});

test('can be used from the keyboard alone and is a table to a screen reader', async ({
  page,
  controller,
}) => {
  fill(controller);
  await page.goto(open(controller));
  const nodes = page.getByRole('table', { name: 'Nodes' });
  await expect(nodes.getByRole('row')).toHaveCount(4);
  await expect(nodes.getByRole('rowheader', { name: 'node-2' })).toBeVisible();
  await expect(page.getByRole('table', { name: 'Services' }).getByRole('columnheader')).toHaveCount(6);
  await page.getByRole('button', { name: 'Endpoints of service default/web' }).focus();
  await page.keyboard.press('Enter');
  await expect(page.getByRole('table', { name: 'Endpoints of default/web' })).toContainText('10.244.1.2');
  await page.keyboard.press('Enter');
  await expect(page.getByRole('table', { name: 'Endpoints of default/web' })).toHaveCount(0);
});

for (const [colorScheme, size] of [
  ['light', { width: 1360, height: 900 }],
  ['dark', { width: 1360, height: 900 }],
  ['light', { width: 420, height: 900 }],
] as const) {
  test(`looks right: ${colorScheme}, ${size.width} wide`, async ({ page, controller }) => {
    fill(controller);
    controller.put(
      'services',
      service(
        'kube-dns',
        {
          clusterIPs: ['10.96.0.10', 'fd00:10:96::a'],
          ports: [
            { name: 'dns', port: 53, protocol: 'UDP' },
            { name: 'dns-tcp', port: 53, protocol: 'TCP' },
          ],
        },
        'kube-system',
      ),
    );
    controller.put(
      'services',
      service('db', { clusterIP: 'None', clusterIPs: ['None'], ports: [{ port: 5432 }] }),
    );
    controller.put(
      'services',
      service('billing', {
        type: 'ExternalName',
        clusterIPs: [],
        externalName: 'billing.example.org',
        ports: [],
      }),
    );
    controller.put('endpointslices', slice('db', [endpoint('db-0', '10.244.3.9', 'node-3')]));
    controller.put(
      'endpointslices',
      slice('web', [
        endpoint('web-1', '10.244.1.2', 'node-1'),
        endpoint('web-2', '10.244.2.2', 'node-2'),
        endpoint('web-3', '10.244.3.2', 'node-3', false),
      ]),
    );
    const head = controller.revision + 3;
    controller.put('nodestates', nodeState('node-1', head));
    controller.put('nodestates', nodeState('node-2', head - 4, { programmingLatencyUs: 3200 }));
    controller.put(
      'nodestates',
      nodeState('node-3', head, {
        problems: ['eth0: the driver has no native XDP; attached in generic mode'],
      }),
    );
    await page.setViewportSize(size);
    await page.emulateMedia({ colorScheme });
    await page.goto(open(controller));
    await page.getByRole('button', { name: 'Endpoints of service default/web' }).click();
    await page.getByRole('button', { name: 'Details of node node-3' }).click();
    await expect(page.locator('[data-endpoint="web-3"]')).toBeVisible();
    const wider = await page.evaluate(() => document.documentElement.scrollWidth > window.innerWidth);
    expect(wider, 'the page scrolls sideways').toBe(false);
    expect(await barriers(page), 'accessibility rules broken').toEqual([]);
    await page.screenshot({ path: `test-results/page-${colorScheme}-${size.width}.png`, fullPage: true });
  });
}
