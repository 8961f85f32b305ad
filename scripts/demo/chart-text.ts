/**
 * A learning curve as text: one column a training step (or a mean of several when there are many),
 * bars of eighths of a character, the scale on the left.
 */

const BLOCKS = ['', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
const WIDTH_MAX = 64;

export interface TextChart {
  title: string;
  /** One value a step, from step 1 on. */
  values: readonly number[];
  height?: number;
}

/** A title, `height` rows of bars, and an axis with the first and last step. */
export function textChart({ title, values, height = 6 }: TextChart): string {
  if (values.length === 0) return `${title}: no steps`;
  const columns = condensed(values, WIDTH_MAX);
  const low = Math.min(0, ...columns);
  const high = Math.max(...columns, low + 1e-9);
  const eighths = columns.map((value) => Math.round(((value - low) / (high - low)) * height * 8));
  const label = (row: number): string => {
    if (row === height - 1) return high.toFixed(2);
    return row === 0 ? low.toFixed(2) : '';
  };
  const rows = Array.from({ length: height }, (_, i) => {
    const row = height - 1 - i;
    const bars = eighths.map((fill) => BLOCKS[Math.max(0, Math.min(8, fill - 8 * row))] || ' ');
    return `${label(row).padStart(6)} │${bars.join('').trimEnd()}`;
  });
  const last = String(values.length);
  const axis = `${' '.repeat(7)}└${'─'.repeat(columns.length)}`;
  const steps = `${' '.repeat(8)}1${last.padStart(Math.max(0, columns.length - 1))} steps`;
  return [title, ...rows, axis, steps].join('\n');
}

/** At most `width` values: means of neighbours, all of them counted once. */
export function condensed(values: readonly number[], width: number): number[] {
  if (values.length <= width) return [...values];
  return Array.from({ length: width }, (_, i) => {
    const from = Math.floor((i * values.length) / width);
    const to = Math.floor(((i + 1) * values.length) / width);
    return mean(values.slice(from, to));
  });
}

/** The mean of each value and its neighbours within `radius`; fewer at the ends. */
export function smoothed(values: readonly number[], radius: number): number[] {
  return values.map((_, i) => mean(values.slice(Math.max(0, i - radius), i + radius + 1)));
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / Math.max(1, values.length);
}
