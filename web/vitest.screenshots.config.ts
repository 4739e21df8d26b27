import { defineConfig } from "vitest/config";

/** `make screenshots`: pictures of the page over sample traffic. */
export default defineConfig({
  test: {
    include: ["screenshots/**/*.test.ts"],
    environment: "node",
    testTimeout: 300_000,
    hookTimeout: 300_000,
    globalSetup: "screenshots/site.ts",
  },
});
