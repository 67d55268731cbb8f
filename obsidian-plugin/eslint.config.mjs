import obsidianmd from "eslint-plugin-obsidianmd";
import { defineConfig, globalIgnores } from "eslint/config";

export default defineConfig([
  globalIgnores(["dist", "node_modules", "in-app", "src/openapi.d.ts"]),
  ...obsidianmd.configs.recommended,
  { languageOptions: { parserOptions: { projectService: { allowDefaultProject: ["*.mjs"] } } } },
  // What runs in node, beside the app: the build and the tests.
  {
    files: ["*.mjs", "*.ts", "tests/**/*.ts"],
    rules: {
      "obsidianmd/no-nodejs-modules": "off",
      "obsidianmd/prefer-create-el": "off",
      "import/no-nodejs-modules": "off",
      "import/no-extraneous-dependencies": "off",
    },
  },
  // What stands in for the app is what the rules want to be used.
  {
    files: ["tests/app/*.ts"],
    rules: {
      "obsidianmd/hardcoded-config-path": "off",
      "obsidianmd/no-tfile-tfolder-cast": "off",
      "obsidianmd/prefer-instanceof": "off",
    },
  },
]);
