export function framePage(): Promise<string>;
