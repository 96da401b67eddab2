import { svelte } from '@sveltejs/vite-plugin-svelte';
import { defineConfig } from 'vitest/config';

// `npm run dev` serves the page with hot reload in front of a running controller:
// EASTWEST_URL=https://127.0.0.1:7443 npm run dev
const controller = process.env.EASTWEST_URL ?? 'https://127.0.0.1:7443';
const proxy = Object.fromEntries(
  ['/api', '/apis', '/v1', '/version'].map((path) => [path, { target: controller, secure: false }]),
);

export default defineConfig({
  plugins: [svelte()],
  base: './',
  build: { target: 'es2022', modulePreload: { polyfill: false }, assetsInlineLimit: 0 },
  server: { proxy },
  test: { include: ['src/**/*.test.ts'], environment: 'node' },
});
