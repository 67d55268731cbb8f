/** The plugin as it is built, given the app and its libraries as the app gives them. */

import * as commands from "@codemirror/commands";
import * as state from "@codemirror/state";
import * as view from "@codemirror/view";
import * as obsidian from "./obsidian";

type Made = new (app: obsidian.App, manifest: object) => obsidian.Plugin;

const MODULES: Record<string, unknown> = {
  obsidian,
  "@codemirror/commands": commands,
  "@codemirror/state": state,
  "@codemirror/view": view,
};

/** The built file as a function of what a module is given. */
export type Main = (module: object, exports: object, require: (name: string) => unknown) => void;

/** The class that the built file exports. */
export function built(run: Main): Made {
  const module = { exports: {} as { default: Made } };
  run(module, module.exports, (name: string) => MODULES[name]);
  return module.exports.default;
}
