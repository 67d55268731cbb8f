/** The shapes that cross between the daemon and us, by the names of the daemon's own document. */

import type { components } from "./openapi";

type Schemas = components["schemas"];

export type Block = Schemas["PlannedBlock"];
export type Edit = Schemas["Edit"];
export type Event = Schemas["Event"];
export type Events = Schemas["Events"];
export type Experiment = Schemas["Experiment"];
export type Experiments = Schemas["Experiments"];
export type Example = Schemas["Example"];
export type Hello = Schemas["Hello"];
export type Outcome = Schemas["Outcome"]["outcome"];
export type Insertion = Schemas["Insertion"];
export type Last = Schemas["Last"];
export type Artifact = Schemas["Artifact"];
export type Paired = Schemas["Paired"];
export type Planned = Schemas["Planned"];
export type Problem = Schemas["Problem"];
export type Queued = Schemas["Queued"];
export type RunAsk = Schemas["RunAsk"];

/** Raised when an older daemon could no longer talk to us. */
export const PROTOCOL = 1;
