/** The connection to this machine's daemon: found, asked to prove itself, polled; lost and found again. */

import { Client, Refusal, Stranger, Unreachable } from "./client";
import type { Device, Presence } from "./device";
import { PROTOCOL, type Event, type Events, type Hello, type Problem } from "./protocol";

/** How it stands. `viewer`: a phone, where results are shown and nothing else is tried. */
export type State =
  | { is: "viewer" | "unpaired" | "searching" | "absent" | "stranger" }
  | { is: "clock"; problem: Problem }
  | { is: "mismatch"; update: "plugin" | "daemon" }
  | { is: "connected"; hello: Hello };

/** Is told of every change of state, and of what has happened since the last time; `missed`: some of it is lost. */
export interface Listener {
  changed(state: State, fresh: boolean): void;
  happened(events: readonly Event[], missed: boolean): void;
}

const WAIT_S = 20;
const BACK_OFF_MS = [500, 1000, 2000, 5000, 10_000, 30_000];
const BREATH_MS = 500;

export class Link {
  state: State = { is: "searching" };
  private client: Client | null = null;
  private going = false;
  private wake: () => void = () => undefined;

  constructor(
    private readonly device: Device,
    private readonly listener: Listener,
    private readonly viewer: boolean,
  ) {}

  /** The daemon to ask, while it is connected. */
  get daemon(): Client | null {
    return this.state.is === "connected" ? this.client : null;
  }

  start(): void {
    this.going = true;
    if (this.viewer) this.become({ is: "viewer" });
    else void this.follow();
  }

  /** Nothing is asked any more, and whatever is still answered is not heard. */
  stop(): void {
    this.going = false;
    this.client = null;
    this.wake();
  }

  /** Try now, whatever the back-off says; leave a daemon that we are no longer paired with. */
  retry(): void {
    if (!this.device.keys && this.state.is === "connected") this.become({ is: "unpaired" });
    this.wake();
  }

  /** Ask anew who is there: whether the vault is trusted, what its owner should know. */
  async greet(): Promise<void> {
    const { daemon } = this;
    if (daemon) this.become({ is: "connected", hello: await daemon.hello() });
  }

  private async follow(): Promise<void> {
    for (let failures = 0; this.going; failures++) {
      try {
        await this.connected(() => (failures = 0));
      } catch (error) {
        const state = await this.meaning(error);
        if (this.going) this.become(state);
      }
      if (this.going) await this.pause(BACK_OFF_MS[Math.min(failures, BACK_OFF_MS.length - 1)] ?? 0);
    }
  }

  /** Find the daemon and follow what happens there for as long as it answers. */
  private async connected(proved: () => void): Promise<void> {
    const keys = this.device.keys;
    if (!keys) return this.become({ is: "unpaired" });
    const found = await this.ours();
    if (!found) throw new Unreachable("No daemon says that it is there.");
    const client = new Client(found.port, keys);
    const hello = await client.hello();
    if (!this.going) return;
    proved();
    this.client = client;
    this.become({ is: "connected", hello }, true);
    for (let after = hello.last; this.going; ) {
      const asked = Date.now();
      const { last, missed, events } = await client.ask<Events>("GET", `/v1/events?after=${after}&wait=${WAIT_S}`);
      if (!this.going || this.device.keys?.device !== keys.device) return;
      after = last;
      if (missed || events.length) this.listener.happened(events, missed);
      else if (Date.now() - asked < BREATH_MS) await this.pause(BREATH_MS); // a daemon that ends answers at once
    }
  }

  private async ours(): Promise<Presence | null> {
    return (await this.device.presences()).find((one) => one.machine === this.device.machine) ?? null;
  }

  /** What an error says about the connection. Whoever has not signed is not quoted. */
  private async meaning(error: unknown): Promise<State> {
    if (error instanceof Refusal && error.status === 401) return { is: "clock", problem: error.problem };
    if (!(error instanceof Stranger)) return { is: "absent" };
    const here = await this.ours();
    if (!here || here.protocol === PROTOCOL) return { is: "stranger" };
    return { is: "mismatch", update: here.protocol > PROTOCOL ? "plugin" : "daemon" };
  }

  private become(state: State, fresh = false): void {
    this.state = state;
    this.listener.changed(state, fresh);
  }

  private pause(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = window.setTimeout(resolve, ms);
      this.wake = () => {
        window.clearTimeout(timer);
        resolve();
      };
    });
  }
}
