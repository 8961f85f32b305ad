/** The SVG file: well-formed XML, everything inside the picture, the marks where the values are. */
import { describe, expect, it } from 'vitest';
import { learningCurveSvg, stepTicks, type LearningCurve } from './chart-svg.ts';

const curve: LearningCurve = {
  title: 'a title with <tags> & "quotes"\u0000',
  subtitle: 'seed 1',
  points: Array.from({ length: 40 }, (_, i) => ({
    step: i + 1,
    rewardMean: -0.3 + i / 40,
    accuracy: 0.2 + i / 60,
  })),
  heldOut: { before: 0.25, after: 0.75 },
};

/** Throws unless tags are balanced, attributes quoted and no bare markup is in the text. */
function checkXml(svg: string): string[] {
  const open: string[] = [];
  const names: string[] = [];
  const outside = svg.replaceAll(
    /<(\/?)([a-z]+)((?: [a-zA-Z][\w:-]*="[^"<&]*")*)(\/?)>/g,
    (_, closing: string, name: string, _attributes: string, empty: string) => {
      if (closing === '') names.push(name);
      if (closing !== '') expect(open.pop()).toBe(name);
      else if (empty === '') open.push(name);
      return '';
    },
  );
  expect(open).toEqual([]);
  expect(outside).not.toMatch(/[<>]|&(?!amp;|lt;|gt;|quot;)/);
  // eslint-disable-next-line no-control-regex
  expect(outside).not.toMatch(/[\u0000-\u0008]/);
  return names;
}

function attributes(svg: string, name: string): number[] {
  return [...svg.matchAll(new RegExp(` ${name}="(-?[\\d.]+)"`, 'g'))].map((match) =>
    Number(match[1]),
  );
}

describe('learningCurveSvg', () => {
  it('is well-formed, with a title, a description, two lines a series and two points', () => {
    const names = checkXml(learningCurveSvg(curve));
    const count = (name: string): number => names.filter((found) => found === name).length;
    expect(names[0]).toBe('svg');
    expect([count('title'), count('desc'), count('polyline')]).toEqual([1, 1, 4]);
    // The two points and the one in the legend.
    expect(count('circle')).toBe(3);
  });

  it('draws inside its own bounds, also with rewards below zero and above one', () => {
    const steep = curve.points.map((point, i) => ({
      ...point,
      rewardMean: i % 2 === 0 ? -1 : 1.1,
    }));
    const svg = learningCurveSvg({ ...curve, points: steep });
    const points = [...svg.matchAll(/ points="([^"]+)"/g)].flatMap((match) =>
      (match[1] as string).split(' ').map((pair) => pair.split(',').map(Number)),
    );
    const xs = [...attributes(svg, '(?:x|x1|x2|cx)'), ...points.map(([x]) => x as number)];
    const ys = [...attributes(svg, '(?:y|y1|y2|cy)'), ...points.map(([, y]) => y as number)];
    expect(points.length).toBe(4 * 40);
    expect(Math.min(...xs, ...ys)).toBeGreaterThanOrEqual(0);
    expect(Math.max(...xs)).toBeLessThanOrEqual(760);
    expect(Math.max(...ys)).toBeLessThanOrEqual(440);
  });

  it('puts a higher value higher up', () => {
    const [before, after] = attributes(learningCurveSvg(curve), 'cy') as [number, number];
    expect(after).toBeLessThan(before);
  });

  it('also draws a run without steps and without answers', () => {
    const names = checkXml(
      learningCurveSvg({ ...curve, points: [], heldOut: { before: null, after: null } }),
    );
    expect(names).not.toContain('polyline');
  });
});

it.each([
  [1, [0, 1]],
  [10, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]],
  [12, [0, 2, 4, 6, 8, 10, 12]],
  [40, [0, 5, 10, 15, 20, 25, 30, 35, 40]],
  [1_000, [0, 100, 200, 300, 400, 500, 600, 700, 800, 900, 1_000]],
])('ticks of %i steps', (steps, ticks) => {
  expect(stepTicks(steps)).toEqual(ticks);
});
