/**
 * Vega-Lite specifications to SVG, and SVG to PNG, the same bytes on every machine: no canvas (Vega
 * then estimates the width of text by its own table), and one font from a package instead of
 * whatever the system has. Knows nothing of what is drawn.
 */
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { Resvg } from '@resvg/resvg-js';
import { parse, View } from 'vega';
import { compile, type TopLevelSpec } from 'vega-lite';

const FONT = 'DejaVu Sans';
const fontFolder = join(
  dirname(createRequire(import.meta.url).resolve('dejavu-fonts-ttf/package.json')),
  'ttf',
);

/** Okabe and Ito's palette, told apart with colour blindness too; grey is for references. */
export const COLOURS = [
  '#0072b2',
  '#d55e00',
  '#009e73',
  '#cc79a7',
  '#e69f00',
  '#56b4e9',
  '#7a5195',
  '#595959',
] as const;
export const GREY = '#9aa1a9';

const CONFIG = {
  font: FONT,
  background: '#ffffff',
  view: { stroke: null },
  axis: { gridColor: '#e3e7eb', domainColor: '#59636e', tickColor: '#59636e', labelFontSize: 11 },
  legend: { labelLimit: 360, symbolStrokeWidth: 3 },
  title: { anchor: 'start', fontSize: 15, subtitleFontSize: 11, subtitleColor: '#59636e' },
  header: { labelFontSize: 12, titleFontSize: 12 },
} as const;

export type ChartSpec = Readonly<Record<string, unknown>>;

export async function chartSvg(spec: ChartSpec): Promise<string> {
  const full = { padding: 12, ...spec, config: CONFIG } as unknown as TopLevelSpec;
  const view = new View(parse(compile(full).spec), { renderer: 'none' });
  try {
    return `${await view.toSVG()}\n`;
  } finally {
    view.finalize();
  }
}

/** At twice the size, for screens of high density. */
export function svgPng(svg: string): Buffer {
  const font = {
    fontFiles: ['DejaVuSans.ttf', 'DejaVuSans-Bold.ttf'].map((file) => join(fontFolder, file)),
    loadSystemFonts: false,
    defaultFontFamily: FONT,
  };
  return new Resvg(svg, { font, fitTo: { mode: 'zoom', value: 2 } }).render().asPng();
}
