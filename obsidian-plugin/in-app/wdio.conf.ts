// Needs the app: wdio-obsidian-service downloads Obsidian. `make plugin`, then `npm --prefix obsidian-plugin/in-app test`.
export const config: WebdriverIO.Config = {
  runner: "local",
  framework: "mocha",
  specs: ["./specs/*.spec.ts"],
  maxInstances: 1,
  capabilities: ["earliest", "latest"].map((version) => ({
    browserName: "obsidian",
    browserVersion: version,
    "wdio:obsidianOptions": { installerVersion: "earliest", plugins: ["../dist"], vault: "../../sample-vault" },
  })),
  services: ["obsidian"],
  cacheDir: ".obsidian-cache",
  mochaOpts: { timeout: 120_000 },
};
