// src/figure/ → the one page that the interactive figures' frame is: nothing in it reaches out.
import { build } from "esbuild";
import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));

export async function framePage() {
  const options = { bundle: true, write: false, minify: true, format: "iife", target: "es2022", legalComments: "none", charset: "utf8" };
  const { outputFiles } = await build({ ...options, entryPoints: [here("src/figure/frame.ts")] });
  const css = await readFile(here("src/figure/frame.css"), "utf8");
  const policy = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'";
  const script = outputFiles[0].text.trim().replaceAll("</", "<\\/");
  return [
    `<!doctype html><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="${policy}">`,
    `<style>${css.replace(/\s*\n\s*/g, "")}</style><body><script>${script}</script>`,
  ].join("");
}
