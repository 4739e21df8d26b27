import { defineConfig } from "vitest/config";

/** `make bench-web`: one real Logfeed, one browser, sections one after the other. */
export default defineConfig({
  test: {
    include: ["bench/**/*.test.ts"],
    environment: "node",
    fileParallelism: false,
    testTimeout: 3_600_000,
    hookTimeout: 3_600_000,
    globalSetup: "e2e/site.ts",
  },
});
