/** What an interactive figure is drawn from, by what it is and not by which experiment it comes from. */

/** Square maps, one for each place in a grid: what the column's label gives to the row's. */
export interface Maps {
  kind: "maps";
  /** What the grid's two ways are: layer and head. */
  axes: [string, string];
  rows: number[];
  columns: number[];
  labels: string[];
  /** Bytes in base64, row after row, column after column, each a square of labels by labels; 255 is `most`. */
  maps: string;
  most: number[][];
  /** How much each place of the grid matters. */
  strength: number[][];
  chosen: [number, number];
  unit: string;
}

/** Arrows from the middle, one set for each value of the axis. */
export interface Vectors {
  kind: "vectors";
  axis: string;
  values: (number | string)[];
  /** Value, arrow, coordinate: one to three of them. */
  vectors: number[][][];
  notes: string[];
  chosen: number;
}

/** The same figure at every value of a swept field. */
export interface Sweep {
  kind: "sweep";
  field: string;
  values: (number | string)[];
  each: (Maps | Vectors)[];
}

export type Data = Maps | Vectors | Sweep;

/** What the plugin hands into the frame: the data, and the colours of the app at this moment. */
export interface Handed {
  data: Data;
  scheme: "light" | "dark";
  colours: Record<string, string>;
}

/** Whether this is something that can be drawn. */
export function drawable(data: unknown): data is Data {
  const kind = (data as { kind?: unknown } | null)?.kind;
  return kind === "maps" || kind === "vectors" || kind === "sweep";
}
