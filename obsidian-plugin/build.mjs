// src/ → dist/: the folder as it stands in a vault. Nothing of the machine or the hour gets into it.
import { build } from "esbuild";
import { cp, mkdir, rm } from "node:fs/promises";
import { argv } from "node:process";
import { fileURLToPath } from "node:url";
import { framePage } from "./figure.mjs";

/** Build into this folder. */
export async function bundle(folder) {
  await mkdir(folder, { recursive: true });
  await build({
    entryPoints: ["src/main.ts"],
    outfile: `${folder}/main.js`,
    bundle: true,
    format: "cjs",
    target: "es2022",
    minify: true,
    legalComments: "none",
    charset: "utf8",
    logLevel: "warning",
    define: { FRAME: JSON.stringify(await framePage()) },
    external: ["obsidian", "electron", "@codemirror/*", "@lezer/*"],
  });
  for (const name of ["manifest.json", "styles.css"]) await cp(name, `${folder}/${name}`);
}

if (argv[1] === fileURLToPath(import.meta.url)) {
  await rm("dist", { recursive: true, force: true });
  await bundle("dist");
}
