/** The result of the demo as text: before and after by family, and the figures of the whole run. */
import type { EvalScore } from '../../core/records.ts';
import { WAYS, type Way } from './answer.ts';
import type { Scores, Summary } from './summary.ts';

const WAY_TITLES: Record<Way, string> = {
  agent: 'agent runs: POST /v1/agent/runs, tools run on the server',
  chat: 'openai client: streamed chat completions, tools run by the demo',
};

const HEADER = ['family', 'questions', 'accuracy', '', 'format errors', 'tool calls a question'];

export function resultText(summary: Summary): string {
  const { before, after } = summary;
  const tables = WAYS.map(
    (way) => `${WAY_TITLES[way]}\n${scoreTable(before.scores[way], after.scores[way])}`,
  );
  return [...tables, alignedRows(figures(summary))].join('\n\n');
}

/** Families in order of name, then `all`. */
function scoreTable(before: Scores, after: Scores): string {
  const names = [...new Set([...Object.keys(before), ...Object.keys(after)])]
    .filter((name) => name !== 'all')
    .sort();
  const rows = [...names, 'all'].map((name) => scoreRow(name, before[name], after[name]));
  return alignedRows([HEADER, ...rows]);
}

function scoreRow(name: string, before?: EvalScore, after?: EvalScore): string[] {
  const arrow = (show: (score: EvalScore) => string): string =>
    `${before === undefined ? '-' : show(before)} -> ${after === undefined ? '-' : show(after)}`;
  const gain =
    before === undefined || after === undefined
      ? ''
      : signed(100 * (after.accuracy - before.accuracy));
  return [
    name,
    String(after?.tasks ?? before?.tasks ?? 0),
    arrow((score) => percent(score.accuracy)),
    gain,
    arrow((score) => percent(score.formatErrors)),
    arrow((score) => score.toolCallsPerTask.toFixed(2)),
  ];
}

function figures(summary: Summary): string[][] {
  const { training, live, requests, before, after } = summary;
  const { counts, gate } = training;
  return [
    ['training run', `${training.status}, ${training.algorithm}, ${training.progress.step} steps`],
    ['training wall time', `${summary.trainingSeconds.toFixed(0)} s, the gate included`],
    ['rollouts', `${counts.rollouts}, of them ${counts.branches} branches`],
    ['tool calls executed in training', String(counts.tool_calls_executed)],
    ['tool calls saved by branching', String(counts.tool_calls_saved)],
    ['gate', gate === null ? 'not reached' : gate.reason],
    ['answers before, by policy version', versionsText(before.versions)],
    ['answers during training', versionsText(live.versions)],
    ['answers after', versionsText(after.versions)],
    ['failed requests', `${requests.failed}, of ${requests.answers + requests.failed} questions`],
  ];
}

function versionsText(versions: Readonly<Record<string, number>>): string {
  const parts = Object.entries(versions).map(
    ([version, count]) => `${count} by version ${version}`,
  );
  return parts.length === 0 ? 'none' : parts.join(', ');
}

/**
 * Columns padded to equal width: the first to the left, numbers to the right where there are many.
 */
export function alignedRows(rows: readonly (readonly string[])[]): string {
  const widths: number[] = [];
  for (const row of rows) {
    row.forEach((cell, i) => (widths[i] = Math.max(widths[i] ?? 0, cell.length)));
  }
  const left = (i: number): boolean => i === 0 || widths.length === 2;
  return rows
    .map((row) =>
      row
        .map((cell, i) => (left(i) ? cell.padEnd(widths[i] ?? 0) : cell.padStart(widths[i] ?? 0)))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}

const percent = (share: number): string => `${(100 * share).toFixed(1)} %`;

const signed = (points: number): string => `${points < 0 ? '' : '+'}${points.toFixed(1)}`;
