import { defineConfig } from "vitest/config";

/** One real Logfeed and one browser for all files: they follow one another. */
export default defineConfig({
  test: {
    include: ["e2e/**/*.test.ts"],
    environment: "node",
    fileParallelism: false,
    testTimeout: 90_000,
    hookTimeout: 240_000,
    // A condition, not a time: a busy machine may need a while.
    expect: { poll: { timeout: 20_000 } },
    globalSetup: "e2e/site.ts",
  },
});
