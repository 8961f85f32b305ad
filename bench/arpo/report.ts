/**
 * npm run bench:arpo:report: tables and figures of the recorded experiments into
 * docs/evidence/arpo/, and the block of the README that states what they show. All of it is a
 * function of the records, and a test holds what is committed against them.
 */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { format, resolveConfig } from 'prettier';
import { AppError } from '../../core/errors.ts';
import { packageRoot } from '../../core/paths.ts';
import { chartSvg, svgPng, type ChartSpec } from './chart.ts';
import { accuracyFigure, armsFigure, entropyFigure, forksFigure } from './figures.ts';
import { EVIDENCE } from './options.ts';
import { readRuns } from './plan.ts';
import {
  callsTable,
  costTable,
  failureLines,
  forksTable,
  planText,
  stepsTable,
  verdictLines,
} from './tables.ts';
import { planRuns, type PlanRuns } from './summary.ts';

const README = join(packageRoot, 'README.md');
const MARKS = {
  begin: '<!-- bench:arpo:report writes from here -->',
  end: '<!-- bench:arpo:report writes to here -->',
};
const FAMILIES = ['math', 'knowledge', 'deep-search'] as const;
/** Drawn together, and in the README; the others have a panel each. */
const SHOWN = [
  ...['grpo-16', 'grpo-8', 'random', 'paper'],
  ...['wide', 'sharp'].map((way) => `uniform-3-of-16-tree-${way}`),
  ...['grpo-8-sharp', 'grpo-16-sharp'],
];
/** Of the token entropies around tool results. */
const ENTROPIES = ['grpo-16', 'paper', ...SHOWN.slice(4, 6)];

export interface Report {
  /** Text files by name. */
  files: Map<string, string>;
  /** What stands between the marks in the README. */
  block: string;
}

/** Everything that the records of a folder give. */
export async function makeReport(folder: string): Promise<Report> {
  const files = new Map<string, string>();
  const rules = planRuns(readRuns(join(folder, 'rules.jsonl')), 'rules');
  const offPolicy = planRuns(readRuns(join(folder, 'off-policy.jsonl')), 'off-policy');
  const parts = [rules === null ? '' : rulesText(rules), offPolicy ? offPolicyText(offPolicy) : ''];
  if (rules !== null) {
    for (const [name, spec] of figures(rules)) files.set(`${name}.svg`, await chartSvg(spec));
  }
  const text = parts.filter((part) => part !== '').join('\n\n');
  if (text !== '') files.set('report.md', await pretty(`# What branching buys\n\n${text}\n`));
  return { files, block: await pretty(readmeText(rules, offPolicy)) };
}

function figures(data: PlanRuns): [string, ChartSpec][] {
  return [
    ['accuracy-calls', accuracyFigure(data, SHOWN, ['all'])],
    ['accuracy-calls-families', accuracyFigure(data, SHOWN, FAMILIES)],
    ['arms', armsFigure(data)],
    ['entropy-around-calls', entropyFigure(data, ENTROPIES)],
    ['forks', forksFigure(data)],
  ];
}

function rulesText(data: PlanRuns): string {
  const families = FAMILIES.map(
    (family) =>
      `## Family \`${family}\`\n\n${stepsTable(data, family)}\n\n${callsTable(data, { family })}`,
  );
  const failures = failureLines(data.arms.flatMap(({ runs }) => runs));
  return [
    planText(data),
    '![accuracy against executed tool calls](accuracy-calls.svg)',
    '## After equal steps',
    stepsTable(data),
    '## At equal calls',
    callsTable(data),
    'The same for greedy answers:',
    callsTable(data, { measure: 'greedy' }),
    '## What holds',
    verdictLines(data).join('\n'),
    '![every arm](arms.svg)',
    '## By family',
    '![by family](accuracy-calls-families.svg)',
    ...families,
    '## Cost',
    costTable(data),
    '## Where branches fall',
    forksTable(data),
    '![forks](forks.svg)',
    '![entropy around tool results](entropy-around-calls.svg)',
    ...(failures.length > 0 ? ['## Runs that broke', failures.join('\n')] : []),
  ].join('\n\n');
}

function offPolicyText(data: PlanRuns): string {
  const failures = failureLines(data.arms.flatMap(({ runs }) => runs));
  return [
    '## Old data',
    planText(data),
    stepsTable(data),
    costTable(data),
    ...(failures.length > 0 ? [failures.join('\n')] : []),
  ].join('\n\n');
}

function readmeText(rules: PlanRuns | null, offPolicy: PlanRuns | null): string {
  if (rules === null && offPolicy === null) {
    return 'What branching buys over its controls is not measured yet (`npm run bench:arpo`).';
  }
  const parts: string[] = [];
  if (rules !== null) {
    const shown = { ...rules, arms: rules.arms.filter(({ arm }) => SHOWN.includes(arm.name)) };
    parts.push(planText(shown), callsTable(shown), verdictLines(shown).join('\n'));
  }
  if (offPolicy !== null) parts.push(oldDataText(offPolicy), stepsTable(offPolicy));
  const where =
    'All arms, intervals by family and figures: [docs/evidence/arpo](docs/evidence/arpo/report.md).';
  return [...parts, where].join('\n\n');
}

function oldDataText({ plan, arms }: PlanRuns): string {
  const about = arms.map(({ arm }) => `\`${arm.name}\`: ${arm.about}`).join('; ');
  const rate = `${plan.promptsPerStep} prompts a step, learning rate ${plan.learningRate}`;
  return `Learning from rollouts of older weights, ${rate} (${about}):`;
}

async function pretty(markdown: string): Promise<string> {
  const options = await resolveConfig(README);
  return format(markdown, { ...options, parser: 'markdown' });
}

/** The README with the block in its place. Throws config_invalid when it has no marks. */
export function withBlock(readme: string, block: string): string {
  const [begin, end] = [readme.indexOf(MARKS.begin), readme.indexOf(MARKS.end)];
  if (begin < 0 || end < begin) {
    throw new AppError('config_invalid', `README.md has no block from '${MARKS.begin}' on`);
  }
  const before = readme.slice(0, begin + MARKS.begin.length);
  return `${before}\n\n${block}\n${readme.slice(end)}`;
}

/** Writes text files and their pictures. */
export function writeReport(folder: string, { files }: Report): void {
  mkdirSync(folder, { recursive: true });
  for (const [name, text] of files) {
    writeFileSync(join(folder, name), text);
    if (name.endsWith('.svg')) {
      writeFileSync(join(folder, name.replace(/svg$/, 'png')), svgPng(text));
    }
  }
}

async function main(): Promise<void> {
  const report = await makeReport(EVIDENCE);
  writeReport(EVIDENCE, report);
  const readme = existsSync(README) ? readFileSync(README, 'utf8') : '';
  writeFileSync(README, withBlock(readme, report.block));
  console.log(`${report.files.size} files in ${EVIDENCE}, and a block of README.md`);
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) await main();
