/**
 * The learning curve as an SVG file: reward and accuracy of the rollouts at each training step
 * (thin), their means over five steps (bold), and the accuracy on the held-out questions before and
 * after as points. Plain SVG 1.1 on a white ground, with a title and a description for screen
 * readers. A small writer of our own, because one picture is no reason for a chart library.
 */
import { smoothed } from './chart-text.ts';

export interface LearningCurve {
  title: string;
  subtitle: string;
  /** One point a training step, from step 1 on. */
  points: readonly { step: number; rewardMean: number; accuracy: number }[];
  /** Held-out accuracy of agent runs; null where nothing was answered. */
  heldOut: { before: number | null; after: number | null };
}

const SIZE = { width: 760, height: 440 };
const PLOT = { left: 64, right: 736, top: 72, bottom: 348 };
/** Blue, orange and green of the Okabe-Ito palette, told apart with colour blindness too. */
const COLOURS = { accuracy: '#0072b2', reward: '#d55e00', heldOut: '#009e73' };
const INK = { text: '#1f2328', faint: '#59636e', grid: '#e3e7eb' };
const SMOOTHING_RADIUS = 2;

interface Scale {
  x: (step: number) => number;
  y: (value: number) => number;
  steps: number;
  low: number;
  high: number;
}

export function learningCurveSvg(curve: LearningCurve): string {
  const scale = scaleOf(curve);
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${SIZE.width}" height="${SIZE.height}" ` +
      `viewBox="0 0 ${SIZE.width} ${SIZE.height}" role="img" aria-labelledby="title desc" ` +
      'font-family="system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif">',
    `<title id="title">${escaped(curve.title)}</title>`,
    `<desc id="desc">${escaped(description(curve))}</desc>`,
    `<rect width="${SIZE.width}" height="${SIZE.height}" fill="#ffffff"/>`,
    text(PLOT.left, 30, curve.title, { size: 17, weight: 600 }),
    text(PLOT.left, 52, curve.subtitle, { size: 13, colour: INK.faint }),
    ...yAxis(scale),
    ...xAxis(scale),
    ...series(scale, curve.points, 'reward', (point) => point.rewardMean),
    ...series(scale, curve.points, 'accuracy', (point) => point.accuracy),
    ...heldOutMarks(scale, curve),
    ...legend(),
    '</svg>',
    '',
  ].join('\n');
}

function scaleOf({ points, heldOut }: LearningCurve): Scale {
  const values = points.flatMap(({ rewardMean, accuracy }) => [rewardMean, accuracy]);
  const all = [...values, heldOut.before ?? 0, heldOut.after ?? 0];
  const low = Math.min(0, Math.floor(Math.min(...all) * 5) / 5);
  const high = Math.max(1, Math.ceil(Math.max(...all) * 5) / 5);
  const steps = Math.max(1, ...points.map(({ step }) => step));
  return {
    x: (step) => PLOT.left + ((PLOT.right - PLOT.left) * step) / steps,
    y: (value) => PLOT.bottom - ((PLOT.bottom - PLOT.top) * (value - low)) / (high - low),
    steps,
    low,
    high,
  };
}

function yAxis({ y, low, high }: Scale): string[] {
  const ticks = Math.round((high - low) / 0.2);
  const marks = Array.from({ length: ticks + 1 }, (_, i) => low + 0.2 * i).flatMap((value) => [
    line([PLOT.left, y(value)], [PLOT.right, y(value)], isZero(value) ? INK.faint : INK.grid),
    text(PLOT.left - 10, y(value) + 4, value.toFixed(1).replace('-0.0', '0.0'), {
      size: 12,
      colour: INK.faint,
      anchor: 'end',
    }),
  ]);
  const middle = (PLOT.top + PLOT.bottom) / 2;
  const label =
    `<text transform="translate(20 ${middle}) rotate(-90)" text-anchor="middle" font-size="13" ` +
    `fill="${INK.text}">reward, accuracy (share)</text>`;
  return [...marks, label];
}

function xAxis({ x, steps }: Scale): string[] {
  const marks = stepTicks(steps).flatMap((step) => [
    line([x(step), PLOT.bottom], [x(step), PLOT.bottom + 5], INK.faint),
    text(x(step), PLOT.bottom + 20, String(step), {
      size: 12,
      colour: INK.faint,
      anchor: 'middle',
    }),
  ]);
  const middle = (PLOT.left + PLOT.right) / 2;
  return [
    ...marks,
    text(middle, PLOT.bottom + 42, 'training step', { size: 13, anchor: 'middle' }),
  ];
}

/** 0 to `steps` in 4 to 10 even strides of 1, 2 or 5 times a power of ten. */
export function stepTicks(steps: number): number[] {
  let stride = 1;
  for (let i = 0; steps / stride > 10; i++) stride *= i % 3 === 1 ? 2.5 : 2;
  return Array.from({ length: Math.floor(steps / stride) + 1 }, (_, i) => i * stride);
}

