/**
 * npm run bench:packed-scale: how one training step (loss, gradients, AdamW) of the shipped
 * policy's shape grows with the group and with its prompt, with flat rows, with packed rows
 * (arpo.md section 7) and with the trainer's choice. Each shape and form has a fresh process, so
 * that its highest resident size is its own; the processes of a shape make their steps in turns.
 */
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { builtModule } from '../core/paths.ts';
import type { Packing } from '../core/trainer/pack-plan.ts';
import { spawnMeasured } from './measured-child.ts';
import type { ScaleStep } from './packed-scale-child.ts';
import { comparison, FORMS, inTurns } from './packing-turns.ts';
import { benchOptions, printTable, recordResults, type Row } from './report.ts';

const PROMPT = 512;
const GROUP = 16;
const SHAPES = [
  ...[4, 8, 16, 32, 64].map((group) => ({ group, prompt: PROMPT })),
  ...[128, 256, 1024, 2048].map((prompt) => ({ group: GROUP, prompt })),
];

/** A process that makes a step of one form on one shape whenever it is asked. */
class StepChild {
  private readonly child;
  private readonly answers: AsyncIterator<string>;
  private readonly exited: Promise<unknown[]>;

  constructor(form: Packing, group: number, prompt: number) {
    const script = fileURLToPath(builtModule(import.meta.url, './packed-scale-child.ts'));
    const numbers = [group, prompt, options.threads].map(String);
    this.child = spawnMeasured(script, [form, ...numbers]);
    this.exited = once(this.child, 'exit');
    this.answers = createInterface({ input: this.child.stdout })[Symbol.asyncIterator]();
  }

  async step(): Promise<ScaleStep> {
    this.child.stdin.write('step\n');
    const { value } = (await this.answers.next()) as IteratorResult<string, undefined>;
    if (value !== undefined) return JSON.parse(value) as ScaleStep;
    throw new Error(`a step's process ended with ${String(await this.exited)}`);
  }

  async end(): Promise<void> {
    this.child.stdin.end();
    await this.exited;
  }
}

const options = benchOptions(5);
const rows: Row[] = [];
for (const shape of SHAPES) {
  rows.push(await benchShape(shape));
  printTable(rows.slice(-1));
}
console.log();
printTable(rows);
recordResults('packed-scale', options, rows);

async function benchShape({ group, prompt }: { group: number; prompt: number }): Promise<Row> {
  const children = new Map(FORMS.map((form) => [form, new StepChild(form, group, prompt)]));
  const steps = await inTurns(options.repeats, (form) => children.get(form)!.step());
  for (const child of children.values()) await child.end();
  const last = (form: Packing) => steps.get(form)!.at(-1)!;
  const peak = (form: Packing) => last(form).peakMiB ?? '-';
  const { tokensTrained, packedMicroBatches, microBatches } = last('auto');
  return {
    group,
    prompt,
    'trained tokens': tokensTrained,
    'forwarded flat': last('flat').tokensForwarded,
    'forwarded packed': last('packed').tokensForwarded,
    bound: last('flat').tokensForwarded / last('packed').tokensForwarded,
    ...comparison(steps),
    'flat MiB': peak('flat'),
    'packed MiB': peak('packed'),
    'auto MiB': peak('auto'),
    'packed runs of auto': `${packedMicroBatches} of ${microBatches}`,
  };
}
