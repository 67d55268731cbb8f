import { fileURLToPath } from "node:url";
import { defineConfig } from "vitest/config";
import { framePage } from "./figure.mjs";

const alias = { obsidian: fileURLToPath(new URL("tests/app/obsidian.ts", import.meta.url)) };
const IN_NODE = ["tests/build.test.ts", "tests/manifest.test.ts", "tests/page/*.test.ts"];
const patience = { testTimeout: 120_000, hookTimeout: 120_000, expect: { poll: { timeout: 30_000 } } };

export default defineConfig({
  test: {
    maxWorkers: 2,
    minWorkers: 1,
    projects: [
      {
        resolve: { alias },
        define: { FRAME: JSON.stringify(await framePage()) },
        test: {
          ...patience,
          name: "plugin",
          environment: "jsdom",
          include: ["tests/*.test.ts"],
          exclude: IN_NODE,
          setupFiles: ["tests/app/dom.ts"],
        },
      },
      { test: { ...patience, name: "node", environment: "node", include: IN_NODE } },
    ],
  },
});
