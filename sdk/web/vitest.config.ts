import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['tests/**/*.test.ts'],
    environment: 'node',
    setupFiles: ['tests/support/setup.ts'],
    testTimeout: 10_000,
    // One worker: the machine that runs the whole suite's tests has two cores for everything.
    maxWorkers: 1,
    isolate: false,
  },
});