function series(
  { x, y }: Scale,
  points: LearningCurve['points'],
  name: 'reward' | 'accuracy',
  value: (point: LearningCurve['points'][number]) => number,
): string[] {
  if (points.length === 0) return [];
  const path = (values: readonly number[]): string =>
    points
      .map(({ step }, i) => `${coordinate(x(step))},${coordinate(y(values[i] ?? 0))}`)
      .join(' ');
  const raw = points.map(value);
  const shared = `fill="none" stroke="${COLOURS[name]}" stroke-linejoin="round"`;
  return [
    `<polyline ${shared} stroke-width="1" stroke-opacity="0.4" points="${path(raw)}"/>`,
    `<polyline ${shared} stroke-width="2.5" points="${path(smoothed(raw, SMOOTHING_RADIUS))}"/>`,
  ];
}

function heldOutMarks({ x, y, steps }: Scale, { heldOut }: LearningCurve): string[] {
  const { before, after } = heldOut;
  const marks: string[] = [];
  if (before !== null && after !== null) {
    marks.push(line([x(0), y(before)], [x(steps), y(after)], COLOURS.heldOut, '2 5'));
  }
  for (const [value, step] of [
    [before, 0],
    [after, steps],
  ] as const) {
    if (value === null) continue;
    const end = step > 0;
    marks.push(
      dot(x(step), y(value)),
      text(x(step) + (end ? -10 : 10), y(value) - 10, `${(100 * value).toFixed(0)} %`, {
        size: 13,
        weight: 600,
        colour: COLOURS.heldOut,
        anchor: end ? 'end' : 'start',
        rim: true,
      }),
    );
  }
  return marks;
}

function legend(): string[] {
  const y = SIZE.height - 24;
  const stroke = (at: number, name: 'reward' | 'accuracy', label: string): string[] => [
    `<line x1="${at}" y1="${y}" x2="${at + 26}" y2="${y}" stroke="${COLOURS[name]}" ` +
      'stroke-width="2.5"/>',
    text(at + 34, y + 4, label, { size: 13 }),
  ];
  return [
    ...stroke(PLOT.left, 'accuracy', 'accuracy of rollouts'),
    ...stroke(PLOT.left + 196, 'reward', 'mean reward of rollouts'),
    dot(PLOT.left + 424, y),
    text(PLOT.left + 438, y + 4, 'accuracy on held-out questions', { size: 13 }),
  ];
}

function description({ points, heldOut }: LearningCurve): string {
  const share = (value: number | null): string =>
    value === null ? 'unknown' : `${(100 * value).toFixed(1)} %`;
  return (
    `Mean reward and accuracy of the rollouts over ${points.length} training steps. Accuracy on ` +
    `held-out questions: ${share(heldOut.before)} before, ${share(heldOut.after)} after.`
  );
}

interface TextStyle {
  size: number;
  colour?: string;
  weight?: number;
  anchor?: 'start' | 'middle' | 'end';
  /** A white rim keeps it readable across lines. */
  rim?: boolean;
}

function text(x: number, y: number, content: string, style: TextStyle): string {
  const { size, colour = INK.text, weight = 400, anchor = 'start' } = style;
  const rim = style.rim ? ' stroke="#ffffff" stroke-width="4" paint-order="stroke"' : '';
  return (
    `<text x="${coordinate(x)}" y="${coordinate(y)}" font-size="${size}" font-weight="${weight}" ` +
    `fill="${colour}" text-anchor="${anchor}"${rim}>${escaped(content)}</text>`
  );
}

type Point = readonly [number, number];

function line(from: Point, to: Point, colour: string, dashes?: string): string {
  const [x1, y1, x2, y2] = [...from, ...to].map(coordinate);
  const dashed = dashes === undefined ? '' : ` stroke-width="2" stroke-dasharray="${dashes}"`;
  return `<line x1="${x1}" y1="${y1}" x2="${x2}" y2="${y2}" stroke="${colour}"${dashed}/>`;
}

function dot(x: number, y: number): string {
  return (
    `<circle cx="${coordinate(x)}" cy="${coordinate(y)}" r="5.5" fill="${COLOURS.heldOut}" ` +
    'stroke="#ffffff" stroke-width="1.5"/>'
  );
}

/** Two decimals are finer than a pixel, and equal on every machine. */
const coordinate = (value: number): string => String(Math.round(value * 100) / 100);

const isZero = (value: number): boolean => Math.abs(value) < 1e-9;

/** Text for XML; characters that XML forbids are dropped. */
function escaped(content: string): string {
  return content
    .replaceAll(/[^\t\n\r\x20-\ufffd]/g, '')
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
    .replaceAll('"', '&quot;');
}
