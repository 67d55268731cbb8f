/** What this device knows of its daemon and no vault may carry: the keys, the machine; and where the daemon says it is. */

import type { App } from "obsidian";
import type { Keys } from "./client";

const PAIRED = "vaultlab-paired";
const PRESENCE = /(^|\/)daemon-[a-z0-9-]+\.json$/;

/** A daemon as it says in the vault that it is there; no secret and no host. `beat` in seconds since the epoch. */
export interface Presence {
  protocol: number;
  port: number;
  machine: string;
  beat: number;
}

interface Paired {
  device: string;
  machine: string;
}

export class Device {
  constructor(private readonly app: App) {}

  /** The machine whose daemon we are paired with. */
  get machine(): string | null {
    return this.paired?.machine ?? null;
  }

  get keys(): Keys | null {
    const device = this.paired?.device;
    const key = device ? this.app.secretStorage.getSecret(secret(device)) : null;
    return device && key ? { device, key } : null;
  }

  keep(keys: Keys, machine: string): void {
    this.app.secretStorage.setSecret(secret(keys.device), keys.key);
    this.app.saveLocalStorage(PAIRED, { device: keys.device, machine });
  }

  forget(): void {
    const device = this.paired?.device;
    if (device) this.app.secretStorage.setSecret(secret(device), "");
    this.app.saveLocalStorage(PAIRED, null);
  }

  /** Every daemon that says in this vault that it is there, the one heard of last first. */
  async presences(): Promise<Presence[]> {
    const { adapter } = this.app.vault;
    if (!(await adapter.exists(".vaultlab"))) return [];
    const { files } = await adapter.list(".vaultlab");
    const signs = files.filter((path) => PRESENCE.test(path));
    const texts = await Promise.all(signs.map((path) => adapter.read(path).catch(() => ""))); // it may end just now
    return texts.flatMap((text) => presence(text) ?? []).sort((one, other) => other.beat - one.beat);
  }

  private get paired(): Paired | null {
    return this.app.loadLocalStorage(PAIRED) as Paired | null;
  }
}

function secret(device: string): string {
  return `vaultlab-${device}`;
}

function presence(text: string): Presence | null {
  try {
    const said = JSON.parse(text) as Partial<Presence>;
    const { protocol, port, machine, beat } = said;
    const whole = [protocol, port, beat].every((one) => Number.isSafeInteger(one)) && typeof machine === "string";
    return whole ? (said as Presence) : null;
  } catch {
    return null; // half written, or another program's
  }
}
