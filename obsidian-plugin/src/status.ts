/** How it stands, in a few words: for the status bar and the settings. */

import { left, sentences, update } from "./block";
import type { State } from "./link";
import type { Event, Hello } from "./protocol";

export interface Words {
  words: string;
  detail: string;
}

/** The connection and what runs, in words. */
export function statusWords(state: State, underway: readonly Event[]): Words {
  switch (state.is) {
    case "viewer":
      return { words: "Results only", detail: "On a phone results are shown, and nothing is run." };
    case "unpaired":
      return { words: "Not paired", detail: "Pair this device with the daemon of this machine." };
    case "searching":
      return { words: "Connecting", detail: "" };
    case "absent":
      return { words: "No daemon", detail: "None answers on this machine." };
    case "stranger":
      return { words: "Not recognised", detail: "Whoever answers does not know this device: pair it anew." };
    case "clock":
      return { words: "Clocks differ", detail: sentences(state.problem) };
    case "mismatch":
      return { words: "Versions differ", detail: update(state.update) };
    case "connected":
      return { words: work(state.hello.trusted, underway), detail: connected(state.hello) };
  }
}

function connected({ version, machine, notices }: Hello): string {
  return [`Connected with vaultlab ${version} on ${machine}.`, ...notices].join(" ");
}

function work(trusted: boolean, underway: readonly Event[]): string {
  const running = underway.find((event) => event.kind === "running" || event.kind === "loading");
  const waiting = underway.filter((event) => event.kind === "queued").length;
  const queue = waiting ? `${waiting} waiting` : "";
  if (!running) return queue || (trusted ? "Idle" : "Not trusted");
  const share = running.done !== null && running.total ? ` ${Math.floor((100 * running.done) / running.total)} %` : "";
  const rest = running.eta_s === null ? "" : `${left(running.eta_s)} left`;
  return [`${running.id}${share}`, rest, queue].filter(Boolean).join(" · ");
}
