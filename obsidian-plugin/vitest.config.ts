import { fileURLToPath } from "node:url";
import { defineConfig } from "vitest/config";

const alias = { obsidian: fileURLToPath(new URL("tests/app/obsidian.ts", import.meta.url)) };
const patience = { testTimeout: 120_000, hookTimeout: 120_000 };

export default defineConfig({
  test: {
    maxWorkers: 2,
    minWorkers: 1,
    projects: [
      {
        resolve: { alias },
        test: {
          ...patience,
          name: "plugin",
          environment: "jsdom",
          include: ["tests/*.test.ts"],
          setupFiles: ["tests/app/dom.ts"],
        },
      },
      { test: { ...patience, name: "page", environment: "node", include: ["tests/page/*.test.ts"] } },
    ],
  },
});
